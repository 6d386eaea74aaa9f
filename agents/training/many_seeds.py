"""Several seeds of one agent trained as one batch: their tensors stacked, their updates made together.

The agent's own `update` runs once for all seeds under `torch.func.vmap`, so that every layer of every seed's network is
one batched product. What a vmapped function cannot do is done outside of it on the stacked tensors: gradients, the
optimisers' steps, and draws from every seed's own generator. Each agent's tensors become views of the stacks, so that
it acts, is evaluated and is saved as if it were alone.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from palaestra.agents.agent import Agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.optimizer import FlatAdam


class SeedBatch:
    """Agents that differ in their seed alone, updated together; each equals its single run up to rounding.

    Args:
        agents: Agents of one class with equal configurations, spaces and devices, at least one. Their parameters,
            targets, moments and other tensors move into common storage.
        method: Name of the method that makes one update of one agent on a batch.

    Raises:
        ValueError: If they differ in more than their seed.
        TypeError: If the agent has no such method, or something that it might use cannot be stacked.
    """

    def __init__(self, agents: Sequence[Agent], method: str = "update") -> None:
        _require_alike(agents)
        first = agents[0]
        if not hasattr(first, method) or not getattr(first, "capturable", True):
            raise TypeError(f"SeedBatch: {first.agent_id} makes no updates of fixed shape; expected an agent that does")
        self.agents = list(agents)
        self.draws: dict[Generator, list[Generator]] = {}
        self.optimizers: dict[str, StackedAdam] = {}
        self.plain: list[str] = []
        self.template = self._make_template()
        self.shell = _Shell(self.template, method, [name for name, _ in _loose(first)])
        self.stacks = self._stack()
        self.trained = [p for o in self.optimizers.values() for p in o.param_groups[0]["params"] if p.requires_grad]

    def update(self, batches: Sequence[Any]) -> list[Metrics]:
        """Make one update of every seed, each on its own batch; return the metrics of each.

        Args:
            batches: What the method takes, one for each agent: dataclasses or dicts of tensors, shaped alike.
        """
        kind = type(batches[0])
        trees = [batch if isinstance(batch, dict) else vars(batch) for batch in batches]
        metrics = self.update_stacked(kind, _stack_trees(trees))
        rows = {name: values.unbind() for name, values in metrics.items()}
        return [{name: values[index] for name, values in rows.items()} for index in range(len(self.agents))]

    def update_stacked(self, kind: Callable[..., Any], batch: dict[str, Any]) -> Metrics:
        """Make one update of every seed on batches that are stacked already.

        Args:
            kind: What makes a batch of one seed of its fields, given by keyword.
            batch: The fields `[seeds, batch, ...]`, nested dicts for Dict observations.

        Returns:
            The metrics, each `[seeds]`.
        """
        self._share_plain_values()

        def one(stacks: dict[str, Tensor], batch: dict[str, Any]) -> Metrics:
            metrics: Metrics = torch.func.functional_call(self.shell, stacks, (kind(**batch),))
            return metrics

        with _Outside(self.draws, self.trained):
            metrics: Metrics = torch.func.vmap(one)(self.stacks, batch)
        for name in self.plain:
            for agent in self.agents:
                setattr(agent, name, getattr(self.template, name))
        return metrics

    def _make_template(self) -> Any:
        """Return an agent without an env, a memory or a seed, whose attributes stand for those of all seeds."""
        first = self.agents[0]
        template = object.__new__(type(first))
        for name, value in vars(first).items():
            # A method that was replaced, such as `update` while seeds are trained together, is not what runs here.
            if not callable(getattr(type(first), name, None)):
                for stand_in in self._stand_ins(name, value, template):
                    setattr(template, name, stand_in)
        return template

    def _stand_ins(self, name: str, value: Any, template: Any) -> Iterator[Any]:
        """Yield what stands for an attribute of the agents in the template; nothing for every seed's own."""
        first = self.agents[0]
        if isinstance(value, FlatAdam):
            self.optimizers[name] = StackedAdam([getattr(agent, name) for agent in self.agents])
            yield self.optimizers[name]
        elif isinstance(value, Generator):
            stand_in = Generator(value.device)
            self.draws[stand_in] = [getattr(agent, name) for agent in self.agents]
            yield stand_in
        elif isinstance(value, nn.Module):
            recurrent = [part for part in value.modules() if isinstance(part, nn.RNNBase | nn.RNNCellBase)]
            if recurrent:
                raise TypeError(
                    f"SeedBatch: {type(recurrent[0]).__name__} in {name!r} has no rule under vmap; expected "
                    "feed-forward networks"
                )
            yield copy.deepcopy(value)
        elif inspect.ismethod(value) and value.__self__ is first:
            yield getattr(template, value.__name__)
        elif isinstance(value, Tensor) or value is None or name in Agent.unsaved - {"seed"}:
            yield value
        elif isinstance(value, bool | int | float | str | tuple) and name not in first.unsaved:
            self.plain.append(name)
            yield value
        elif isinstance(value, torch.optim.Optimizer) or callable(value):
            raise TypeError(
                f"SeedBatch: attribute {name!r} of {first.agent_id} is a {type(value).__name__}, which works on one "
                "seed at a time; expected an optimiser of `Agent.optimizer` or a method"
            )

    def _stack(self) -> dict[str, Tensor]:
        """Move what `update` works on into stacks `[seeds, ...]`, of which the agents keep views."""
        named = [dict(_named_tensors(agent)) for agent in self.agents]
        optimised: dict[int, Tensor] = {}
        for optimizer in self.optimizers.values():
            optimised |= optimizer.parameters
        stacks: dict[str, Tensor] = {}
        for path, first in named[0].items():
            if id(first) in optimised:
                stacks[path] = optimised[id(first)]
                continue
            rows = [tensors[path] for tensors in named]
            stack = torch.stack([row.detach() for row in rows])
            for row, view in zip(rows, stack.unbind(), strict=True):
                row.data = view
            stacks[path] = nn.Parameter(stack, first.requires_grad) if isinstance(first, nn.Parameter) else stack
        return stacks

    def _share_plain_values(self) -> None:
        for name in self.plain:
            values = [getattr(agent, name) for agent in self.agents]
            if any(value != values[0] for value in values):
                raise ValueError(f"SeedBatch: {name}={values}; expected all seeds to be equally far")
            setattr(self.template, name, values[0])


