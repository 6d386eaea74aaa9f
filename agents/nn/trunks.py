"""Trunks that let networks grow: residual ones with layer normalisation, and one with batch renormalisation.

`trunk(name)` makes the trunk of one network, `trunks(name)` those of several critics. Widths of hidden layers are given
as for an MLP; in a residual trunk they are equal, and every one of them is a block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from palaestra.agents.nn.networks import ACTIVATIONS
from palaestra.agents.nn.stacked import SingleMLP, StackedMLP


class BatchRenorm(nn.Module):
    """Batch normalisation that comes to trust its running statistics (Ioffe 2017, arXiv 1702.03275).

    Inside `batch_statistics` a batch is normalised by its own mean and (biased) variance, which flow into the running
    ones; from `warm_up` batches on, by its own corrected towards the running ones: with m, v of the batch, M, V running
    and s^2 = v + eps, S^2 = V + eps, it is normalised by m - d sqrt(v) / r and v / r^2, where r = s / S within
    [1/3, 3] and d = (m - M) / S within [-5, 5] count as constants. Elsewhere the running statistics are used, so that
    the output for a row does not depend on its batch. Before it, r = 1 and d = 0: plain batch normalisation.

    Args:
        features: Width of the input.
        momentum: Share of the running statistics that a batch leaves in place, in [0, 1).
        eps: Added to variances, above 0.
        warm_up: Batches after which the correction sets in.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, features: int, momentum: float = 0.99, eps: float = 1e-3, warm_up: int = 100_000) -> None:
        super().__init__()
        self.momentum, self.eps, self.warm_up = momentum, eps, warm_up
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.train(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return normalised features `[batch, features]`."""
        if not self.training:
            return self._standardise(features, self.mean, self.variance)
        variance, mean = torch.var_mean(features, 0, correction=0)
        ratio, offset = self._correction(mean.detach(), variance.detach())
        self._remember(mean.detach(), variance.detach())
        # The root has no slope at 0, where the variance of a unit lies that is never active.
        centre = mean - offset / ratio * variance.clamp_min(1e-12).sqrt()
        return self._standardise(features, centre, variance / ratio.square())

    def _standardise(self, features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias - mean * scale, features, scale)

    def _correction(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return r and d `[features]`."""
        # Decided on the device, so that an update can be captured once and replayed for ever.
        warm = self.batches >= self.warm_up
        spread = (self.variance + self.eps).sqrt()
        ratio = ((variance + self.eps).sqrt() / spread).clamp(1.0 / 3.0, 3.0)
        offset = ((mean - self.mean) / spread).clamp(-5.0, 5.0)
        return torch.where(warm, ratio, torch.ones_like(ratio)), torch.where(warm, offset, torch.zeros_like(offset))

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.mean.mul_(self.momentum).add_(mean, alpha=1.0 - self.momentum)
        self.variance.mul_(self.momentum).add_(variance, alpha=1.0 - self.momentum)
        self.batches.add_(1)


@contextmanager
def batch_statistics(*modules: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of the batch inside, and let them flow into the running ones."""
    for module in modules:
        module.train()
    try:
        yield
    finally:
        for module in modules:
            module.eval()


class BatchRenormMLP(nn.Sequential):
    """An MLP whose every linear layer reads batch-renormalised features (Bhatt et al. 2024, arXiv 1902.05605).

    Args:
        sizes: Widths from input to output, at least two.
        activation: Name of the activation between layers.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu") -> None:
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(sizes):
            layers += [BatchRenorm(width_in), nn.Linear(width_in, width_out), ACTIVATIONS[activation]()]
        super().__init__(*layers[:-1])


class ResidualTrunk(nn.Module):
    """A layer into a residual stream, blocks that add to it, and a linear head.

    Args:
        body: From the input to the features `[batch, width]`.
        head: From the features to the output.
    """

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of features `[batch, in]`."""
        output: Tensor = self.head(self.body(features))
        return output


class Residual(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features + layers(features)."""
        output: Tensor = super().forward(features)
        return features + output


class SimBa(ResidualTrunk):
    """x + W2 relu(W1 LN(x)) in every block, W1 four times as wide; a last LN before the head (Lee et al. 2024).

    Initialised as the authors do: orthogonally at both ends, by He's normal distribution in the blocks.

    Args:
        sizes: Widths from input to output; those between are equal, one for every block (arXiv 2410.09754).
        activation: Name of the activation inside a block.

    Raises:
        ValueError: If the hidden widths are none or differ.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu") -> None:
        width, blocks = _residual_width("SimBa", sizes)
        layers: list[nn.Module] = [_orthogonal(sizes[0], width, 1.0)]
        for _ in range(blocks):
            up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            for layer in (up, down):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
            layers.append(Residual(nn.LayerNorm(width), up, ACTIVATIONS[activation](), down))
        super().__init__(nn.Sequential(*layers, nn.LayerNorm(width)), _orthogonal(width, sizes[-1], 1.0))


class BroNet(ResidualTrunk):
    """x + LN(W2 relu(LN(W1 x))) in every block, after relu(LN(W0 input)) (Nauman et al. 2024, arXiv 2405.16158).

    Initialised orthogonally with gain sqrt(2), as the authors do.

    Args:
        sizes: Widths from input to output; those between are equal, one for every block.
        activation: Name of the activation.

    Raises:
        ValueError: If the hidden widths are none or differ.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu") -> None:
        width, blocks = _residual_width("BroNet", sizes)
        gain = math.sqrt(2.0)

        def dense(width_in: int) -> list[nn.Module]:
            return [_orthogonal(width_in, width, gain), nn.LayerNorm(width)]

        layers = [*dense(sizes[0]), ACTIVATIONS[activation]()]
        layers += [Residual(*dense(width), ACTIVATIONS[activation](), *dense(width)) for _ in range(blocks)]
        super().__init__(nn.Sequential(*layers), _orthogonal(width, sizes[-1], gain))


class TrunkBank(nn.ModuleList):
    """Independent trunks of one shape, evaluated one by one.

    Args:
        make: Makes one of them of its sizes and activation.
        count: Number of trunks.
        sizes: Widths from input to output, at least two.
        activation: Name of the activation.
    """

    def __init__(
        self, make: Callable[[Sequence[int], str], nn.Module], count: int, sizes: Sequence[int], activation: str
    ) -> None:
        super().__init__(make(sizes, activation) for _ in range(count))

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `[count, batch, out]` of features `[batch, in]`, or one set each, `[count, batch, in]`."""
        own = features if features.dim() == 3 else [features] * len(self)
        return torch.stack([trunk(given) for trunk, given in zip(self, own, strict=True)])

    def one(self, index: int, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of one trunk alone for features `[batch, in]`."""
        output: Tensor = self[index](features)
        return output


TRUNKS: dict[str, Callable[[Sequence[int], str], nn.Module]] = {
    "mlp": SingleMLP,
    "simba": SimBa,
    "bronet": BroNet,
    "batch-renorm": BatchRenormMLP,
}
"""What makes the trunk of one network of its sizes and activation, by name."""


def trunk(name: str) -> Callable[[Sequence[int], str], nn.Module]:
    """Return what makes the trunk of one network: a key of `TRUNKS`."""
    return TRUNKS[name]


def trunks(name: str) -> Callable[[int, Sequence[int], str], StackedMLP | TrunkBank]:
    """Return what makes the trunks of several critics, given their number, sizes and activation."""
    return StackedMLP if name == "mlp" else partial(TrunkBank, TRUNKS[name])


def _orthogonal(width_in: int, width_out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(width_in, width_out)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def _residual_width(name: str, sizes: Sequence[int]) -> tuple[int, int]:
    """Return the common width of the hidden layers and their number."""
    hidden = list(sizes[1:-1])
    if not hidden or len(set(hidden)) > 1:
        raise ValueError(f"{name}: hidden widths {tuple(hidden)}; expected at least one, all equal")
    return hidden[0], len(hidden)
