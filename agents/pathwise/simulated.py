"""What agents share that train through the simulator of a world instead of stepping its env."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import torch
from gymnasium import spaces

from palaestra.agents.agent import Agent
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.training.config import AgentConfig
from palaestra.agents.training.seeding import make_generator
from palaestra.protocols import Simulator, simulator_of


class SimulatedAgent(Agent):
    """An agent with a deterministic policy whose updates simulate paths of their own; configs have a `precision`.

    Attributes:
        simulator_use: What it needs a simulator for, and which worlds have one, for errors.
    """

    config: Any
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box,)
    stochastic_modes = False
    simulators_only = True
    simulator_use: ClassVar[str] = "to train through; expected a world of this suite's protocol"

    def _build(self, num_envs: int) -> None:
        self.path_generator = make_generator(self.seed, "paths", self.device)
        super()._build(num_envs)

    @property
    def simulator(self) -> Simulator:
        """The simulator of the env.

        Raises:
            TypeError: If the env has none.
        """
        return self.simulator_in(self.collector.env)

    def simulator_in(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> Simulator:
        """Return the simulator of a vector env.

        Raises:
            TypeError: If it has none.
        """
        simulator = simulator_of(env)
        if simulator is None:
            named = env.spec.id if env.spec else env
            raise TypeError(f"{self.agent_id}: env {named} has no simulator {self.simulator_use}")
        return simulator

    @property
    def dtype(self) -> torch.dtype:
        """Precision of simulation and policy."""
        return torch.float64 if self.config.precision == "float64" else torch.float32

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return the policy's actions at the env."""
        return {"action": self.act(to_tensor(self.collector.observation, self.device), None)}


def require_plain_observations(config: AgentConfig) -> None:
    """Raise ValueError where a config asks for observations other than the simulator's own."""
    config.require("frame_stack", config.frame_stack == 1, "1: the simulator's own observations are read")
    config.require("normalize_observation", not config.normalize_observation, "False: policies read the world's units")
    config.require("encoder", config.encoder == "auto", "'auto': policies read flat observations")