class StackedAdam:
    """The optimisers of several agents as one, which steps tensors `[seeds, size]` of which each agent owns a row.

    Args:
        optimizers: One for each agent, over parameters of the same shapes, equally many steps old.
    """

    def __init__(self, optimizers: Sequence[FlatAdam]) -> None:
        first, self.optimizers = optimizers[0], list(optimizers)
        self.flat = torch.stack([optimizer.flat for optimizer in optimizers])
        self.gradient = torch.stack([optimizer.gradient for optimizer in optimizers])
        self.steps = torch.stack([optimizer.steps for optimizer in optimizers])
        moments = [torch.stack(rows) for rows in zip(*(optimizer.moments for optimizer in optimizers), strict=True)]
        for index, optimizer in enumerate(optimizers):
            optimizer.flat, optimizer.gradient = self.flat[index], self.gradient[index]
            optimizer.moments, optimizer.steps = (moments[0][index], moments[1][index]), self.steps[index]
            owned = optimizer.param_groups[0]["params"]
            sizes = [parameter.numel() for parameter in owned]
            rows = zip(owned, optimizer.flat.split(sizes), optimizer.gradient.split(sizes), strict=True)
            for parameter, value, slope in rows:
                parameter.data, parameter.grad = value.view_as(parameter), slope.view_as(parameter)
        # Adam is elementwise, so that all seeds are one tensor to it; what it must know is the first agent's.
        self.whole = object.__new__(FlatAdam)
        shared = {"flat": self.flat, "gradient": self.gradient, "moments": (moments[0], moments[1])}
        vars(self.whole).update({**vars(first), **shared, "max_grad_norm": None})
        self.max_grad_norm = first.max_grad_norm
        originals = first.param_groups[0]["params"]
        sizes = [parameter.numel() for parameter in originals]
        self.parameters: dict[int, nn.Parameter] = {}
        """The stacked parameters, by the id of the first agent's own."""
        pieces = zip(originals, self.flat.split(sizes, 1), self.gradient.split(sizes, 1), strict=True)
        for original, value, slope in pieces:
            shape = (len(optimizers), *original.shape)
            parameter = nn.Parameter(value.view(shape), original.requires_grad)
            parameter.grad = slope.view(shape)
            self.parameters[id(original)] = parameter
        self.param_groups = [{"params": list(self.parameters.values())}]

    def zero_grad(self) -> None:
        """Zero the gradients of all seeds."""
        self.gradient.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Make a step of every seed; each clips its own gradient, if asked to."""
        if self.max_grad_norm is not None:
            norm = torch.linalg.vector_norm(self.gradient, dim=1, keepdim=True)
            self.gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self.whole.step()
        self.steps[1:] = self.steps[0]


class _Shell(nn.Module):
    """A template's update as the forward of a module, so that its tensors can be given from outside."""

    def __init__(self, template: Any, method: str, loose: Sequence[str]) -> None:
        super().__init__()
        self.template, self.method, self.loose = template, method, list(loose)
        for name, value in vars(template).items():
            if isinstance(value, nn.Module):
                self.add_module(name, value)
            elif isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, Tensor):
                self.register_buffer(name, value)

    def forward(self, batch: Any) -> Metrics:
        """Return the metrics of one update with the tensors that are in place now."""
        given = {name: getattr(self, name) for name in self.loose}
        for name, value in given.items():
            setattr(self.template, name, value)
        metrics: Metrics = getattr(self.template, self.method)(batch)
        for name, value in given.items():
            if getattr(self.template, name) is not value:
                raise TypeError(f"SeedBatch: update replaced the tensor {name}; expected it to be changed in place")
        return metrics


