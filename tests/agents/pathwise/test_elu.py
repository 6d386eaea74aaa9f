"""The perceptron of ELUs as one operation equals the plain one, forwards and backwards."""

from __future__ import annotations

import pytest
import torch

from palaestra.agents.nn.networks import mlp
from palaestra.agents.pathwise.elu import EluPerceptron, perceptron


@pytest.mark.parametrize("sizes", [(3, 8, 2), (13, 32, 32, 4), (2, 16, 1), (40, 5, 50, 3), (4, 1)])
@pytest.mark.parametrize("batch", [5, 3000])
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_and_gradients_are_those_of_autograd(
    sizes: tuple[int, ...], batch: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Narrow and wide inputs, small batches and large, with either exponential, in float64."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.manual_seed(0)
    plain = mlp(sizes, "elu").double()
    fused = EluPerceptron(*mlp(sizes, "elu")).double()
    fused.load_state_dict(plain.state_dict())
    generator = torch.Generator().manual_seed(1)
    features = [3.0 * torch.randn(sizes[0], batch, generator=generator, dtype=torch.float64) for _ in range(2)]
    # One batch column by column in memory, as worlds give them, and one row by row.
    for given in (features[0].T, features[1].T.contiguous()):
        one, other = (given.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
        first, second = plain(one), fused(other)
        torch.testing.assert_close(second, first, rtol=1e-12, atol=1e-12)
        weight = torch.randn(first.shape, generator=generator, dtype=torch.float64)
        ours = torch.autograd.grad((second * weight).sum(), [other, *fused.parameters()])
        theirs = torch.autograd.grad((first * weight).sum(), [one, *plain.parameters()])
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(fused(features[0].T), plain(features[0].T))


def test_what_it_cannot_do_alone_goes_through_torch() -> None:
    fused = perceptron((2, 4, 1), "elu")
    stacked = torch.randn(3, 5, 2)
    torch.testing.assert_close(fused(stacked), torch.stack([fused(rows) for rows in stacked]))
    slopes = torch.func.vmap(torch.func.grad(lambda row: fused(row[None]).sum()))(stacked[0])
    rows = stacked[0].clone().requires_grad_()
    torch.testing.assert_close(slopes, torch.autograd.grad(fused(rows).sum(), rows)[0])


def test_other_activations_stay_plain() -> None:
    assert isinstance(perceptron((2, 4, 1), "elu"), EluPerceptron)
    assert not isinstance(perceptron((2, 4, 1), "relu"), EluPerceptron)
