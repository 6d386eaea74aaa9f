"""Hindsight differentiable policy optimisation: the gradient of simulated cost, straight through the simulator."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from palaestra.agents.nn.networks import ACTIVATIONS, Observation
from palaestra.agents.pathwise.network_agent import NetworkAgent
from palaestra.agents.pathwise.newsvendor_policies import QuantileNewsvendor
from palaestra.agents.pathwise.paths import Paths, require_gradient, simulate
from palaestra.agents.pathwise.policy_choice import Policy, make_policy
from palaestra.agents.pathwise.simulated import require_plain_observations
from palaestra.agents.registry import register_agent
from palaestra.agents.training.config import AgentConfig
from palaestra.agents.training.seeding import make_generator

PROBE_PATHS = 8
"""Paths by which a world is asked whether its rewards have a gradient."""


@dataclass(frozen=True)
class HDPOConfig(AgentConfig):
    """Settings of HDPO."""

    gamma: float = 1.0
    """Discount per period of the simulated cost, in [0, 1]; 1 is the paper's plain mean."""
    learning_rate: float = 3e-3
    """Step size of Adam, above 0; for the levels of base-stock policies in units, where .5 is right."""
    policy: Policy = "mlp"
    """The policy; all but mlp need a supply network, those of newsvendors and quantiles a store that shows its past."""
    output: Literal["shares", "quantities"] = "shares"
    """What mlp and symmetric put out: shares of the stock on hand, or wanted quantities that are then rationed."""
    hidden: tuple[int, ...] = (32, 32, 32)
    """Widths of the hidden layers of mlp and gnn."""
    activation: str = "elu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    num_paths: int = 256
    """Simulated paths of an update."""
    periods: int = 50
    """Periods that each path is simulated and differentiated over."""
    warm_up: int = 30
    """Periods at the start that reported rewards leave out; training counts all of them."""
    train_paths: int = 0
    """Size of a fixed set of paths to train on, in batches of `num_paths`; 0 draws fresh ones for every update."""
    dev_paths: int = 0
    """Paths, twice as long and drawn once for all, on which the policy is tried every `dev_every` updates; the best one
    is what acts. 0: the latest acts."""
    dev_every: int = 10
    """Updates between two trials on them."""
    chunk_paths: int = 8192
    """Paths simulated and differentiated at a time; the gradient of an update is the sum over its chunks."""
    max_grad_norm: float | None = 1.0
    """Largest norm of the gradient of an update, or None."""
    learning_rate_schedule: Literal["constant", "linear"] = "linear"
    """Keep the learning rate, or anneal it linearly to 0 over the training."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of simulation and policy in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("hidden", all(width >= 1 for width in self.hidden), "positive widths")
        self.require("hidden", bool(self.hidden) or self.policy != "gnn", "at least one width for a gnn")
        self.require("activation", self.activation in ACTIVATIONS, f"one of {', '.join(sorted(ACTIVATIONS))}")
        self.require("num_paths", self.num_paths >= 1, "an integer of at least 1")
        self.require("periods", self.periods >= 1, "an integer of at least 1")
        self.require("warm_up", 0 <= self.warm_up < self.periods, "an integer from 0 to periods - 1")
        whole = self.train_paths >= 0 and self.train_paths % min(self.num_paths, max(self.train_paths, 1)) == 0
        self.require("train_paths", whole, "0, at most num_paths, or a multiple of it")
        self.require("dev_paths", self.dev_paths >= 0, "an integer of at least 0")
        self.require("dev_every", self.dev_every >= 1, "an integer of at least 1")
        self.require("chunk_paths", self.chunk_paths >= 1, "an integer of at least 1")
        self.require("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0.0, "None or above 0")
        require_plain_observations(self)


@register_agent("hdpo")
class HDPO(NetworkAgent):
    """HDPO (Alvo, Russo and Kanoria 2023): noise is drawn, a policy replayed on it, and the cost differentiated.

    With noise xi that does not react to actions, `s' = f(s, pi(s), xi)` and rewards r, each update draws B paths of T
    periods and takes a step of Adam along the gradient of

        J = 1 / (B T) sum_b sum_t r(s_t, pi(s_t), xi_t)

    which is back-propagated through all T periods. All periods count in it; the reported `train/late_reward`, and
    `train/late_gap` to the world's oracle, leave out the first `warm_up`. An env step is one period of one path.

    It trains through the simulator of the env and never steps the env itself, so it needs a world of this suite's
    protocol whose rewards have a gradient in the actions, and that does not terminate. Policies of supply networks know
    the network (levels start from its demand and lead times) and nothing else of the world.

    Unlike the paper's own code: inputs and outputs are in periods of mean demand, not in units; batches are smaller,
    gradients are clipped for all policies and the learning rate is annealed; paths are fresh in every update unless
    `train_paths` asks for a fixed set, whose batches are visited in a new order each time round; and the latest policy
    acts unless `dev_paths` are there to choose the best by.
    """

    config: HDPOConfig
    config_class = HDPOConfig
    simulator_use = "to differentiate; expected a world such as those of palaestra.envs.inventory"
    unsaved = NetworkAgent.unsaved | {"to_world"}
    made_for_network = ("policy", "policy_optimizer", "best_policy", "best_reward", "batch_order", "to_world")

    def _build(self, num_envs: int) -> None:
        super()._build(num_envs)
        if hasattr(self, "collector"):
            self._check_gradient()

    def build(self) -> None:
        """Create the policy and its optimiser."""
        c, space, scale = self.config, self.action_space, self.action_map
        assert isinstance(space, spaces.Box)
        (seen,) = self.observation_space.shape or (1,)
        policy = make_policy(c.policy, self.network, (seen, scale.dim), c.hidden, c.activation, c.output)
        # Parameters that start from the network's numbers are float64 until here.
        self.policy = policy.to(device=self.device, dtype=self.dtype)
        self.policy_optimizer = self.optimizer(self.policy, max_grad_norm=c.max_grad_norm)
        self.best_policy = copy.deepcopy(self.policy) if c.dev_paths else None
        self.batch_order: list[int] = []
        self.best_reward: float | None = None
        self.to_world = tuple(
            torch.as_tensor(numbers.reshape(-1), dtype=self.dtype, device=self.device)
            for numbers in (scale.centre, scale.half_range)
        )

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return actions `[batch, action_dim]` between -1 and 1; the policy is deterministic."""
        assert isinstance(observation, Tensor)
        policy = self.policy if self.best_policy is None else self.best_policy
        return policy(observation.to(self.dtype))

    def training_step(self) -> None:
        """Simulate a batch of paths, and take one step along the gradient of their mean reward."""
        c = self.config
        batch, paths = self._next_batch(), min(c.num_paths, c.train_paths or c.num_paths)
        self.policy_optimizer.zero_grad()
        loss = late = torch.zeros((), dtype=self.dtype, device=self.device)
        for first in range(0, paths, c.chunk_paths):
            size = min(c.chunk_paths, paths - first)
            with self.profiler.phase("env"):
                played = self.play(batch, size, c.periods)
            with self.profiler.phase("update"):
                part = -self.mean_reward(played.rewards)
                if isinstance(self.policy, QuantileNewsvendor):
                    part = part + self.policy.forecast_loss(played.observations)
                part = (size / paths) * part
                part.backward()
                loss = loss + part.detach()
                late = late + (size / paths) * played.rewards.detach()[c.warm_up :].mean()
        with self.profiler.phase("update"):
            if c.learning_rate_schedule == "linear":
                self.policy_optimizer.param_groups[0]["lr"] = c.learning_rate * self.remaining
            self.policy_optimizer.step()
        self.num_timesteps += paths * c.periods
        self.num_updates += 1
        if c.dev_paths and (self.best_reward is None or (self.num_updates - 1) % c.dev_every == 0):
            self._keep_best()
        self.metrics.add(self._metrics(loss, late), self.num_updates)

    def simulate(self, generator: Generator, paths: int, periods: int) -> Tensor:
        """Return the rewards `[periods, paths]` of the policy on fresh noise, with their gradient in its parameters.

        Args:
            generator: Source of the noise.
            paths: Number of paths.
            periods: Periods of each.

        Raises:
            ValueError: If a path terminates.
        """
        return self.play(generator, paths, periods).rewards

    def play(self, generator: Generator, paths: int, periods: int) -> Paths:
        """Return paths of the policy in training; arguments and errors of `simulate`."""
        shape = self.action_space.shape or ()
        centre, half_range = self.to_world
        plain = bool((centre == 0.0).all()) and bool((half_range == 1.0).all()) and len(shape) == 1

        def act(observation: Tensor) -> Tensor:
            action: Tensor = self.policy(observation)
            return action if plain else (centre + half_range * action).reshape(len(action), *shape)

        keep = isinstance(self.policy, QuantileNewsvendor)
        return simulate(self.simulator, act, generator, paths, periods, self.dtype, keep=keep)

    @torch.no_grad()
    def _keep_best(self) -> None:
        """Try the policy on paths twice as long, of which the start does not count, and keep it if it is the best."""
        c = self.config
        with self.profiler.phase("callbacks"):
            noise = make_generator(self.seed, "dev", self.device)
            reward = float(self.simulate(noise, c.dev_paths, 2 * c.periods)[2 * c.warm_up :].mean())
        if self.best_reward is None or reward > self.best_reward:
            assert self.best_policy is not None
            self.best_reward = reward
            self.best_policy.load_state_dict(self.policy.state_dict())

    def mean_reward(self, reward: Tensor) -> Tensor:
        """Return J, the mean over paths and periods of rewards `[periods, paths]`, discounted by gamma."""
        if self.config.gamma == 1.0:
            return reward.mean()
        discount = self.config.gamma ** torch.arange(len(reward), dtype=reward.dtype, device=reward.device)
        return (discount[:, None] * reward).mean()

    def _next_batch(self) -> Generator:
        """Return the noise of the next update: ever new, or that of the next batch of the fixed set."""
        c = self.config
        if c.train_paths == 0:
            return self.path_generator
        if not self.batch_order:
            batches = max(1, c.train_paths // c.num_paths)
            order = torch.randperm(batches, generator=self.path_generator, device=self.device)
            self.batch_order = order.tolist()
        # Drawn anew from its own seed each time, a batch needs no memory and no place in a checkpoint.
        return make_generator(self.seed, f"paths-{self.batch_order.pop()}", self.device)

    def _metrics(self, loss: Tensor, late_reward: Tensor) -> dict[str, Tensor]:
        metrics = {"train/loss": loss, "train/late_reward": late_reward}
        oracle = self.simulator.oracle()
        if oracle is not None and oracle.estimand.kind == "long_run_reward" and oracle.value:
            metrics["train/late_gap"] = (oracle.value - late_reward) / abs(oracle.value)
        if self.best_reward is not None:
            metrics["train/best_dev_reward"] = torch.tensor(self.best_reward)
        return metrics

    def _check_gradient(self) -> None:
        if isinstance(self.policy, QuantileNewsvendor) and not self.policy.learns_from_cost:
            return
        noise, periods = make_generator(self.seed, "probe", self.device), self.config.periods
        require_gradient(self.simulator, lambda: self.simulate(noise, PROBE_PATHS, periods), self.policy, periods)
        self.policy_optimizer.zero_grad()
