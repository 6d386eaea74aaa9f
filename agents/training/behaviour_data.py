"""Offline data: transitions of a policy that is not the learner's, made once, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from palaestra.agents.evaluation.players import make_player
from palaestra.agents.nn.spaces import ActionMap
from palaestra.agents.training.collector import Collector
from palaestra.agents.training.off_policy import transitions
from palaestra.protocols import simulator_of
from palaestra.seeding import row_seeds
from palaestra.wrappers.vectorize import make_vec

ROWS = 50
"""Parallel envs: part of what the data are made of, whatever the learner's own number."""


def behaviour_data(
    policy: Any,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    steps: int,
    seed: int,
    action_map: ActionMap,
    device: torch.device,
) -> dict[str, Any]:
    """Return `steps` transitions of a policy, as a replay buffer takes them.

    Args:
        policy: Name of a reference policy or expert of the world, "random" for any env, or an agent (which samples).
        env_id: Registered id.
        env_kwargs: Parameters of the env.
        steps: Transitions, at least 1; the last episodes may be cut.
        seed: Seed of the data: of the envs (role "data") and of the policy's own noise.
        action_map: Of the env's action space; actions are returned as agents see them.
        device: Where the tensors lie.

    Raises:
        KeyError: If the policy's name is unknown to the world.
        ValueError: If `steps` is below 1.
    """
    rows = behaviour_rows(policy, env_id, env_kwargs, steps, seed, action_map, device)
    return {name: values for name, values in rows.items() if name != "env"}


def behaviour_rows(
    policy: Any,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    steps: int,
    seed: int,
    action_map: ActionMap,
    device: torch.device,
) -> dict[str, Any]:
    """Return what `behaviour_data` does, in order of time, and beside it under "env" which of the envs made each row.

    Arguments and errors are those of `behaviour_data`.
    """
    if steps < 1:
        raise ValueError(f"behaviour_data: steps={steps}; expected at least 1")
    env = make_vec(env_id, ROWS, env_kwargs=env_kwargs)
    try:
        player = make_player(policy, env, simulator_of(env), False, seed)
        collector = Collector(env, row_seeds(seed, "data", ROWS))
        collector.start()
        parts: list[dict[str, Any]] = []
        while sum(len(part["reward"]) for part in parts) < steps:
            masks = collector.action_masks
            info = {} if masks is None else {"action_mask": masks}
            action = player.act(collector.observation, info, collector.episode_start)
            made = torch.as_tensor(action_map.from_env(action), device=device)
            decision = {"action": made, "env": torch.arange(ROWS, device=device)}
            parts.append(transitions(collector.step(action), decision, device))
    finally:
        env.close()
    return {name: _joined([part[name] for part in parts], steps) for name in parts[0]}


def _joined(parts: list[Any], steps: int) -> Any:
    if isinstance(parts[0], dict):
        return {key: _joined([part[key] for part in parts], steps) for key in parts[0]}
    return torch.cat(parts)[:steps]
