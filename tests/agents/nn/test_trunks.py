"""Trunks: residual blocks, their normalisation, and batch renormalisation against its definition."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from palaestra.agents.nn.layout import flatten_
from palaestra.agents.nn.trunks import (
    TRUNKS,
    BatchRenorm,
    BatchRenormMLP,
    BroNet,
    Residual,
    SimBa,
    TrunkBank,
    batch_statistics,
    trunks,
)


def features(rows: int = 64, width: int = 5, seed: int = 0) -> torch.Tensor:
    return 3.0 + 2.0 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def blocks(trunk: nn.Module) -> list[Residual]:
    return [module for module in trunk.modules() if isinstance(module, Residual)]


@pytest.mark.parametrize("kind", [SimBa, BroNet])
def test_every_hidden_width_is_a_block(kind: type[SimBa | BroNet]) -> None:
    trunk = kind([5, 8, 8, 8, 2])
    assert len(blocks(trunk)) == 3
    assert trunk(features()).shape == (64, 2)


def test_zeroed_last_layers_make_blocks_the_identity() -> None:
    torch.manual_seed(0)
    trunk = SimBa([5, 8, 8, 2])
    given = torch.randn(7, 8)
    for block in blocks(trunk):
        assert not torch.allclose(block(given), given)
        last = [layer for layer in block if isinstance(layer, nn.Linear)][-1]
        nn.init.zeros_(last.weight)
        assert torch.equal(block(given), given)


def test_a_bro_block_whose_last_normalisation_is_zeroed_is_the_identity() -> None:
    torch.manual_seed(0)
    (block,) = blocks(BroNet([5, 8, 2]))
    given = torch.randn(7, 8)
    assert not torch.allclose(block(given), given)
    nn.init.zeros_(block[-1].weight)
    assert torch.equal(block(given), given)


def test_the_last_features_of_simba_have_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    found = SimBa([5, 32, 32, 2]).body(100.0 * features())
    torch.testing.assert_close(found.mean(-1), torch.zeros(64), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(found.var(-1, correction=0), torch.ones(64), atol=1e-3, rtol=0.0)


def test_simba_is_its_formula() -> None:
    torch.manual_seed(0)
    trunk, given = SimBa([5, 8, 2]), features()
    first, block, _ = trunk.body
    _, up, _, down = block
    assert up.weight.shape == (32, 8)
    stream = given @ first.weight.T + first.bias
    stream = stream + torch.relu(layer_norm(stream) @ up.weight.T + up.bias) @ down.weight.T + down.bias
    torch.testing.assert_close(trunk(given), layer_norm(stream) @ trunk.head.weight.T + trunk.head.bias)


def test_bronet_is_its_formula() -> None:
    torch.manual_seed(0)
    trunk, given = BroNet([5, 8, 2]), features()
    first, _, _, block = trunk.body
    stream = torch.relu(layer_norm(given @ first.weight.T + first.bias))
    inner, _, _, outer, _ = block
    hidden = torch.relu(layer_norm(stream @ inner.weight.T + inner.bias))
    stream = stream + layer_norm(hidden @ outer.weight.T + outer.bias)
    torch.testing.assert_close(trunk(given), stream @ trunk.head.weight.T + trunk.head.bias)


def layer_norm(values: torch.Tensor) -> torch.Tensor:
    centred = values - values.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("kind", [SimBa, BroNet])
@pytest.mark.parametrize("sizes", [[5, 2], [5, 8, 16, 2]])
def test_unequal_widths_are_refused(kind: type[nn.Module], sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"hidden widths \(.*\); expected at least one, all equal"):
        kind(sizes)


@pytest.mark.parametrize("name", TRUNKS)
def test_several_trunks_are_evaluated_as_each_alone(name: str) -> None:
    torch.manual_seed(0)
    bank = trunks(name)(3, [5, 8, 8, 2], "relu")
    flatten_(bank.parameters())
    given = features()
    outputs = bank(given)
    assert outputs.shape == (3, 64, 2)
    assert not torch.allclose(outputs[0], outputs[1])
    own = bank(torch.stack([given, given, 2.0 * given]))
    for index in range(3):
        torch.testing.assert_close(outputs[index], bank.one(index, given))
        torch.testing.assert_close(own[index], bank.one(index, given if index < 2 else 2.0 * given))


def test_batches_are_normalised_as_by_torch_before_the_correction_sets_in() -> None:
    ours, theirs = BatchRenorm(5), nn.BatchNorm1d(5, eps=1e-3)
    scale, shift = torch.rand(2, 5, generator=torch.Generator().manual_seed(1))
    for layer in (ours, theirs):
        with torch.no_grad():
            layer.weight.copy_(scale)
            layer.bias.copy_(shift)
    given = [features().requires_grad_() for _ in range(2)]
    weight = torch.randn(64, 5, generator=torch.Generator().manual_seed(2))
    with batch_statistics(ours):
        results = [layer(values) for layer, values in zip((ours, theirs), given, strict=True)]
    torch.testing.assert_close(*results)
    gradients = [
        torch.autograd.grad((result * weight).sum(), [values, layer.weight, layer.bias])
        for result, values, layer in zip(results, given, (ours, theirs), strict=True)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_running_statistics_follow_the_batches_and_serve_elsewhere() -> None:
    layer = BatchRenorm(5, momentum=0.9)
    mean, variance = torch.zeros(5), torch.ones(5)
    with batch_statistics(layer):
        for seed in range(4):
            given = features(seed=seed)
            layer(given)
            mean = 0.9 * mean + 0.1 * given.mean(0)
            variance = 0.9 * variance + 0.1 * given.var(0, correction=0)
    assert not layer.training
    torch.testing.assert_close(layer.mean, mean)
    torch.testing.assert_close(layer.variance, variance)
    expected = (given - mean) / (variance + 1e-3).sqrt()
    torch.testing.assert_close(layer(given), expected)
    torch.testing.assert_close(layer(given[:1]), expected[:1])
    assert layer.batches == 4
    torch.testing.assert_close(layer.mean, mean)


@pytest.mark.parametrize(("spread", "shift"), [(1.1, 0.3), (50.0, 0.0), (1.0, 40.0), (0.01, -40.0)])
def test_the_correction_is_ioffes(spread: float, shift: float) -> None:
    """Clipped in the last three cases: r = 3, d = 5, and both from below."""
    layer = BatchRenorm(5, warm_up=1)
    with batch_statistics(layer):
        layer(torch.randn(64, 5, generator=torch.Generator().manual_seed(0)))
        running = layer.mean.clone(), (layer.variance + 1e-3).sqrt()
        given = (shift + spread * features()).requires_grad_()
        output = layer(given)
    mean, variance = given.mean(0), given.var(0, correction=0)
    ratio = ((variance + 1e-3).sqrt() / running[1]).clamp(1 / 3, 3).detach()
    offset = ((mean - running[0]) / running[1]).clamp(-5, 5).detach()
    centre = mean - offset * variance.sqrt() / ratio
    expected = (given - centre) / (variance / ratio.square() + 1e-3).sqrt()
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(*(torch.autograd.grad(o.square().sum(), given) for o in (output, expected)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    if spread >= 1.0:
        # Up to eps, this is the form of the paper: x, standardised by its batch, times r, plus d.
        plain = (given - mean) / (variance + 1e-3).sqrt() * ratio + offset
        torch.testing.assert_close(output, plain, atol=0.02, rtol=0.02)
    if spread == 1.1:
        torch.testing.assert_close(output, (given - running[0]) / running[1], atol=0.02, rtol=0.02)


def test_units_that_are_never_active_have_finite_gradients() -> None:
    for warm_up in (0, 10):
        layer = BatchRenorm(3, warm_up=warm_up)
        given = torch.zeros(8, 3, requires_grad=True)
        with batch_statistics(layer):
            layer(given).square().sum().backward()
        assert torch.isfinite(given.grad).all()


def test_the_input_of_every_linear_layer_is_normalised() -> None:
    trunk = BatchRenormMLP([5, 8, 8, 2])
    kinds = [type(layer).__name__ for layer in trunk]
    assert kinds == ["BatchRenorm", "Linear", "ReLU"] * 2 + ["BatchRenorm", "Linear"]


def test_copies_keep_their_own_statistics() -> None:
    bank = TrunkBank(BatchRenormMLP, 2, [5, 8, 1], "relu")
    other = copy.deepcopy(bank)
    with batch_statistics(bank):
        bank(features())
    assert bank[0][0].batches == 1
    assert other[0][0].batches == 0
