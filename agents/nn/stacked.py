"""Equal MLPs evaluated together: one matrix product a layer, one differentiable operation, its backward by hand.

Autograd visits one node for all of them, gradients of weights are computed only where they are trained, and straight
into the optimiser's buffer where it collects them. First derivatives alone are defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from palaestra.agents.nn.fused import FUSED_ACTIVATIONS, tanh_, tanh_backward_, transformed
from palaestra.agents.nn.layout import collects, parameters_of, stacked_view
from palaestra.agents.nn.networks import mlp

NARROW = 64
"""Products with fewer columns than this are computed transposed where that makes their rows longer."""


class StackedMLP(nn.ModuleList):
    """Independent MLPs of one shape; equal to evaluating them one by one, up to rounding.

    They are stacked without copying where their parameters lie in one flat tensor, as the suite's optimiser and
    `palaestra.agents.nn.critic.target_copy` place them. Activations other than tanh and ReLU are evaluated plainly.

    Args:
        count: Number of networks.
        sizes: Widths from input to output, at least two.
        activation: Name of the activation between layers.
    """

    def __init__(self, count: int, sizes: Sequence[int], activation: str = "relu") -> None:
        super().__init__(mlp(sizes, activation) for _ in range(count))
        self.stack = Stack(count, activation)

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `[count, batch, out]` of features `[batch, in]`, or one set each, `[count, batch, in]`."""
        if not self.stack.fused:
            own = features if features.dim() == 3 else [features] * len(self)
            return torch.stack([network(given) for network, given in zip(self, own, strict=True)])
        return self.stack(list(parameters_of(self)), features)

    def one(self, index: int, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of one network alone for features `[batch, in]`."""
        if not self.stack.fused:
            output: Tensor = self[index](features)
            return output
        return self.stack(list(parameters_of(self)), features, index)


class SingleMLP(nn.Sequential):
    """One MLP, evaluated as `StackedMLP` evaluates several.

    Args:
        sizes: Widths from input to output, at least two.
        activation: Name of the activation between layers.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu") -> None:
        super().__init__(*mlp(sizes, activation))
        self.stack = Stack(1, activation)

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of features `[batch, in]`."""
        if not self.stack.fused:
            output: Tensor = super().forward(features)
            return output
        return self.stack(list(parameters_of(self)), features, 0)


class Stack:
    """Evaluates networks whose parameters are weight and bias of every layer in turn, network after network.

    Args:
        count: Number of networks.
        activation: Name of the activation between layers.
    """

    def __init__(self, count: int, activation: str) -> None:
        self.count = count
        self.known = activation in FUSED_ACTIVATIONS.values()
        self.relu = activation == "relu"
        self._views: dict[str, tuple[tuple[int, ...], list[Tensor]]] = {}

    @property
    def fused(self) -> bool:
        """Whether networks are evaluated here, not layer by layer."""
        return self.known and not transformed()

    def __deepcopy__(self, memo: dict[int, Any]) -> Stack:
        """Return a stack for a copy of the networks, whose parameters lie elsewhere."""
        copied = object.__new__(Stack)
        copied.__dict__ = {**self.__dict__, "_views": {}}
        return copied

    def __call__(self, parameters: list[nn.Parameter], features: Tensor, index: int | None = None) -> Tensor:
        """Return outputs of all networks `[count, batch, out]`, or of one of them `[batch, out]`."""
        stacks = self.views("parameters", parameters) or _copies(parameters, self.count)
        if index is not None and self.count > 1:
            stacks = [stack[index : index + 1] for stack in stacks]
        if not torch.is_grad_enabled():
            output = _layers(features, self.relu, stacks)[-1]
            return output if index is None else output[0]
        result: Tensor = _StackedMLP.apply(features, self, stacks, index, *parameters)
        return result

    @torch.no_grad()
    def layers(self, parameters: list[nn.Parameter], features: Tensor) -> list[Tensor]:
        """Return the features and the output of every layer, `[count, batch, width]`; nothing is differentiated."""
        return _layers(features, self.relu, self.views("parameters", parameters) or _copies(parameters, self.count))

    @torch.no_grad()
    def descend(self, parameters: list[nn.Parameter], layers: Sequence[Tensor], gradient: Tensor) -> None:
        """Write the gradients of all parameters over those that they have, which must lie as the optimiser lays them.

        Args:
            parameters: As the layers were computed from.
            layers: What `layers` returned.
            gradient: Derivatives of a loss by the outputs `[count, batch, out]`.

        Raises:
            RuntimeError: If the parameters have no gradients that can be written to as one.
        """
        weights = self.views("parameters", parameters) or _copies(parameters, self.count)
        present = [parameter.grad for parameter in parameters if parameter.grad is not None]
        written = self.views("gradients", present) if len(present) == len(parameters) else None
        if written is None:
            raise RuntimeError("Stack.descend: parameters without gradients; expected those that an optimiser lays out")
        for level in range(len(weights) // 2 - 1, -1, -1):
            below = layers[level] if layers[level].dim() == 3 else layers[level].expand(len(gradient), -1, -1)
            torch.sum(gradient, 1, keepdim=True, out=written[2 * level + 1])
            _write_product(written[2 * level], gradient.transpose(1, 2), below)
            if level > 0:
                gradient = self.below(gradient, weights[2 * level], below)

    def below(self, gradient: Tensor, weight: Tensor, output: Tensor) -> Tensor:
        """Return the derivatives by the inputs of the activation whose output a layer of the given weight reads."""
        gradient = torch.bmm(gradient, weight)
        if self.relu:
            torch.ops.aten.threshold_backward.grad_input(gradient, output, 0.0, grad_input=gradient)
        else:
            tanh_backward_(gradient, output)
        return gradient

    def views(self, kind: str, tensors: Sequence[Tensor]) -> list[Tensor] | None:
        """Return weights `[count, out, in]` and biases `[count, 1, out]` of every layer in turn, sharing memory.

        None where the tensors do not lie so that they can be shared. Views are kept while the tensors stay in place.
        """
        places = tuple(tensor.data_ptr() for tensor in tensors)
        if kind in self._views and self._views[kind][0] == places:
            return self._views[kind][1]
        shared = [stacked_view(group) for group in _groups(tensors, self.count)]
        views = [_with_rows(view) for view in shared if view is not None]
        if len(views) < len(shared):
            return None
        self._views[kind] = places, views
        return views

    def collecting(self, parameters: Sequence[nn.Parameter]) -> list[Tensor] | None:
        """Return views of the gradients, as of the parameters, if they are being collected in place."""
        gradients = [parameter.grad for parameter in parameters]
        present = [gradient for gradient in gradients if gradient is not None]
        if len(present) < len(gradients) or not collects(present[0]) or not collects(present[-1]):
            return None
        return self.views("gradients", present)


def _groups(tensors: Sequence[Tensor], count: int) -> list[Sequence[Tensor]]:
    per_network = len(tensors) // count
    return [tensors[start::per_network] for start in range(per_network)]


def _copies(parameters: Sequence[Tensor], count: int) -> list[Tensor]:
    return [_with_rows(torch.stack([p.detach() for p in group])) for group in _groups(parameters, count)]


def _with_rows(stack: Tensor) -> Tensor:
    """Return weights as they are and biases `[count, out]` as `[count, 1, out]`."""
    return stack if stack.dim() == 3 else stack.unsqueeze(1)


class _StackedMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, stack: Stack, stacks: list[Tensor], index: int | None, *parameters: nn.Parameter
    ) -> Tensor:
        hidden = _layers(features, stack.relu, stacks)
        ctx.save_for_backward(*hidden[:-1])
        ctx.stack, ctx.weights, ctx.index, ctx.parameters = stack, stacks[::2], index, parameters
        return hidden[-1] if index is None else hidden[-1][0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        stack, index, parameters, needed = ctx.stack, ctx.index, ctx.parameters, ctx.needs_input_grad
        hidden, weights = ctx.saved_tensors, ctx.weights
        gradient = gradient if index is None else gradient.unsqueeze(0)
        trained = any(needed[4:])
        collected = stack.collecting(parameters) if trained else None
        if collected is not None and index is not None and stack.count > 1:
            collected = [view[index : index + 1] for view in collected]
        found: list[Tensor] = []
        for level in range(len(weights) - 1, -1, -1):
            below = hidden[level] if hidden[level].dim() == 3 else hidden[level].expand(len(gradient), -1, -1)
            if trained and collected is not None:
                collected[2 * level + 1].add_(gradient.sum(1, keepdim=True))
                _add_product(collected[2 * level], gradient.transpose(1, 2), below)
            elif trained:
                found += [gradient.sum(1), product(gradient.transpose(1, 2), below)]
            if level > 0:
                gradient = stack.below(gradient, weights[level], below)
        features = None
        if needed[0]:
            features = product(gradient, weights[0])
            features = features if hidden[0].dim() == 3 else features.sum(0)
        received: list[Tensor | None] = [None] * len(parameters)
        if found:
            found.reverse()
            first = 0 if index is None else index * len(found)
            for member in range(len(gradient)):
                start = first + member * len(found)
                received[start : start + len(found)] = [layer[member] for layer in found]
        return (features, None, None, None, *received)


def _layers(features: Tensor, relu: bool, stacks: list[Tensor]) -> list[Tensor]:
    """Return the features and the output of every layer, `[count, batch, width]` each."""
    count, levels = len(stacks[0]), len(stacks) // 2
    hidden = [features]
    for level in range(levels):
        weight, bias = stacks[2 * level], stacks[2 * level + 1]
        below = hidden[-1] if hidden[-1].dim() == 3 else hidden[-1].expand(count, -1, -1)
        if level < levels - 1:
            linear = torch.baddbmm(bias, below, weight.transpose(1, 2))
            hidden.append(linear.relu_() if relu else tanh_(linear))
        else:
            hidden.append(product(below, weight.transpose(1, 2)).add_(bias).contiguous())
    return hidden


def _transposes(left: Tensor, right: Tensor) -> bool:
    """Return whether the product has many rows of few columns.

    Matrix libraries write long rows faster: 256 rows of 23 columns take twice the time of 23 rows of 256.
    """
    return right.shape[2] < min(NARROW, left.shape[1])


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right, transposed in memory where that makes its rows long."""
    if _transposes(left, right):
        return torch.bmm(right.transpose(1, 2), left.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(left, right)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to the total."""
    if _transposes(left, right):
        total.add_(product(left, right))
    else:
        total.baddbmm_(left, right)


def _write_product(target: Tensor, left: Tensor, right: Tensor) -> None:
    """Write left @ right over the target."""
    if _transposes(left, right):
        target.copy_(product(left, right))
    else:
        torch.bmm(left, right, out=target)
