"""What an agent keeps of the supply network of its world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.agents.agent import EnvLike
from palaestra.agents.pathwise.network_reader import network_from_json, network_to_json
from palaestra.agents.pathwise.simulated import SimulatedAgent
from palaestra.protocols import Network, Networked, Simulator


class NetworkAgent(SimulatedAgent):
    """An agent whose policy is made for one supply network, which is saved with it.

    Attributes:
        network: The network; None where the world is none.
    """

    unsaved = SimulatedAgent.unsaved | {"network"}
    network: Network | None = None

    def _build(self, num_envs: int) -> None:
        if hasattr(self, "collector"):
            self.network = _network(self.simulator)
        super()._build(num_envs)

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
