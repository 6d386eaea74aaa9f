"""Players: what evaluation asks for actions, be it an agent, a world's own actor or uniform noise."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from palaestra.protocols import Actor, Simulator
from palaestra.seeding import row_seeds, stream_seed


class Player(Protocol):
    """A policy at one vector env, from its reset on."""

    def act(self, observation: Any, info: Mapping[str, Any], episode_start: np.ndarray) -> Any:
        """Return the actions of all rows.

        Args:
            observation: Observations `[num_envs, ...]` (an array, or a dict of arrays).
            info: The infos of the reset or step that yielded them.
            episode_start: Bools `[num_envs]`, true where the observation begins an episode.
        """
        ...


class AgentPlayer:
    """An agent, asked through `predict` alone; keywords that do not apply to the env are not passed."""

    def __init__(self, agent: Any, deterministic: bool, seed: int) -> None:
        """Prepare to play.

        Args:
            agent: Anything with `predict(observation, state=None, episode_start=None, deterministic=...)`. It must
                accept `action_masks=` where the env masks actions, and `generator=` where `deterministic` is false.
            deterministic: Whether to ask for the mode of the policy.
            seed: Seed of the generator that stochastic acting draws from, so that none of the agent's own is touched.
        """
        self.agent = agent
        self.deterministic = deterministic
        self.state: Any = None
        self.keywords: dict[str, Any] = {} if deterministic else {"generator": _torch_generator(agent, seed)}

    def act(self, observation: Any, info: Mapping[str, Any], episode_start: np.ndarray) -> Any:
        """Return the agent's actions; a recurrent state is carried from call to call."""
        keywords = dict(self.keywords)
        if "action_mask" in info:
            keywords["action_masks"] = info["action_mask"]
        actions, self.state = self.agent.predict(
            observation, state=self.state, episode_start=episode_start, deterministic=self.deterministic, **keywords
        )
        return actions


class ActorPlayer:
    """A world's own actor, which may read the true state; its noise is the world's, under its own names."""

    def __init__(self, actor: Actor, face: Any) -> None:
        """Prepare to play.

        Args:
            actor: The actor.
            face: The vector face it plays on, with `simulator`, `state` and `key()`.
        """
        self.actor = actor
        self.face = face

    def act(self, observation: Any, info: Mapping[str, Any], episode_start: np.ndarray) -> Any:
        """Return the actor's actions."""
        state = self.face.state
        return self.actor(state, self.face.simulator.observe(state), self.face.key())


class UniformPlayer:
    """Uniformly random actions from one seeded space per row; for Discrete spaces, among the admissible ones."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], seed: int) -> None:
        """Seed a copy of the env's action space for every row.

        Args:
            env: The vector env it plays on.
            seed: Seed of the evaluation.
        """
        self.spaces = []
        for row_seed in row_seeds(seed, "eval-policy", env.num_envs):
            space = copy.deepcopy(env.single_action_space)
            space.seed(row_seed)
            self.spaces.append(space)

    def act(self, observation: Any, info: Mapping[str, Any], episode_start: np.ndarray) -> Any:
        """Return one random action per row."""
        masks = info.get("action_mask")
        if masks is None or not isinstance(self.spaces[0], gym.spaces.Discrete):
            return np.stack([space.sample() for space in self.spaces])
        return np.stack([space.sample(np.asarray(m, np.int8)) for space, m in zip(self.spaces, masks, strict=True)])


def make_player(
    policy: Any, env: gym.vector.VectorEnv[Any, Any, Any], simulator: Simulator | None, deterministic: bool, seed: int
) -> Player:
    """Return the player of a policy at a vector env.

    Args:
        policy: An agent, an `Actor`, or the name of one of the world's reference policies or experts. "random" names
            a policy of every env.
        env: The vector env it will play on.
        simulator: The env's simulator, or None for a foreign env.
        deterministic: Whether an agent acts by the mode of its policy; actors have one way of acting.
        seed: Seed of whatever noise the policy itself draws.

    Raises:
        KeyError: If a name is unknown to the world.
        TypeError: If `policy` is none of these, or an actor meets an env that is no own world.
    """
    if isinstance(policy, str):
        if simulator is None and policy == "random":
            return UniformPlayer(env, seed)
        if simulator is None:
            raise KeyError(f"evaluate: policy={policy!r} is unknown to a foreign env; expected 'random' or an agent")
        return ActorPlayer(named_actor(simulator, policy), env.unwrapped)
    if hasattr(policy, "predict"):
        return AgentPlayer(acting_in(policy, simulator), deterministic, seed)
    if not callable(policy):
        raise TypeError(f"evaluate: policy={policy!r}; expected an object with predict, an actor or a policy's name")
    if simulator is None:
        raise TypeError(f"evaluate: policy={policy!r} is an actor, which reads a world's state; expected an own world")
    return ActorPlayer(policy, env.unwrapped)


def acting_in(policy: Any, simulator: Simulator | None) -> Any:
    """Return who acts for anything with `predict` in a world: see `Agent.acting_in`, which not all of them have."""
    return policy.acting_in(simulator) if simulator is not None and hasattr(policy, "acting_in") else policy


def named_actor(simulator: Simulator, name: str) -> Actor:
    """Return a reference policy or, failing that, an expert of a world.

    Raises:
        KeyError: If the world has neither of that name; the message says which it has.
    """
    references = simulator.reference_policies()
    if name in references:
        return references[name]
    try:
        return simulator.expert(name)
    except KeyError as error:
        raise KeyError(
            f"evaluate: policy={name!r} is unknown to {type(simulator).__name__}; expected one of its reference "
            f"policies {sorted(references)} or of its experts ({error.args[0]})"
        ) from None


def _torch_generator(agent: Any, seed: int) -> Any:
    # Only stochastic acting of an agent needs torch; reference policies are evaluated without importing it.
    import torch

    return torch.Generator(device=getattr(agent, "device", "cpu")).manual_seed(stream_seed(seed, "eval-policy"))
