"""Trunks: what turns an observation into features, and features into outputs."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

Observation = Tensor | dict[str, Tensor]
"""A batch of observations: one tensor `[batch, ...]`, or one per key of a Dict space."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def mlp(sizes: Sequence[int], activation: str = "relu", output_activation: bool = False) -> nn.Sequential:
    """Return linear layers of the given sizes, input first, with an activation between them.

    Args:
        sizes: Widths from input to output, at least one.
        activation: A key of `ACTIVATIONS`.
        output_activation: Whether the last layer is activated too (a trunk under further heads).
    """
    layers: list[nn.Module] = []
    for index, (width_in, width_out) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(width_in, width_out))
        if output_activation or index < len(sizes) - 2:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def orthogonal_(module: nn.Module, gain: float) -> None:
    """Initialise every linear and convolutional layer orthogonally with zero bias (PPO detail 2)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv1d):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """Turns a batch of observations into features `[batch, features]`."""

    features: int


SYMBOLIC_BELOW, SYMBOLIC_SCALE = 36, 10.0
"""Pixels from which an image is one; smaller grids are symbolic.

Symbolic grids hold object codes up to about ten, declared as 0..255: dividing them by 255 would hide them.
"""


def image_layout(space: spaces.Box) -> tuple[bool, int, int, int]:
    """Return whether an image has its channels first, its height and width, and its number of channels."""
    height, width, channels = space.shape
    if height < min(width, channels):
        return True, width, channels, height
    return False, height, width, channels


def image_scale(space: spaces.Box) -> float:
    """Return what the numbers of an image are divided by."""
    _, height, width, _ = image_layout(space)
    return SYMBOLIC_SCALE if min(height, width) < SYMBOLIC_BELOW else float(np.max(space.high))


class ImageEncoder(Encoder):
    """Convolutions over an image: the Nature CNN from 36 pixels up, 2x2 kernels for small symbolic grids.

    Args:
        space: Box of shape `[height, width, channels]`, or channels first.
        features: Width of the output.
    """

    def __init__(self, space: spaces.Box, features: int = 256) -> None:
        super().__init__()
        self.channels_first, height, width, channels = image_layout(space)
        self.scale = image_scale(space)
        if min(height, width) < SYMBOLIC_BELOW:
            convolutions = [nn.Conv2d(channels, 16, 2), nn.Conv2d(16, 32, 2), nn.Conv2d(32, 64, 2)]
        else:
            convolutions = [nn.Conv2d(channels, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)]
        self.convolutions = nn.Sequential(
            *(layer for conv in convolutions for layer in (conv, nn.ReLU())), nn.Flatten()
        )
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, channels, height, width)).shape[1]
        self.output = nn.Sequential(nn.Linear(flat, features), nn.ReLU())
        self.features = features

    def forward(self, image: Tensor) -> Tensor:
        """Return features `[batch, features]` of images `[batch, height, width, channels]`."""
        pixels = image.float() / self.scale
        return self.output(self.convolutions(pixels if self.channels_first else pixels.permute(0, 3, 1, 2)))


class TokenEncoder(Encoder):
    """Reads padded token ids: embeddings, a width-3 convolution, then mean and maximum over the real tokens.

    Args:
        space: Integer Box of shape `[length]`; id 0 is padding and `space.high` bounds the vocabulary.
        features: Width of the convolution; the output is twice as wide.
    """

    def __init__(self, space: spaces.Box, features: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(int(space.high.max()) + 1, 32, padding_idx=0)
        self.convolution = nn.Conv1d(32, features, 3, padding=1)
        self.features = 2 * features

    def forward(self, tokens: Tensor) -> Tensor:
        """Return features `[batch, features]` of token ids `[batch, length]`."""
        tokens = tokens.long()
        real = (tokens != 0).unsqueeze(1)
        hidden = torch.relu(self.convolution(self.embedding(tokens).transpose(1, 2))) * real
        mean = hidden.sum(-1) / real.sum(-1).clamp_min(1)
        return torch.cat([mean, hidden.amax(-1)], -1)


class OneHot(Encoder):
    """One-hot encoding of one or several categorical variables.

    Args:
        counts: Number of values of each variable.
        start: Smallest value of each variable.
    """

    def __init__(self, counts: Sequence[int], start: Sequence[int]) -> None:
        super().__init__()
        offsets = np.cumsum([0, *counts[:-1]]) - np.asarray(start)
        self.register_buffer("offsets", torch.as_tensor(offsets, dtype=torch.int64), persistent=False)
        self.features = int(sum(counts))

    def forward(self, values: Tensor) -> Tensor:
        """Return `[batch, sum(counts)]` zeros and ones of values `[batch]` or `[batch, variables]`."""
        index = values.long().reshape(values.shape[0], -1) + self.offsets  # type: ignore[operator]
        return torch.zeros(index.shape[0], self.features, device=values.device).scatter(1, index, 1.0)


class Flatten(Encoder):
    """Flattens a Box observation to float features `[batch, size]`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, value: Tensor) -> Tensor:
        """Return features `[batch, features]`."""
        return value.reshape(value.shape[0], -1).float()


