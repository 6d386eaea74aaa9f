"""Parameters in one flat tensor, and the views that reach all of them."""

from __future__ import annotations

import torch
from torch import nn

from palaestra.agents.nn.layout import (
    collecting,
    collects,
    flat_view,
    flatten_,
    parameters_of,
    stacked_view,
)
from palaestra.agents.nn.networks import mlp
from palaestra.agents.nn.stacked import StackedMLP


def test_flattening_keeps_parameters_and_shares_their_memory() -> None:
    network = mlp([3, 5, 2])
    before = [parameter.detach().clone() for parameter in network.parameters()]
    owned = list(network.parameters())
    flat = flatten_(network.parameters())
    assert all(one is other for one, other in zip(owned, network.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))
    flat.fill_(2.0)
    assert all(bool((parameter == 2.0).all()) for parameter in network.parameters())
    view = flat_view(list(network.parameters()))
    assert view is not None
    assert view.data_ptr() == flat.data_ptr()
    assert view.shape == flat.shape


def test_parameters_are_found_in_order() -> None:
    network = nn.Sequential(mlp([3, 5, 2]), nn.ModuleDict({"a": nn.Linear(2, 2, bias=False)}), nn.LSTMCell(2, 2))
    assert [id(p) for p in parameters_of(network)] == [id(p) for p in network.parameters()]


def test_parameters_that_lie_apart_have_no_flat_view() -> None:
    network = mlp([3, 5, 2])
    assert flat_view(list(network.parameters())) is None
    flatten_(network.parameters())
    assert flat_view(list(network.parameters())[::-1]) is None
    assert flat_view(list(network.parameters())[1:]) is not None
    # Rows of two tensors that happen to be neighbours are still two tensors.
    assert flat_view([torch.zeros(4), torch.zeros(4)]) is None
    assert flat_view([torch.zeros(4, 2).t()]) is None


def test_equal_layers_at_equal_distances_are_stacked_by_a_view() -> None:
    networks = StackedMLP(3, [4, 6, 1])
    weights = [network[0].weight for network in networks]
    assert stacked_view(weights) is None
    flatten_(networks.parameters())
    stack = stacked_view(weights)
    assert stack is not None
    assert torch.equal(stack, torch.stack(weights))
    stack.zero_()
    assert not any(bool(weight.any()) for weight in weights)
    assert stacked_view([weights[0], weights[2], weights[1]]) is None
    assert stacked_view([weights[0], weights[0]]) is None
    single = stacked_view(weights[:1])
    assert single is not None
    assert single.shape == (1, 6, 4)


def test_only_the_gradient_that_is_collected_says_so() -> None:
    one, other = torch.zeros(6), torch.zeros(6)
    with collecting(one):
        assert collects(one[2:4].view(2, 1))
        assert not collects(other)
    assert not collects(one)
