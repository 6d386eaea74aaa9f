"""What an agent keeps of the supply network of its world, and how it gets along in another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import gymnasium as gym

from palaestra.agents.pathwise.network_reader import features, network_from_json, network_to_json
from palaestra.agents.pathwise.policy_choice import FOR_ANY_NETWORK
from palaestra.agents.pathwise.simulated import SimulatedAgent
from palaestra.agents.training.metrics import MetricAccumulator
from palaestra.protocols import Network, Networked, Simulator


class NetworkAgent(SimulatedAgent):
    """An agent whose policy is made for one supply network, which is saved with it; configs have a `policy`.

    Those of `FOR_ANY_NETWORK` act, and go on learning, in every network whose nodes and links show the same.

    Attributes:
        network: The network; None where the world is none.
        made_for_network: Attributes that `build` makes; modules and optimisers go into another network with all that
            they have learned, the others begin anew there.
    """

    unsaved = SimulatedAgent.unsaved | {"network"}
    network: Network | None = None
    made_for_network: ClassVar[tuple[str, ...]] = ()

    def _build(self, num_envs: int) -> None:
        if hasattr(self, "collector"):
            self.network = _network(self.simulator)
        super()._build(num_envs)

    def acting_in(self, simulator: Simulator) -> Self:
        """Return who acts in a world: itself, or a copy made for its supply network where that is another.

        A policy that is not for any network acts as it is in worlds of the same spaces: it goes by the network that
        it was trained on.

        Args:
            simulator: The world.

        Raises:
            ValueError: If its supply network is another, its spaces differ, and the policy does not fit.
        """
        network = _network(simulator)
        if _tree(network) == _tree(self.network):
            return self
        misfit = self._misfit(network, type(simulator).__name__)
        if misfit is None:
            return self._copied_to(simulator, network)
        ours = (self.observation_space, self.action_space)
        if ours == (simulator.observation_space, simulator.action_space):
            return self
        raise ValueError(misfit)

    def _fit_to(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Get ready to go on in another env, with a policy for any network also in one of other spaces.

        Raises:
            TypeError: If it has no simulator.
            ValueError: If its spaces or its network differ, and the policy is not for any network of that kind.
        """
        simulator = self.simulator_in(env)
        network = _network(simulator)
        if _tree(network) == _tree(self.network):
            super()._fit_to(env)
            return
        misfit = self._misfit(network, type(simulator).__name__)
        if misfit is not None:
            raise ValueError(misfit)
        copied = self._copied_to(simulator, network)
        for name in ("observation_space", "action_space", "action_map", "network", *self.made_for_network):
            setattr(self, name, getattr(copied, name))
        # Worlds differ in what there is to report, and means over two of them would say nothing.
        self.metrics = MetricAccumulator()

    def _misfit(self, network: Network | None, world: str) -> str | None:
        """Return why the policy is none for another network, or None if it fits."""
        policy = self.config.policy
        if policy not in FOR_ANY_NETWORK or self.network is None or network is None:
            return (
                f"{self.agent_id}: the supply network of {world} is another than that of policy={policy!r}; expected "
                f"the same, or one of the policies {list(FOR_ANY_NETWORK)}, which fit others of the same kind"
            )
        ours, theirs = features(self.network), features(network)
        differing = [name for name in ours if ours[name] != theirs[name]]
        if not differing:
            return None
        found, expected = (", ".join(f"{name} {kind[name]}" for name in differing) for kind in (theirs, ours))
        return (
            f"{self.agent_id}: policy={policy!r} does not fit the supply network of {world}, which has {found}; "
            f"expected {expected}"
        )

    def _copied_to(self, simulator: Simulator, network: Network | None) -> Self:
        """Return an agent for another world, without an env, that has learned the same."""
        other = type(self).__new__(type(self))
        other._set_up(simulator.observation_space, simulator.action_space, self.config, self.seed, self.device)
        other.recall({**self.header(), "network": _tree(network)})
        other._build(self.num_envs)
        for name in self.made_for_network:
            learned = getattr(self, name)
            if hasattr(learned, "load_state_dict"):
                getattr(other, name).load_state_dict(learned.state_dict())
        return other

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
