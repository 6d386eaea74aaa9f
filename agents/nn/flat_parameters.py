"""Parameters as one vector: gradients, products with second derivatives, and the equations solved with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from palaestra.agents.nn.fused import FusedMLP

Parameters = Sequence[nn.Parameter]
LinearMap = Callable[[Tensor], Tensor]


def twice_differentiable_(module: nn.Module) -> None:
    """Replace the fused trunks of a module, whose backward pass has no derivative, by plain layers in their place."""
    for name, child in module.named_children():
        if isinstance(child, FusedMLP):
            setattr(module, name, nn.Sequential(*child))
        else:
            twice_differentiable_(child)


def flat_values(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return a copy of parameters as one vector `[n]`."""
    return torch.cat([p.detach().reshape(-1) for p in parameters])


@torch.no_grad()
def set_flat_(parameters: Parameters, values: Tensor) -> None:
    """Write a vector `[n]` into parameters, in order.

    Raises:
        ValueError: If the vector has another number of entries than the parameters.
    """
    sizes = [p.numel() for p in parameters]
    if values.shape != (sum(sizes),):
        raise ValueError(f"set_flat_: values of shape {tuple(values.shape)}; expected ({sum(sizes)},)")
    for parameter, piece in zip(parameters, values.split(sizes), strict=True):
        parameter.copy_(piece.view_as(parameter))


def flat_gradient(
    output: Tensor, parameters: Parameters, *, create_graph: bool = False, retain_graph: bool = False
) -> Tensor:
    """Return the gradient `[n]` of a scalar; 0 in the parameters that it does not depend on.

    Args:
        output: A scalar with a graph.
        parameters: What to differentiate by.
        create_graph: Whether the gradient itself can be differentiated.
        retain_graph: Whether the output can be differentiated again.
    """
    retain = create_graph or retain_graph
    gradients = torch.autograd.grad(
        output, parameters, create_graph=create_graph, retain_graph=retain, materialize_grads=True
    )
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def row_gradients(outputs: Tensor, parameters: Parameters) -> Tensor:
    """Return the gradient of every output `[rows, n]`, such as the scores of log-probabilities.

    Args:
        outputs: `[rows]`, of a graph of plain operations (see `twice_differentiable_`).
        parameters: What to differentiate by.
    """
    rows = torch.eye(len(outputs), dtype=outputs.dtype, device=outputs.device)
    gradients = torch.autograd.grad(outputs, parameters, rows, is_grads_batched=True, materialize_grads=True)
    return torch.cat([gradient.flatten(1) for gradient in gradients], -1)


def hessian_vector_product(gradient: Tensor, parameters: Parameters, vector: Tensor) -> Tensor:
    """Return H v `[n]` (Pearlmutter 1994); the graph stays for further products.

    With the gradient of a mean KL(old || new) at new = old, H is the Fisher matrix of the policy.

    Args:
        gradient: `flat_gradient(..., create_graph=True)` `[n]`.
        parameters: What it was taken by.
        vector: `[n]`.
    """
    product = gradient @ vector
    if not product.requires_grad:  # A function that is linear in the parameters.
        return torch.zeros_like(vector)
    return flat_gradient(product, parameters, retain_graph=True)


def directional_derivative(outputs: Tensor, parameters: Parameters, vector: Tensor) -> Tensor:
    """Return the derivative `[rows]` of every output along a vector; the graph of the outputs stays.

    Reverse mode twice: the gradient of weights' outputs is linear in the weights, and its derivative by them is sought.

    Args:
        outputs: `[rows]`, of a graph that can be differentiated twice.
        parameters: What to differentiate by.
        vector: `[n]`.
    """
    weights = torch.zeros_like(outputs, requires_grad=True)
    gradient = flat_gradient(outputs @ weights, parameters, create_graph=True)
    return torch.autograd.grad(gradient @ vector, weights, retain_graph=True)[0]


def fisher_vector_product(log_probs: Tensor, parameters: Parameters, vector: Tensor) -> Tensor:
    """Return F v `[n]` with the empirical Fisher matrix F = mean of s s^T over rows, s the gradient of a log_prob.

    Args:
        log_probs: log pi(a|s) `[rows]`, of a graph that can be differentiated twice.
        parameters: What to differentiate by.
        vector: `[n]`.
    """
    along = directional_derivative(log_probs, parameters, vector)
    return flat_gradient(log_probs @ along / len(log_probs), parameters, retain_graph=True)


def conjugate_gradient(product: LinearMap, target: Tensor, iterations: int, tolerance: float = 1e-10) -> Tensor:
    """Return x with A x = target approximately, for symmetric positive definite A (Hestenes and Stiefel 1952).

    Args:
        product: The map x -> A x.
        target: `[n]`.
        iterations: Most products taken; n suffice in exact arithmetic.
        tolerance: Squared norm of the residual at which to stop.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    squared = residual @ residual
    for _ in range(iterations):
        if float(squared) < tolerance:
            break
        image = product(direction)
        length = squared / (direction @ image)
        solution += length * direction
        residual -= length * image
        previous, squared = squared, residual @ residual
        direction = residual + (squared / previous) * direction
    return solution
