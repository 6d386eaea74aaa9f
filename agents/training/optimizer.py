"""Adam over one flat tensor: a step costs one kernel instead of one for every parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from palaestra.agents.nn.layout import flatten_


class FlatAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) whose parameters, gradients and moments are views of flat tensors.

    The parameters keep their identity and shapes; their storage is moved into one tensor. Steps equal those of
    `torch.optim.Adam(fused=True)` bit for bit, for every parameter is updated elementwise.

    Args:
        parameters: Parameters of one type on one device.
        learning_rate: Step size, above 0.
        eps: Added to the root of the second moment.
        betas: Decay rates of the two moments.
        max_grad_norm: Largest norm of the gradient, or None for no clipping.
        weight_decay: Share of the parameters added to the (clipped) gradient, at least 0.
        decoupled: Whether that share, times the step size, is taken off the parameters instead (AdamW, Loshchilov and
            Hutter 2019).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        eps: float = 1e-8,
        betas: tuple[float, float] = (0.9, 0.999),
        max_grad_norm: float | None = None,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        owned = list(parameters)
        super().__init__(owned, {"lr": learning_rate})
        self.eps, self.betas, self.max_grad_norm = eps, betas, max_grad_norm
        self.weight_decay, self.decoupled = weight_decay, decoupled
        self.flat = flatten_(owned)
        self.gradient = torch.zeros_like(self.flat)
        self.moments = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps = torch.zeros((), dtype=torch.float32, device=self.flat.device)
        for parameter, piece in zip(owned, self.gradient.split([p.numel() for p in owned]), strict=True):
            parameter.grad = piece.view_as(parameter)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Zero the flat gradient; the parameters' gradients stay views of it."""
        self.gradient.zero_()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Clip the gradient, if asked to, and move the parameters."""
        if self.max_grad_norm is not None:
            norm = torch.linalg.vector_norm(self.gradient)
            self.gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        (torch._fused_adamw_ if self.decoupled else torch._fused_adam_)(
            [self.flat],
            [self.gradient],
            [self.moments[0]],
            [self.moments[1]],
            [],
            [self.steps.add_(1.0)],
            lr=self.param_groups[0]["lr"],
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def restart(self) -> None:
        """Forget the moments and the steps taken, as for parameters that were initialised anew."""
        for tensor in (*self.moments, self.steps):
            tensor.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the moments, the step count and the learning rate."""
        first, second = self.moments
        rate = self.param_groups[0]["lr"]
        return {"first_moment": first, "second_moment": second, "steps": self.steps, "learning_rate": rate}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        tensors: list[tuple[Tensor, str]] = [
            (self.moments[0], "first_moment"),
            (self.moments[1], "second_moment"),
            (self.steps, "steps"),
        ]
        for tensor, name in tensors:
            tensor.copy_(state_dict[name])
        self.param_groups[0]["lr"] = state_dict["learning_rate"]


# torch wraps `step` in a profiler record and hooks, which nobody uses and which cost as much as the step itself.
FlatAdam.step.hooked = True  # type: ignore[attr-defined]
