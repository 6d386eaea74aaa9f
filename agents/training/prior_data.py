"""Prior data: transitions of somebody else's that an off-policy agent learns from beside its own.

They are made by a policy of the world before training, or read from a file, and stay in a buffer of their own, of which
every batch takes its share (Ball et al. 2023, arXiv 2302.02948).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import safetensors.numpy
import torch
from gymnasium import spaces
from torch import Tensor

from palaestra.agents.memory.fields import nest_fields
from palaestra.agents.memory.replay import Batch, ReplayBuffer
from palaestra.agents.nn.spaces import ActionMap
from palaestra.agents.training.behaviour_data import behaviour_rows
from palaestra.agents.training.callbacks import CallbackList
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig


@dataclass(frozen=True)
class PriorDataConfig(OffPolicyConfig):
    """Where prior data come from, and how they are used; none by default."""

    offline_policy: str = "random"
    """Name of the policy that makes the offline data: a reference policy or expert of the world, or random."""
    offline_steps: int = 0
    """Transitions of it, made before training; 0 for none."""
    offline_file: str = ""
    """File of offline data instead, .npz or .safetensors, as `prior_data.read_transitions` reads them."""
    offline_share: float = 0.5
    """Share of every batch that offline data take, where there are any, in [0, 1]."""
    offline_updates: int = 0
    """Updates on offline data alone, made before the first step; at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("offline_steps", "offline_updates"):
            self.require(name, getattr(self, name) >= 0, "an integer of at least 0")
        self.require("offline_share", 0.0 <= self.offline_share <= 1.0, "a number in [0, 1]")
        self.require(
            "offline_file", not self.offline_file or self.offline_steps == 0, "'' where offline_steps are made"
        )


