"""Times as features: sines and cosines of several frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_FREQUENCY = 64.0
"""In radians per unit of time: a hundredth of the unit is still told apart."""


def time_features(time: Tensor, width: int) -> Tensor:
    """Return sines and cosines of times in [0, 1], at frequencies in geometric progression from 1 to 64 radians.

    Args:
        time: `[...]`.
        width: Number of features, even and at least 4.

    Returns:
        `[..., width]`, sines first.
    """
    exponents = torch.linspace(0.0, math.log(LARGEST_FREQUENCY), width // 2, dtype=time.dtype, device=time.device)
    angles = time.unsqueeze(-1) * exponents.exp()
    return torch.cat([angles.sin(), angles.cos()], -1)
