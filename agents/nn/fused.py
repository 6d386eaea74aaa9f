"""A whole MLP as one differentiable operation, with its backward pass derived by hand.

Autograd visits one node for the network instead of two for every layer, which is most of the time of a small update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palaestra.agents.nn.networks import mlp

FUSED_ACTIVATIONS = {nn.Tanh: "tanh", nn.ReLU: "relu"}


def transformed() -> bool:
    """Return whether a transform of `torch.func` is at work: it knows torch's own operations, none derived by hand."""
    return torch._C._are_functorch_transforms_active()


class FusedMLP(nn.Sequential):
    """Linear layers with tanh or ReLU between them; equal to the plain `nn.Sequential` up to rounding.

    First derivatives alone are defined: the backward pass cannot be differentiated again.

    Args:
        layers: Linear layers and activations in turn, beginning and ending with a linear layer.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(*layers)
        kinds = {type(layer) for layer in layers[1::2]}
        if not all(isinstance(layer, nn.Linear) for layer in layers[::2]) or not kinds <= FUSED_ACTIVATIONS.keys():
            raise TypeError(f"FusedMLP: layers={layers}; expected linear layers with tanh or ReLU between them")
        self.relu = nn.ReLU in kinds

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of features `[batch, in]`."""
        if transformed():
            output: Tensor = super().forward(features)
            return output
        parameters = [tensor for layer in list(self)[::2] for tensor in (layer.weight, layer.bias)]
        if not torch.is_grad_enabled():
            return _propagate(features, self.relu, parameters)[1]
        return _MLP.apply(features, self.relu, *parameters)


def fused_mlp(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Return `palaestra.agents.nn.networks.mlp`, fused where its activation is tanh or ReLU."""
    layers = list(mlp(sizes, activation))
    return FusedMLP(layers) if activation in FUSED_ACTIVATIONS.values() else nn.Sequential(*layers)


def tanh_(values: Tensor) -> Tensor:
    """Return the hyperbolic tangent, computed in place."""
    if values.device.type != "cpu":
        return values.tanh_()
    # NumPy's vectorised kernel takes a tenth of the time of torch's on a CPU.
    array = values.numpy()
    np.tanh(array, out=array)
    return values


def tanh_backward_(gradient: Tensor, output: Tensor) -> Tensor:
    """Return gradient * (1 - output^2), computed in place of the gradient."""
    if gradient.device.type != "cpu":
        return gradient.mul_(1.0 - output.square())
    slope = np.square(output.numpy())
    np.subtract(1.0, slope, out=slope)
    array = gradient.numpy()
    np.multiply(array, slope, out=array)
    return gradient


def _propagate(features: Tensor, relu: bool, parameters: Sequence[Any]) -> tuple[list[Tensor], Tensor]:
    """Return the inputs of every layer, and the output."""
    hidden = [features]
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        linear = torch.addmm(bias, hidden[-1], weight.t())
        hidden.append(linear.relu_() if relu else tanh_(linear))
    return hidden, torch.addmm(parameters[-1], hidden[-1], parameters[-2].t())


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, relu: bool, *parameters: Tensor) -> Tensor:
        hidden, output = _propagate(features, relu, parameters)
        ctx.save_for_backward(*hidden, *parameters[::2])
        ctx.relu = relu
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        hidden, weights = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        gradients: list[Tensor | None] = []
        for layer in range(layers - 1, -1, -1):
            gradients += [gradient.sum(0), gradient.t() @ hidden[layer]]
            if layer > 0:
                gradient = gradient @ weights[layer]
                gradient = gradient * (hidden[layer] > 0) if ctx.relu else tanh_backward_(gradient, hidden[layer])
        features = gradient @ weights[0] if ctx.needs_input_grad[0] else None
        return (features, None, *reversed(gradients))