class _Call(torch.autograd.Function):
    """Calls a function with the stacked tensors behind batched ones, outside of `vmap`: its rule for doing nothing."""

    @staticmethod
    def forward(call: Callable[..., Any], *tensors: Tensor) -> Tensor:
        """Refuse: there is nothing to be outside of."""
        raise RuntimeError("SeedBatch: expected a tensor of several seeds")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: what is called has a derivative of its own, or none."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], call: Callable[..., Any], *tensors: Tensor) -> Any:
        """Call the function with the seeds as first axis; its tensor, if it returns one, has them there too."""
        stacked = [t if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, in_dims[1:], strict=True)]
        result = call(*stacked)
        return (torch.zeros(()), None) if result is None else (result, 0)


class _Outside(TorchFunctionMode):
    """Does outside of `vmap` what cannot be done inside: gradients, draws, and in-place steps over lists.

    Args:
        draws: The generators of the seeds, by the one that stands for them.
        trained: The stacked parameters of all optimisers, to which `backward` adds gradients.
    """

    def __init__(self, draws: Mapping[Generator, Sequence[Generator]], trained: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.draws, self.trained = draws, trained

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.grad:
            return self._gradients(*args, **kwargs)
        if func is Tensor.backward:
            self._add_gradients(*args, **kwargs)
            return None
        generators = self.draws.get(kwargs.get("generator"))  # type: ignore[arg-type]
        if generators is not None:
            return self._draw(func, generators, args, {**kwargs})
        if func is F.linear and args[0].dim() == 2 and len(args) == 3:
            return _Call.apply(_linear, *args)
        if func is torch._foreach_lerp_:
            followers, leaders, weight = args
            count = len(followers)
            _Call.apply(lambda *t: func(list(t[:count]), list(t[count:]), weight), *followers, *leaders)
            return None
        return func(*args, **kwargs)

    @staticmethod
    def _gradients(outputs: Any, inputs: Sequence[Tensor], **options: Any) -> tuple[Tensor, ...]:
        (loss,) = outputs if isinstance(outputs, tuple | list) else (outputs,)
        gradients: list[Tensor] = []
        # Seeds share no parameter: the gradient of the sum of their losses is that of each.
        _Call.apply(lambda losses: gradients.extend(torch.autograd.grad(losses.sum(), inputs, **options)), loss)
        return tuple(gradients)

    def _add_gradients(self, loss: Tensor, *, inputs: Sequence[Tensor] | None = None, **options: Any) -> None:
        parameters = self.trained if inputs is None else inputs
        kept = {name: value for name, value in options.items() if name in ("retain_graph", "create_graph")}
        for parameter, gradient in zip(
            parameters, self._gradients(loss, parameters, materialize_grads=True, **kept), strict=True
        ):
            assert parameter.grad is not None
            parameter.grad.add_(gradient)

    @staticmethod
    def _draw(
        func: Callable[..., Any], generators: Sequence[Generator], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        del kwargs["generator"]
        values, *others = args

        def fill(stacked: Tensor) -> None:
            for row, generator in zip(stacked.unbind(), generators, strict=True):
                func(row, *others, generator=generator, **kwargs)

        _Call.apply(fill, values)
        return values


def _linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the outputs `[seeds, batch, out]` of every seed's linear layer as one product; `vmap` takes four steps."""
    rows = features.expand(len(weight), -1, -1)
    if bias is None:
        return torch.bmm(rows, weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(1), rows, weight.transpose(1, 2))


def _require_alike(agents: Sequence[Agent]) -> None:
    if not agents:
        raise ValueError("SeedBatch: no agents; expected at least one")
    first = agents[0]
    for agent in agents[1:]:
        if type(agent) is not type(first):
            raise ValueError(f"SeedBatch: a {type(agent).__name__}; expected {type(first).__name__} as the first is")
        for what in ("config", "device", "observation_space", "action_space", "num_envs"):
            if getattr(agent, what) != getattr(first, what):
                raise ValueError(
                    f"SeedBatch: {what} {getattr(agent, what)} of seed {agent.seed}; expected {getattr(first, what)} "
                    "as the first has"
                )


def _loose(agent: Agent) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in vars(agent).items() if isinstance(value, Tensor))


def _named_tensors(agent: Agent) -> Iterator[tuple[str, Tensor]]:
    """Yield an agent's tensors by the names they have in a `_Shell`."""
    for name, value in vars(agent).items():
        if isinstance(value, nn.Module):
            for path, tensor in (*value.named_parameters(), *value.named_buffers()):
                yield f"{name}.{path}", tensor
    yield from _loose(agent)


def _stack_trees(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stacked: dict[str, Any] = {}
    for name, value in trees[0].items():
        values = [tree[name] for tree in trees]
        if isinstance(value, Mapping):
            stacked[name] = _stack_trees(values)
        elif value is not None:
            stacked[name] = torch.stack(values)
    return stacked