class DictEncoder(Encoder):
    """Encodes every key of a Dict observation and concatenates the features in key order."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__()
        encoders = {key: make_encoder(sub) for key, sub in space.spaces.items()}
        self.encoders = nn.ModuleDict(encoders)
        self.features = sum(encoder.features for encoder in encoders.values())

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Return features `[batch, features]`."""
        return torch.cat([encoder(observation[key]) for key, encoder in self.encoders.items()], -1)


Factory = TypeVar("Factory", bound=Callable[[Any], nn.Module])
_ENCODERS: dict[str, Callable[[gym.Space[Any]], Any]] = {}


def register_encoder(name: str) -> Callable[[Factory], Factory]:
    """Register a custom encoder under a name that configurations may give as `encoder`.

    The decorated class or function takes an observation space and returns a module with an int attribute
    `features` that maps a batch of observations to `[batch, features]`.
    """

    def register(factory: Factory) -> Factory:
        _ENCODERS[name] = factory
        return factory

    return register


@register_encoder("flat")
class FlatEncoder(Encoder):
    """Numbers side by side with nothing learnt, so that the trunks behind it can have a gradient derived by hand.

    Boxes are flattened, those of integers divided as images are or by their upper bound; the rest is one-hot. Token
    ids become a number each: where texts matter and vary, "auto" learns to read them.

    Args:
        space: Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__()
        parts = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        self.keys = list(parts)
        self.scales = [_integer_scale(part) for part in parts.values()]
        boxes = [isinstance(part, spaces.Box) for part in parts.values()]
        self.parts = nn.ModuleList(
            Flatten(math.prod(part.shape or ())) if box else make_encoder(part)
            for part, box in zip(parts.values(), boxes, strict=True)
        )
        self.features = sum(part.features for part in self.parts)  # type: ignore[misc]

    def forward(self, observation: Observation) -> Tensor:
        """Return features `[batch, features]`."""
        given = [observation if key is None else observation[key] for key in self.keys]  # type: ignore[index]
        flat = [part(value) for part, value in zip(self.parts, given, strict=True)]
        return torch.cat([v if s == 1.0 else v / s for v, s in zip(flat, self.scales, strict=True)], -1)


def _integer_scale(space: gym.Space[Any]) -> float:
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.integer):
        return 1.0
    return image_scale(space) if len(space.shape) == 3 else max(1.0, float(np.max(space.high)))


def make_encoder(space: gym.Space[Any], name: str = "auto") -> Encoder:
    """Return the module that turns observations of a space into features.

    Args:
        space: Box (vector, image or integer tokens), Discrete, MultiDiscrete, MultiBinary or a Dict of them.
        name: "auto", a name given to `register_encoder`, or "package.module:Class" of an imported module.

    Raises:
        ValueError: If the name is unknown, or its module has not been imported (nothing that a saved file names
            is ever imported on its own).
        TypeError: If no encoder fits the space.
    """
    if name != "auto":
        return _custom_encoder(name)(space)
    if isinstance(space, spaces.Dict):
        return DictEncoder(space)
    if isinstance(space, spaces.Box):
        if len(space.shape) == 3 and min(space.shape) >= 1:
            return ImageEncoder(space)
        if len(space.shape) == 1 and np.issubdtype(space.dtype, np.integer) and space.dtype != np.uint8:
            return TokenEncoder(space)
        return Flatten(math.prod(space.shape))
    if isinstance(space, spaces.Discrete):
        return OneHot([int(space.n)], [int(space.start)])
    if isinstance(space, spaces.MultiDiscrete):
        return OneHot([int(n) for n in space.nvec.flat], [int(s) for s in space.start.flat])
    if isinstance(space, spaces.MultiBinary):
        return Flatten(math.prod(space.shape))
    raise TypeError(
        f"make_encoder: observation space {space} has no encoder; expected Box, Discrete, MultiDiscrete, MultiBinary "
        "or a Dict of them (text is turned into tokens by palaestra.wrappers.encode_text.EncodeText)"
    )


def _custom_encoder(name: str) -> Callable[[gym.Space[Any]], Encoder]:
    if name in _ENCODERS:
        return _ENCODERS[name]
    module_name, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module_name), attribute, None) if attribute else None
    # Only network classes: a saved name must not be able to call anything else.
    if isinstance(found, type) and issubclass(found, nn.Module):
        return cast("type[Encoder]", found)
    raise ValueError(
        f"encoder: {name!r} is unknown; expected 'auto', one of {sorted(_ENCODERS)}, or 'package.module:Class' "
        "naming a torch module class in a module that has been imported"
    )