class PriorData(ReplayBuffer):
    """A buffer that is filled once and holds exactly what it was filled with.

    Args:
        device: Where the arrays live.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(1, device)

    def add(self, rows: Mapping[str, Any]) -> None:
        """Take the transitions, once for all.

        Raises:
            ValueError: If there are some already.
        """
        if self.rows_written:
            raise ValueError(f"PriorData.add: {self.rows_written} transitions are there; expected an empty buffer")
        self.capacity = len(rows["reward"])
        super().add(rows)

    def begin_load(self, rows_written: int, rows_kept_from: int) -> None:
        """Prepare for `write_rows` of a saved buffer."""
        self.capacity = max(1, rows_written)
        super().begin_load(rows_written, rows_kept_from)


class PriorDataAgent(OffPolicyAgent):
    """An off-policy agent whose batches may hold prior data.

    Data of one's own are given by `agent.offline.add(rows)` before training: fields of `Batch`, `collected_return`
    among them. Before the first step of training, `offline_updates` updates are made on them alone.
    """

    config: PriorDataConfig
    config_class: ClassVar[type[PriorDataConfig]] = PriorDataConfig
    # Batches are put together by what is there, which a captured update could not see.
    capturable: ClassVar[bool] = False

    def _build(self, num_envs: int) -> None:
        self.offline = PriorData(self.device)
        self.pretraining = self.pretrained = False
        super()._build(num_envs)

    def _learn(self, callback: CallbackList) -> None:
        c = self.config
        if (c.offline_steps or c.offline_file) and not len(self.offline):
            self.offline.add(self._prior_data())
        if c.offline_updates and not len(self.offline):
            raise ValueError(f"{self.agent_id}: offline_updates={c.offline_updates} without offline data; expected 0")
        if len(self.offline) and not self.pretrained:
            self._pretrain()
        super()._learn(callback)

    def _pretrain(self) -> None:
        """Make the updates on offline data alone."""
        if self.normalizer is not None:
            self.normalizer.update(nest_fields(self.offline.fields)["observation"])
        self.pretraining = True
        self.updates_owed += self.config.offline_updates
        self.make_updates()
        self.pretraining, self.pretrained = False, True

    def _prior_data(self) -> dict[str, Any]:
        c = self.config
        if c.offline_file:
            rows = read_transitions(c.offline_file, self.observation_space, self.action_map, self.device)
            env = torch.zeros(len(rows["reward"]), dtype=torch.int64)
        elif self.env_id is None:
            raise ValueError(
                f"{self.agent_id}: offline_steps={c.offline_steps} on an env without an id; expected 0, or "
                "agent.offline filled by add()"
            )
        else:
            rows = behaviour_rows(
                c.offline_policy,
                self.env_id,
                self.env_kwargs,
                c.offline_steps,
                self.seed,
                self.action_map,
                self.device,
            )
            env = rows.pop("env")
        return {**rows, "collected_return": collected_returns(rows, env, c.gamma)}

    def make_update(self, number: int | Tensor) -> None:
        """Make the update with the given number on a new batch of both sources."""
        self.metrics.add(self.learn_from(self.draw_batch()), number)

    def draw_batch(self) -> Batch:
        """Return a batch of which offline data are their share, where there are any, and all where nothing else is."""
        c, generator = self.config, self.replay_generator
        offline = round(c.offline_share * c.batch_size) if len(self.offline) else 0
        if self.pretraining or not len(self.replay):
            offline = c.batch_size
        if offline == 0:
            return self.replay.sample(c.batch_size, generator)
        if offline == c.batch_size:
            return self.offline.sample(c.batch_size, generator)
        return joined(self.replay.sample(c.batch_size - offline, generator), self.offline.sample(offline, generator))


def joined(online: Batch, offline: Batch) -> Batch:
    """Return the rows of both batches; those of the first have collected no return that is known.

    Raises:
        ValueError: If a field is in one of them alone.
    """
    if online.collected_return is None:
        online = replace(online, collected_return=torch.full_like(online.reward, torch.nan))
    if offline.collected_return is None:
        offline = replace(offline, collected_return=torch.full_like(offline.reward, torch.nan))
    whole: dict[str, Any] = {}
    for field in fields(Batch):
        one, other = getattr(online, field.name), getattr(offline, field.name)
        if (one is None) != (other is None):
            raise ValueError(f"joined: {field.name} is in one source alone; expected it in both or in neither")
        if isinstance(one, dict):
            whole[field.name] = {key: torch.cat([part, other[key]]) for key, part in one.items()}
        elif one is not None:
            whole[field.name] = torch.cat([one, other])
    return Batch(**whole)


def collected_returns(rows: Mapping[str, Any], env: Tensor, gamma: float) -> Tensor:
    """Return the discounted rewards from each row to its episode's end, NaN where the rows stop before that `[rows]`.

    An episode that a limit cut off counts with what it had collected until then, as the Monte Carlo returns of Cal-QL
    do (Nakamoto et al. 2023, arXiv 2303.05479): less than its policy's value where rewards are not negative.

    Args:
        rows: Transitions in order of time, with "reward", "terminated" and "truncated" `[rows]`.
        env: Which env made each row; one of its episodes follows the other `[rows]`.
        gamma: Discount in [0, 1].
    """
    ended = (rows["terminated"] | rows["truncated"]).tolist()
    returns = rows["reward"].tolist()
    following: dict[int, float] = {}
    for row, number in zip(reversed(range(len(returns))), reversed(env.tolist()), strict=True):
        beyond = 0.0 if ended[row] else following.get(number, float("nan"))
        returns[row] = following[number] = returns[row] + gamma * beyond
    return torch.tensor(returns, dtype=torch.float32, device=rows["reward"].device)


def read_transitions(
    path: str | Path, observation_space: gym.Space[Any], action_map: ActionMap, device: torch.device
) -> dict[str, Any]:
    """Return the transitions in a file, as a replay buffer takes them.

    The file holds arrays by name, one row for each transition, in order of time, one episode after the other:
    "observation" and "next_observation" (for Dict spaces "observation/key" for every key), "action" in the env's units,
    "reward", "terminated" and "truncated".

    Args:
        path: Of an .npz or .safetensors file.
        observation_space: Space of one observation.
        action_map: Of the env's action space.
        device: Where the tensors lie.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, an array is missing, superfluous, misshapen or not finite, or it is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_transitions: path={str(path)!r}; expected a file of transitions")
    arrays = _read_arrays(path)
    shapes: dict[str, tuple[int, ...]] = {"reward": (), "terminated": (), "truncated": ()}
    parts = (
        observation_space.spaces.items() if isinstance(observation_space, spaces.Dict) else ((None, observation_space),)
    )
    for key, space in parts:
        for side in ("observation", "next_observation"):
            shapes[side if key is None else f"{side}/{key}"] = space.shape or ()
    shapes["action"] = action_map.space.shape or ()
    _check(path, arrays, shapes)
    rows = {
        name: array for name, array in arrays.items() if name not in ("action", "reward", "terminated", "truncated")
    }
    tensors = {
        name: torch.as_tensor(array.astype(np.float32) if array.dtype == np.float64 else array, device=device)
        for name, array in rows.items()
    }
    tensors["action"] = torch.as_tensor(action_map.from_env(arrays["action"]), device=device)
    tensors["reward"] = torch.as_tensor(arrays["reward"].astype(np.float32), device=device)
    for name in ("terminated", "truncated"):
        tensors[name] = torch.as_tensor(arrays[name].astype(bool), device=device)
    return nest_fields(tensors)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if path.suffix == ".safetensors":
        return dict(safetensors.numpy.load_file(path))
    raise ValueError(f"read_transitions: path={str(path)!r}; expected a name that ends in .npz or .safetensors")


def _check(path: Path, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the arrays are those expected, of as many rows each."""
    if arrays.keys() != shapes.keys():
        raise ValueError(f"read_transitions: {path} holds {sorted(arrays)}; expected {sorted(shapes)}")
    count = len(arrays["reward"]) if arrays["reward"].ndim else 0
    for name, shape in shapes.items():
        if arrays[name].shape != (count, *shape) or count == 0:
            raise ValueError(
                f"read_transitions: {path} holds {name!r} of shape {arrays[name].shape}; expected "
                f"{(count or 'rows', *shape)}"
            )
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"read_transitions: {path} holds {name!r} with values that are not finite")
