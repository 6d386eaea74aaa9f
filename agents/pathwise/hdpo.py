"""Hindsight differentiable policy optimisation: the gradient of simulated cost, straight through the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from palaestra.agents.agent import Agent, EnvLike
from palaestra.agents.nn.networks import ACTIVATIONS, Observation
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.pathwise.graph_network import GraphNetwork
from palaestra.agents.pathwise.network_reader import NetworkReader, network_from_json, network_to_json
from palaestra.agents.pathwise.path_noise import PathNoise
from palaestra.agents.pathwise.policies import (
    BaseStock,
    BoxPerceptron,
    CappedBaseStock,
    EchelonBaseStock,
    Perceptron,
    SymmetricPerceptron,
)
from palaestra.agents.registry import register_agent
from palaestra.agents.training.config import AgentConfig
from palaestra.agents.training.seeding import make_generator
from palaestra.protocols import Network, Networked, Simulator, simulator_of

PROBE_PATHS = 8
"""Paths by which a world is asked whether its rewards have a gradient."""


@dataclass(frozen=True)
class HDPOConfig(AgentConfig):
    """Settings of HDPO."""

    gamma: float = 1.0
    """Discount per period of the simulated cost, in [0, 1]; 1 is the paper's plain mean."""
    learning_rate: float = 3e-3
    """Step size of Adam, above 0; for the levels of base-stock policies in units, where .5 is right."""
    policy: Literal["mlp", "base-stock", "echelon-base-stock", "capped-base-stock", "symmetric", "gnn"] = "mlp"
    """The policy; all but mlp need a world that is a supply network."""
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
        self.require("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0.0, "None or above 0")
        self.require("frame_stack", self.frame_stack == 1, "1: the simulator's own observations are read")
        self.require("normalize_observation", not self.normalize_observation, "False: policies read units of stock")
        self.require("encoder", self.encoder == "auto", "'auto': policies read flat observations")


@register_agent("hdpo")
class HDPO(Agent):
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
    gradients are clipped for all policies and the learning rate is annealed; and paths are fresh in every update unless
    `train_paths` asks for a fixed set, whose batches are visited in a new order each time round.
    """

    config: HDPOConfig
    config_class = HDPOConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box,)
    stochastic_modes = False
    simulators_only = True
    unsaved = Agent.unsaved | {"network", "to_world"}

    def _set_up(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        config: AgentConfig,
        seed: int,
        device: Any,
    ) -> None:
        super()._set_up(observation_space, action_space, config, seed, device)
        self.path_generator = make_generator(seed, "paths", self.device)
        self.batch_order: list[int] = []
        self.network: Network | None = None

    def _build(self, num_envs: int) -> None:
        if hasattr(self, "collector"):
            self.network = _network(self.simulator)
        super()._build(num_envs)
        if hasattr(self, "collector"):
            self._check_gradient()

    @property
    def simulator(self) -> Simulator:
        """The simulator of the env.

        Raises:
            TypeError: If the env has none.
        """
        simulator = simulator_of(self.collector.env)
        if simulator is None:
            raise TypeError(
                f"hdpo: env {self.env_id or self.collector.env} has no simulator to differentiate; expected a world "
                "such as those of palaestra.envs.inventory"
            )
        return simulator

    @property
    def dtype(self) -> torch.dtype:
        """Precision of simulation and policy."""
        return torch.float64 if self.config.precision == "float64" else torch.float32

    def build(self) -> None:
        """Create the policy and its optimiser."""
        # Parameters that start from the network's numbers are float64 until here.
        self.policy = self._make_policy().to(device=self.device, dtype=self.dtype)
        self.policy_optimizer = self.optimizer(self.policy, max_grad_norm=self.config.max_grad_norm)
        space, scale = self.action_space, self.action_map
        assert isinstance(space, spaces.Box)
        self.to_world = tuple(
            torch.as_tensor(numbers.reshape(-1), dtype=self.dtype, device=self.device)
            for numbers in (scale.centre, scale.half_range)
        )

    def _make_policy(self) -> nn.Module:
        c = self.config
        if self.network is None:
            if c.policy != "mlp":
                raise TypeError(f"hdpo: policy={c.policy!r} needs a supply network; expected 'mlp' for {self.env_id}")
            (size,) = self.observation_space.shape or (1,)
            return BoxPerceptron(size, self.action_map.dim, c.hidden, c.activation)
        reader = NetworkReader(self.network)
        match c.policy:
            case "base-stock":
                return BaseStock(reader)
            case "echelon-base-stock":
                return EchelonBaseStock(reader)
            case "capped-base-stock":
                return CappedBaseStock(reader)
            case "symmetric":
                return SymmetricPerceptron(reader, c.activation, c.output)
            case "gnn":
                return GraphNetwork(reader, c.hidden, c.activation)
            case _:
                return Perceptron(reader, c.hidden, c.activation, c.output)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return actions `[batch, action_dim]` between -1 and 1; the policy is deterministic."""
        assert isinstance(observation, Tensor)
        return self.policy(observation.to(self.dtype))

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return the policy's actions at the env."""
        return {"action": self.act(to_tensor(self.collector.observation, self.device), None)}

    def training_step(self) -> None:
        """Simulate a batch of paths, and take one step along the gradient of their mean reward."""
        c = self.config
        with self.profiler.phase("env"):
            reward = self.simulate(self._next_batch(), min(c.num_paths, c.train_paths or c.num_paths), c.periods)
        with self.profiler.phase("update"):
            loss = -self.mean_reward(reward)
            self.policy_optimizer.zero_grad()
            loss.backward()
            if c.learning_rate_schedule == "linear":
                self.policy_optimizer.param_groups[0]["lr"] = c.learning_rate * self.remaining
            self.policy_optimizer.step()
        self.num_timesteps += reward.numel()
        self.num_updates += 1
        self.metrics.add(self._metrics(loss.detach(), reward.detach()[c.warm_up :].mean()), self.num_updates)

    def simulate(self, generator: Generator, paths: int, periods: int) -> Tensor:
        """Return the rewards `[periods, paths]` of the policy on fresh noise, with their gradient in its parameters.

        Args:
            generator: Source of the noise.
            paths: Number of paths.
            periods: Periods of each.

        Raises:
            ValueError: If a path terminates.
        """
        simulator = self.simulator
        centre, half_range = self.to_world
        state = simulator.initial(PathNoise(generator, paths, self.dtype))
        rewards, ended = [], torch.zeros(paths, dtype=torch.bool, device=self.device)
        for _ in range(periods):
            action = centre + half_range * self.act(simulator.observe(state), None)
            shaped = action.reshape(paths, *(self.action_space.shape or ()))
            transition = simulator.step(state, shaped, PathNoise(generator, paths, self.dtype))
            state, ended = transition.state, ended | transition.terminated
            rewards.append(transition.reward)
        if bool(ended.any()):
            raise ValueError(
                f"hdpo: {type(simulator).__name__} terminated within {periods} periods; expected a world without an end"
            )
        return torch.stack(rewards)

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
        return metrics

    def _check_gradient(self) -> None:
        world, periods = type(self.simulator).__name__, self.config.periods
        expected = "expected a world that computes with torch tensors and whose rewards have a gradient in the actions"
        generator = make_generator(self.seed, "probe", self.device)
        try:
            self.simulate(generator, PROBE_PATHS, periods).sum().backward()
        except ValueError:
            raise
        except Exception as error:
            raise TypeError(f"hdpo: {world} cannot be differentiated ({error}); {expected}") from error
        if not any(bool(p.grad.any()) for p in self.policy.parameters() if p.grad is not None):
            raise TypeError(
                f"hdpo: rewards of {world} do not depend smoothly on actions within periods={periods}; {expected}"
            )
        self.policy_optimizer.zero_grad()

    def set_env(self, env: EnvLike, env_kwargs: Mapping[str, Any] | None = None, backend: str = "auto") -> None:
        """Train on another env with the same spaces and supply network from the next `learn` on.

        Raises:
            TypeError: If it has no simulator.
            ValueError: If its spaces or its network differ.
        """
        super().set_env(env, env_kwargs, backend)
        network = _network(self.simulator)
        if _tree(network) != _tree(self.network):
            raise ValueError(f"set_env: the supply network of {env} is another; expected that of the policy")

    def header(self) -> dict[str, Any]:
        """Return what identifies the agent in a checkpoint, the supply network with it."""
        return {**super().header(), "network": _tree(self.network)}

    def recall(self, header: Mapping[str, Any]) -> None:
        """Take back the env's identity and its supply network."""
        super().recall(header)
        tree = header["network"]
        self.network = None if tree is None else network_from_json(tree)


def _network(simulator: Simulator) -> Network | None:
    return simulator.network if isinstance(simulator, Networked) else None


def _tree(network: Network | None) -> dict[str, Any] | None:
    return None if network is None else network_to_json(network)
