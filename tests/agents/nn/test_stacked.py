"""Stacked MLPs equal those evaluated one by one under autograd, wherever their parameters lie."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from palaestra.agents.nn.layout import collecting, flatten_
from palaestra.agents.nn.stacked import SingleMLP, StackedMLP, product
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.optimizer import FlatAdam

# The last have products that are computed transposed, and one without a hidden layer.
SIZES = ([5, 8, 7, 3], [80, 70, 90], [5, 80, 1], [5, 2])


def placed(network: nn.Module, where: str) -> None:
    """Lay parameters out in one of the ways that occur."""
    if where == "flat":
        flatten_(network.parameters())
    elif where == "optimizer":
        FlatAdam(network.parameters(), 1e-3)


def one_by_one(networks: StackedMLP, features: Tensor) -> Tensor:
    own = features if features.dim() == 3 else [features] * len(networks)
    return torch.stack([nn.Sequential(*network)(given) for network, given in zip(networks, own, strict=True)])


@pytest.mark.parametrize("where", ["apart", "flat", "optimizer"])
@pytest.mark.parametrize("own_features", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
def test_outputs_and_gradients_equal_autograd(
    activation: str, sizes: list[int], count: int, own_features: bool, where: str
) -> None:
    torch.manual_seed(0)
    networks = StackedMLP(count, sizes, activation).double()
    placed(networks, where)
    shape = (count, 11, sizes[0]) if own_features else (11, sizes[0])
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(count, 11, sizes[-1], dtype=torch.float64)
    output, expected = networks(features), one_by_one(networks, features)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
    with torch.no_grad():
        assert torch.equal(networks(features), output)
    inputs = [features, *networks.parameters()]
    for ours, theirs in zip(
        *(torch.autograd.grad((o * weight).sum(), inputs) for o in (output, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("where", ["apart", "optimizer"])
def test_one_of_several(where: str) -> None:
    torch.manual_seed(0)
    networks = StackedMLP(3, [5, 8, 2]).double()
    placed(networks, where)
    features = torch.randn(11, 5, dtype=torch.float64)
    parameters = list(networks.parameters())
    for index in range(3):
        output, expected = networks.one(index, features), one_by_one(networks, features)[index]
        torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
        ours, theirs = (
            torch.autograd.grad(o.square().sum(), parameters, allow_unused=True, materialize_grads=True)
            for o in (output, expected)
        )
        for mine, peer in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, peer, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_equal_finite_differences(activation: str) -> None:
    torch.manual_seed(0)
    networks = StackedMLP(2, [3, 4, 2], activation).double()
    features = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    parameters = [parameter.detach().clone().requires_grad_() for parameter in networks.parameters()]

    def outputs(features: Tensor, *values: Tensor) -> Tensor:
        with torch.no_grad():
            for parameter, value in zip(networks.parameters(), values, strict=True):
                parameter.copy_(value)
        return Through.apply(networks, features, *values)

    assert torch.autograd.gradcheck(outputs, (features, *parameters))


class Through(torch.autograd.Function):
    """Hands the gradients of a module's own parameters over to given tensors."""

    @staticmethod
    def forward(ctx: Any, networks: nn.Module, features: Tensor, *values: Tensor) -> Tensor:
        ctx.networks, ctx.features = networks, features.detach().requires_grad_()
        with torch.enable_grad():
            ctx.output = networks(ctx.features)
        return ctx.output.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs = [ctx.features, *ctx.networks.parameters()]
        return (None, *torch.autograd.grad(ctx.output, inputs, gradient, retain_graph=True))


def test_collected_gradients_are_added_in_place() -> None:
    """Twice through the same networks, as in a loss of two terms; equal to what autograd adds up."""
    torch.manual_seed(0)
    networks = StackedMLP(2, [23, 70, 1])
    plain = copy.deepcopy(networks)
    optimizer = FlatAdam(networks.parameters(), 1e-3)
    one, other = torch.randn(2, 90, 23)

    def loss(module: StackedMLP) -> Tensor:
        return module(one).square().mean() + module(other).sum() + module.one(1, one).sum()

    with collecting(optimizer.gradient):
        loss(networks).backward()
    loss(plain).backward()
    for ours, theirs in zip(networks.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)
        assert ours.grad.untyped_storage().data_ptr() == optimizer.gradient.untyped_storage().data_ptr()


def test_minimising_equals_torch_adam() -> None:
    torch.manual_seed(0)
    networks = StackedMLP(2, [5, 8, 1])
    plain = copy.deepcopy(networks)
    ours, theirs = FlatAdam(networks.parameters(), 1e-2), torch.optim.Adam(plain.parameters(), 1e-2, fused=True)
    for _ in range(20):
        features = torch.randn(16, 5)
        minimise(networks(features).square().mean(), ours)
        minimise(one_by_one(plain, features).square().mean(), theirs)
    for mine, peer in zip(networks.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, peer, atol=1e-6, rtol=1e-5)


def test_views_follow_when_parameters_move() -> None:
    torch.manual_seed(0)
    networks, features = StackedMLP(2, [5, 8, 1]), torch.randn(4, 5)
    flatten_(networks.parameters())
    before = networks(features).detach()
    other = copy.deepcopy(networks)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(networks(features), before)
    assert not bool(other(features).any())
    # A new optimiser moves them too; what it changes must be seen.
    FlatAdam(networks.parameters(), 1e-3).flat.zero_()
    assert not bool(networks(features).any())


def test_a_single_mlp_is_a_plain_sequence() -> None:
    torch.manual_seed(0)
    network, features = SingleMLP([5, 8, 3]), torch.randn(4, 5)
    assert list(network.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    torch.testing.assert_close(network(features), nn.Sequential(*network)(features))


def test_transforms_of_torch_func_are_evaluated_plainly() -> None:
    torch.manual_seed(0)
    networks, features = StackedMLP(2, [5, 8, 1]), torch.randn(6, 4, 5)
    torch.testing.assert_close(
        torch.func.vmap(networks)(features).transpose(0, 1), networks(features.flatten(0, 1)).unflatten(1, (6, 4))
    )


def test_second_derivatives_are_refused() -> None:
    networks, features = StackedMLP(2, [5, 8, 1]), torch.randn(4, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(networks(features).square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(("rows", "columns"), [(100, 3), (3, 100), (100, 100), (3, 3)])
def test_products_are_the_same_either_way_round(rows: int, columns: int) -> None:
    left, right = torch.randn(2, rows, 7), torch.randn(2, 7, columns)
    torch.testing.assert_close(product(left, right), left @ right)
