"""Perceptrons of ELUs as one differentiable operation: paths ask their policy once a period, for small batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from palaestra.agents.nn.fused import transformed
from palaestra.agents.nn.networks import mlp

_LARGE = 1 << 15
"""Values from which NumPy's exponential pays for the passes around it."""


class EluPerceptron(nn.Sequential):
    """Linear layers with ELUs between them; equal to the plain `nn.Sequential` up to rounding.

    First derivatives alone are defined: the backward pass cannot be differentiated again.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of features `[batch, in]`."""
        if transformed() or features.ndim != 2:
            output: Tensor = super().forward(features)
            return output
        parameters = [tensor for layer in list(self)[::2] for tensor in (layer.weight, layer.bias)]
        if not torch.is_grad_enabled():
            return _propagate(features, parameters)[1]
        return _EluMLP.apply(features, *parameters)


def perceptron(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Return `palaestra.agents.nn.networks.mlp`, as one operation where its activation is ELU."""
    layers = mlp(sizes, activation)
    return EluPerceptron(*layers) if activation == "elu" else layers


def _elu_(values: Tensor) -> Tensor:
    """Return the ELU, which may take the place of its argument."""
    if values.device.type != "cpu" or values.numel() < _LARGE or torch.get_num_threads() > 1:
        return functional.elu_(values)
    # torch's own takes half as long again on one core.
    below = values.clamp_max(0.0)
    array = below.numpy()
    np.exp(array, out=array)
    return torch.maximum(values, below.sub_(1.0), out=below)


def _propagate(features: Tensor, parameters: Sequence[Any]) -> tuple[list[Tensor], Tensor]:
    """Return the inputs of every layer, and the output."""
    hidden = [features]
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        hidden.append(_elu_(torch.addmm(bias, hidden[-1], weight.t())))
    return hidden, torch.addmm(parameters[-1], hidden[-1], parameters[-2].t())


class _EluMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, *parameters: Tensor) -> Tensor:
        hidden, output = _propagate(features, parameters)
        ctx.save_for_backward(*hidden, *parameters[::2])
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        hidden, weights = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        gradients: list[Tensor | None] = []
        gradient = gradient.contiguous()
        for layer in range(layers - 1, -1, -1):
            gradients += [gradient.sum(0), _across(gradient, hidden[layer])]
            if layer > 0:
                # The slope of an ELU is 1 above 0, and 1 more than its value below.
                gradient = torch.ops.aten.elu_backward(gradient @ weights[layer], 1.0, 1.0, 1.0, True, hidden[layer])
        features = (weights[0].t() @ gradient.t()).t() if ctx.needs_input_grad[0] else None
        return (features, *reversed(gradients))


def _across(gradient: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient of a weight: the sum over rows of the products, with the narrow side first, as is fastest."""
    if gradient.shape[1] <= inputs.shape[1]:
        return gradient.t() @ inputs
    return (inputs.t() @ gradient).t()
