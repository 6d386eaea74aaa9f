"""The tables that TextCorridor steps and speaks by: maps, hashes and fragments of tokens, flat for look-up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palaestra.envs.text.corridor_map import CorridorMap
from palaestra.envs.text.grammar import EMPTY, UNKNOWN, Grammar, Reject
from palaestra.envs.text.tabular import DONE, REFUSED
from palaestra.envs.text.vocabulary import encode, padded
from palaestra.protocols import Array

LONGEST_ACTION_TOKENS = 32

NO_EXIT = Reject("no such exit here")
LAST = ("nothing", "moved", *(f"invalid: {reject.reason}" for reject in (NO_EXIT, EMPTY, UNKNOWN)))
"""Texts of the `last:` line by code. The first three are the outcomes of `tabular`; only texts lead to the others."""

_EMPTY_TEXT, _UNKNOWN_TEXT = 3, 4


@dataclass(frozen=True)
class CorridorTables:
    """What a place or a scene leads to and looks like.

    A place is `task * rooms + room`, a scene `last * places + place`. Actions are shifted by 2, so that the rejects of
    a text come first.

    Attributes:
        next_place: int64 `[places * (num_actions + 2)]`: where an action leads when nothing slips.
        next_last: int64 `[places * (num_actions + 2)]`: what it is reported as, an index of `LAST`.
        doors: int64 `[places * (most_doors + 1)]`: places behind the doors; after the last door, the last one's again,
            where the product of a draw just below 1 may round to.
        degree: float64 `[places]`: number of doors.
        mask: bool `[places, num_actions]`: admissible actions.
        start: int64 `[tasks]`: first place.
        success: bool `[places]`: whether the goal is there.
        potential: float64 `[places]`: minus the distance to the goal, over the longest of the task.
        task_uid: int64 `[places]`: hash of the world's arguments and the task.
        state_key: int64 `[places]`: hash of task and room.
        anchor: int64 `[scenes]`: hash of all lines but the clock.
        scene: int32 `[scenes, L]`: all lines as tokens, padded, with room left for the clock.
        length: int64 `[scenes]`: tokens of all lines.
        clock: int32 `[horizon + 1, tokens]`: the `turn:` line.
        actions: int32 `[catalogue, LONGEST_ACTION_TOKENS]`: texts of the actions, padded.
    """

    next_place: Array
    next_last: Array
    doors: Array
    degree: Array
    mask: Array
    start: Array
    success: Array
    potential: Array
    task_uid: Array
    state_key: Array
    anchor: Array
    scene: Array
    length: Array
    clock: Array
    actions: Array


def build_tables(
    maps: CorridorMap, grammar: Grammar, horizon: int, targets: np.ndarray, task_seeds: Sequence[object]
) -> CorridorTables:
    """Return the tables of a pool of tasks.

    Args:
        maps: The maps of all tasks.
        grammar: Catalogue of actions, one for each door name.
        horizon: Time limit, in turns.
        targets: int `[tasks, rooms, num_actions]`: the room that an action leads to, or -1.
        task_seeds: For each task what identifies it among all worlds.
    """
    tasks, rooms, num_actions = targets.shape
    places = np.arange(tasks * rooms)
    first_place = places // rooms * rooms
    reject_columns = np.full((len(places), 2), -1)
    columns = np.concatenate([reject_columns, targets.reshape(len(places), num_actions)], axis=1)
    last_of_column = np.array([_UNKNOWN_TEXT, _EMPTY_TEXT, *[REFUSED] * num_actions])
    doors = np.pad(maps.doors.reshape(len(places), -1), ((0, 0), (0, 1)), constant_values=-1)
    last_door = np.take_along_axis(doors, maps.degree.reshape(-1, 1) - 1, axis=1)
    scenes = [
        _scene(maps, grammar, last, task, room) for last in LAST for task in range(tasks) for room in range(rooms)
    ]
    heads = [_head(maps, task) for task in range(tasks)]
    width = len(str(horizon))
    clock = _fragments([f"turn: {turn:0{width}} of {horizon}\n" for turn in range(horizon + 1)])
    head, scene = _fragments(heads)[np.tile(places // rooms, len(LAST))], _fragments(scenes)
    room_for_clock = np.zeros((len(scene), clock.shape[1]), np.int32)
    return CorridorTables(
        next_place=np.where(columns >= 0, first_place[:, None] + columns, places[:, None]).reshape(-1),
        next_last=np.where(columns >= 0, DONE, last_of_column).reshape(-1),
        doors=(first_place[:, None] + np.where(doors >= 0, doors, last_door)).reshape(-1),
        degree=maps.degree.reshape(-1).astype(np.float64),
        mask=columns[:, 2:] >= 0,
        start=np.arange(tasks) * rooms + maps.start,
        success=(maps.distance == 0).reshape(-1),
        potential=(-maps.distance / maps.distance.max(axis=1, keepdims=True)).reshape(-1),
        task_uid=np.repeat([_hash(seed) for seed in task_seeds], rooms),
        state_key=np.array([_hash(seed, room) for seed in task_seeds for room in range(rooms)]),
        anchor=np.array([_hash(heads[i // rooms % tasks], text) for i, text in enumerate(scenes)]),
        scene=np.concatenate([head, room_for_clock, scene], axis=1),
        length=np.count_nonzero(head, axis=1) + clock.shape[1] + np.count_nonzero(scene, axis=1),
        clock=clock,
        actions=np.stack([padded(encode(text), LONGEST_ACTION_TOKENS) for text in grammar.texts]),
    )


def _head(maps: CorridorMap, task: int) -> str:
    return f"task: reach {_room(maps, task, maps.goal[task])}\n"


def _scene(maps: CorridorMap, grammar: Grammar, last: str, task: int, room: int) -> str:
    exits = " | ".join(grammar.texts[name] for name in np.flatnonzero(maps.named_door[task, room] >= 0))
    return f"last: {last}\nsee: {_room(maps, task, room)}\ncan: {exits}"


def _room(maps: CorridorMap, task: int, room: int) -> str:
    width = len(str(maps.label.shape[1] - 1))
    return f"room {maps.label[task, room]:0{width}}"


def _fragments(texts: list[str]) -> np.ndarray:
    rows = [encode(text) for text in texts]
    return np.stack([padded(row, max(map(len, rows))) for row in rows])


def _hash(*parts: object) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
