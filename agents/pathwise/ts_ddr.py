"""TS-DDR: a network proposes what to keep, a linear programme comes as near as it can, its duals train the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from palaestra.agents.agent import EnvLike
from palaestra.agents.nn.networks import ACTIVATIONS, Observation
from palaestra.agents.pathwise.path_noise import PathNoise
from palaestra.agents.pathwise.simulated import SimulatedAgent, require_plain_observations
from palaestra.agents.pathwise.target_policies import LinearRule, PerceptronTargets, RecurrentTargets
from palaestra.agents.pathwise.target_programme import TargetProgramme, optimum
from palaestra.agents.registry import register_agent
from palaestra.agents.training.config import AgentConfig
from palaestra.protocols import Staged


@dataclass(frozen=True)
class TSDDRConfig(AgentConfig):
    """Settings of TS-DDR."""

    gamma: float = 1.0
    """1: the cost of whole paths is trained on, without discount."""
    learning_rate: float = 1e-3
    """Step size of Adam, above 0."""
    policy: Literal["mlp", "lstm", "linear"] = "mlp"
    """A perceptron, one that also reads an LSTM's memory of the path, or linear decision rules."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers; the LSTM is as wide as the first."""
    activation: str = "relu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    num_paths: int = 32
    """Simulated paths of an update."""
    window: int = 0
    """Stages of one linear programme: 0 for all (the deterministic equivalent), 1 for stage-wise training."""
    penalty_schedule: tuple[float, ...] = (0.1, 1.0, 10.0, 30.0)
    """What a unit of missed target costs, in multiples of the most that a unit can save, in equal parts of training."""
    max_grad_norm: float | None = None
    """Largest norm of the gradient of an update, or None."""
    learning_rate_schedule: Literal["constant", "linear"] = "linear"
    """Keep the learning rate, or anneal it linearly to 0 over the training."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of simulation and policy in training; programmes are solved in double precision."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("gamma", self.gamma == 1.0, "1: programmes add up the cost of their stages")
        self.require("hidden", all(width >= 1 for width in self.hidden), "positive widths")
        self.require("hidden", bool(self.hidden) or self.policy != "lstm", "at least one width for an lstm")
        self.require("activation", self.activation in ACTIVATIONS, f"one of {', '.join(sorted(ACTIVATIONS))}")
        self.require("num_paths", self.num_paths >= 1, "an integer of at least 1")
        self.require("window", self.window >= 0, "an integer of at least 0")
        above = bool(self.penalty_schedule) and all(penalty > 0.0 for penalty in self.penalty_schedule)
        self.require("penalty_schedule", above, "one or more numbers above 0")
        self.require("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0.0, "None or above 0")
        require_plain_observations(self)


@register_agent("ts-ddr")
class TSDDR(SimulatedAgent):
    """TS-DDR (Rosemberg et al. 2024), two-stage deep decision rules trained by Lagrangian duality.

    On a path of arrivals w_1, ..., w_T the policy proposes targets `x^_t = pi(w_t, x^_{t-1})`, and the programme

        Q(x^; w) = min sum_t c(y_t) + C |x^_t - x_t|   over decisions y and amounts x that the world allows

    keeps as near to them as pays. Its derivative in the targets is the dual of `x_t + d_t = x^_t`, so that with duals
    lambda the mean of `sum_t lambda_t dx^_t / dtheta` over paths is the gradient of the policy's cost: no reward is
    learnt, nothing is differentiated through a solver, and no decision is ever infeasible.

    `window` says how many stages one programme spans. All of them: the deterministic equivalent, where targets follow
    from earlier targets. One: stage-wise, where they follow from amounts that were really kept, whose derivatives come
    from the programme's equations. In between, windows of stages, each from the amounts that the one before kept.

    It needs a world whose stages are linear programmes (`palaestra.protocols.Staged`) and never steps the env itself;
    an env step is one stage of one path. The reported `train/reward`, and `train/gap` to the world's oracle, are of the
    same paths with the world's own projection of targets, realised amounts fed back.

    Unlike the authors' own code: the LSTM reads whole observations, what is held included, not inflows alone, and the
    learning rate is annealed. Stages with whole numbers, for which they mix in a score function, are not covered.
    """

    config: TSDDRConfig
    config_class = TSDDRConfig
    simulator_use = "with stages to solve; expected a world such as palaestra/Hydro1R-v0"
    unsaved = SimulatedAgent.unsaved | {"programmes", "capacity"}

    def build(self) -> None:
        """Create the policy and its optimiser."""
        c, space = self.config, self.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise TypeError(f"ts-ddr: observation space {space} does not fit; expected a flat Box")
        inputs, outputs = space.shape[0], self.action_map.dim
        policy: nn.Module
        match c.policy:
            case "linear":
                policy = LinearRule(inputs, outputs)
            case "lstm":
                policy = RecurrentTargets(inputs, outputs, c.hidden, c.activation)
            case _:
                policy = PerceptronTargets(inputs, outputs, c.hidden, c.activation)
        self.policy = policy.to(device=self.device, dtype=self.dtype)
        self.policy_optimizer = self.optimizer(self.policy, max_grad_norm=c.max_grad_norm)
        self._read_world()

    def _read_world(self) -> None:
        self.programmes: dict[int, TargetProgramme] = {}
        self.capacity: Tensor | None = None
        if not hasattr(self, "collector"):
            return
        simulator = self.simulator
        if not isinstance(simulator, Staged):
            raise TypeError(
                f"ts-ddr: the stages of {type(simulator).__name__} are no linear programmes; expected a world such as "
                "palaestra/Hydro1R-v0"
            )
        self.capacity = torch.tensor(simulator.stage_programme.capacity, dtype=self.dtype, device=self.device)

    @property
    def world(self) -> Any:
        """The simulator of the env, whose stages are linear programmes."""
        return self.simulator

    def set_env(self, env: EnvLike, env_kwargs: Mapping[str, Any] | None = None, backend: str = "auto") -> None:
        """Train on another env with the same spaces from the next `learn` on.

        Raises:
            TypeError: If its stages are no linear programmes.
        """
        super().set_env(env, env_kwargs, backend)
        self._read_world()

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return actions `[batch, action_dim]` between -1 and 1 at the start of a path."""
        assert isinstance(observation, Tensor)
        return 2.0 * self.policy(observation.to(self.dtype), None)[0] - 1.0

    def _predict(
        self,
        observation: Observation,
        state: Any,
        starts: np.ndarray | None,
        masks: np.ndarray | None,
        noise: Generator | None,
    ) -> tuple[Tensor, Any]:
        assert isinstance(observation, Tensor)
        if state is not None and starts is not None:
            going_on = torch.as_tensor(~starts, device=self.device)[:, None]
            state = tuple(part * going_on for part in state)
        share, memory = self.policy(observation.to(self.dtype), state)
        return 2.0 * share - 1.0, memory

    @property
    def penalty(self) -> float:
        """What a unit of missed target costs now, in multiples of the most that a unit can save."""
        schedule = self.config.penalty_schedule
        return schedule[min(int((1.0 - self.remaining) * len(schedule)), len(schedule) - 1)]

    def training_step(self) -> None:
        """Draw a batch of paths, solve their programmes, and take one step along the gradient from the duals."""
        c = self.config
        with self.profiler.phase("env"):
            states, reward = self.simulate(self.path_generator, c.num_paths)
        with self.profiler.phase("update"):
            value, penalty = self.value(states)
            loss = value.mean()
            self.policy_optimizer.zero_grad()
            loss.backward()
            if c.learning_rate_schedule == "linear":
                self.policy_optimizer.param_groups[0]["lr"] = c.learning_rate * self.remaining
            self.policy_optimizer.step()
        self.num_timesteps += c.num_paths * len(states)
        self.num_updates += 1
        self.metrics.add(self._metrics(loss.detach(), penalty.mean(), reward.mean()), self.num_updates)

    @torch.no_grad()
    def simulate(self, generator: Generator, paths: int) -> tuple[list[Any], Tensor]:
        """Return the states at the start of every stage, and returns `[paths]`, of the policy in the world itself.

        Args:
            generator: Source of the noise.
            paths: Number of paths.
        """
        world, memory = self.world, None
        state = world.initial(PathNoise(generator, paths, self.dtype))
        states, total = [], torch.zeros(paths, dtype=self.dtype, device=self.device)
        for _ in range(world.horizon):
            states.append(state)
            share, memory = self.policy(world.observe(state), memory)
            transition = world.step(state, share.clamp(0.0, 1.0), PathNoise(generator, paths, self.dtype))
            state, total = transition.state, total + transition.reward
        return states, total

    def value(self, states: list[Any]) -> tuple[Tensor, Tensor]:
        """Return cost and penalty together, and the penalty alone, `[paths]`; the former with its gradient.

        Of the states, only what arrives counts, and what is held in the first.

        Args:
            states: States at the start of every stage of a batch of paths.
        """
        world, memory, capacity = self.world, None, self.capacity
        assert capacity is not None
        held = world.held(states[0])
        value = penalty = torch.zeros(len(held), dtype=self.dtype, device=self.device)
        window = self.config.window or len(states)
        for start in range(0, len(states), window):
            stages, target, targets = states[start : start + window], held, []
            for state in stages:
                share, memory = self.policy(world.observe(world.with_held(state, target)), memory)
                target = share * capacity
                targets.append(target)
            arriving = torch.stack([world.arriving(state) for state in stages], 1)
            programme = self._programme(len(stages))
            paid, held, missed = optimum(programme, held, arriving, torch.stack(targets, 1), self.penalty)
            value, penalty = value + paid, penalty + missed
        return value, penalty

    def _programme(self, stages: int) -> TargetProgramme:
        if stages not in self.programmes:
            self.programmes[stages] = TargetProgramme(self.world.stage_programme, stages)
        return self.programmes[stages]

    def _metrics(self, loss: Tensor, penalty: Tensor, reward: Tensor) -> dict[str, Tensor]:
        share = penalty / loss.abs().clamp_min(1e-9)
        metrics = {"train/loss": loss, "train/penalty_share": share, "train/reward": reward}
        oracle = self.simulator.oracle()
        if oracle is not None and oracle.estimand.kind == "episode_return" and oracle.value:
            metrics["train/gap"] = (oracle.value - reward) / abs(oracle.value)
        return metrics
