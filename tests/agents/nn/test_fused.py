"""The fused MLP and the flat Adam equal torch's own, and what they replace."""

from __future__ import annotations

import pytest
import torch

from palaestra.agents.nn.fused import FusedMLP, fused_mlp
from palaestra.agents.nn.networks import mlp
from palaestra.agents.training.optimizer import FlatAdam


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 16)])
def test_outputs_and_gradients_equal_autograd(activation: str, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain = mlp([5, *hidden, 3], activation).double()
    fused = fused_mlp([5, *hidden, 3], activation).double()
    fused.load_state_dict(plain.state_dict())
    features = torch.randn(7, 5, dtype=torch.float64)
    results = []
    for network in (plain, fused):
        given = features.clone().requires_grad_(True)
        output = network(given)
        gradients = torch.autograd.grad(output.square().sum(), [given, *network.parameters()])
        results.append([output, *gradients])
    assert isinstance(fused, FusedMLP)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    torch.manual_seed(0)
    network = fused_mlp([3, 4, 2], "tanh").double()
    features = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (features,))


def test_other_activations_stay_plain_and_odd_layers_are_refused() -> None:
    assert not isinstance(fused_mlp([3, 4, 2], "elu"), FusedMLP)
    with pytest.raises(TypeError, match="expected linear layers with tanh or ReLU"):
        FusedMLP([torch.nn.Linear(2, 2), torch.nn.ELU(), torch.nn.Linear(2, 2)])


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_flat_adam_equals_torch(max_grad_norm: float | None) -> None:
    torch.manual_seed(0)
    ours, theirs = mlp([4, 8, 2]), mlp([4, 8, 2])
    ours.load_state_dict(theirs.state_dict())
    flat = FlatAdam(ours.parameters(), 1e-2, max_grad_norm=max_grad_norm)
    fused = torch.optim.Adam(theirs.parameters(), 1e-2, fused=True)
    for _ in range(20):
        features = torch.randn(16, 4)
        for network, optimizer in ((ours, flat), (theirs, fused)):
            optimizer.zero_grad()
            network(features).square().mean().backward()
            if network is theirs and max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
            optimizer.step()
    for mine, peer in zip(ours.parameters(), theirs.parameters(), strict=True):
        if max_grad_norm is None:
            assert torch.equal(mine, peer)
        else:
            torch.testing.assert_close(mine, peer, atol=1e-6, rtol=1e-5)


def test_flat_adam_resumes_exactly() -> None:
    torch.manual_seed(0)
    network = mlp([4, 8, 2])
    optimizer = FlatAdam(network.parameters(), 1e-2)

    def step(network: torch.nn.Module, optimizer: FlatAdam) -> None:
        optimizer.zero_grad()
        network(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()

    step(network, optimizer)
    other = mlp([4, 8, 2])
    other_optimizer = FlatAdam(other.parameters(), 1.0)
    other.load_state_dict(network.state_dict())
    other_optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        step(network, optimizer)
        step(other, other_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
