"""The maps of TextCorridor: rooms, doors, labels, start and goal of every task, drawn from the task's own seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from palaestra.envs.text.vocabulary import SYLLABLES, encode

NUM_NAMES = 6
"""Door names in the catalogue of actions; a room has at most one door fewer, so some action is always inadmissible."""


@dataclass(frozen=True)
class CorridorMap:
    """The maps of `[tasks]` tasks; doors of a room stand in the order of their names.

    Attributes:
        named_door: int64 `[tasks, rooms, NUM_NAMES]`: the room behind the door of each name, or -1.
        doors: int64 `[tasks, rooms, most_doors]`: the rooms behind the doors, -1 after the last.
        degree: int64 `[tasks, rooms]`: number of doors.
        label: int64 `[tasks, rooms]`: the number an agent reads; aliased rooms share one.
        distance: int64 `[tasks, rooms]`: moves to the goal without slips.
        start: int64 `[tasks]`.
        goal: int64 `[tasks]`.
    """

    named_door: np.ndarray
    doors: np.ndarray
    degree: np.ndarray
    label: np.ndarray
    distance: np.ndarray
    start: np.ndarray
    goal: np.ndarray

    def transition(self, targets: np.ndarray, slip: float) -> np.ndarray:
        """Return the law of the next room `[tasks, rooms, actions, rooms]`; rows of inadmissible actions are zero.

        Args:
            targets: int `[tasks, rooms, actions]`: the room that an action leads to, or -1.
            slip: Probability that a door drawn at random takes the place of the chosen one.
        """
        rooms = np.arange(self.label.shape[1])
        chosen = targets[..., None] == rooms
        any_door = (self.doors[..., None] == rooms).sum(axis=2) / self.degree[..., None]
        mixed = (1.0 - slip) * chosen + slip * any_door[:, :, None, :]
        return np.where(targets[..., None] >= 0, mixed, 0.0)


def door_names(name_tokens: tuple[int, ...]) -> tuple[str, ...]:
    """Return the `NUM_NAMES` invented door names, the i-th of `name_tokens[i % len(name_tokens)]` syllables."""
    rng = np.random.Generator(np.random.Philox(key=0))
    names: list[str] = []
    while len(names) < NUM_NAMES:
        length = name_tokens[len(names) % len(name_tokens)]
        name = "".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=length))
        if name not in names and len(encode(name)) == length:
            names.append(name)
    return tuple(names)


def draw_maps(
    shape: Literal["chain", "tree"], rooms: int, loops: int, aliases: int, tasks: int, task_split: str
) -> CorridorMap:
    """Return the maps of tasks 0, ..., `tasks` - 1 of a split; each depends on its own number only.

    Raises:
        ValueError: If there is no place for the loops or the aliases.
    """
    maps = [_draw_map(shape, rooms, loops, aliases, _task_generator(task_split, task)) for task in range(tasks)]
    degree = np.array([[len(doors) for doors in drawn.doors] for drawn in maps])
    doors = np.full((tasks, rooms, int(degree.max())), -1)
    named_door = np.full((tasks, rooms, NUM_NAMES), -1)
    for task, drawn in enumerate(maps):
        for room, by_name in enumerate(drawn.doors):
            for slot, name in enumerate(sorted(by_name)):
                doors[task, room, slot] = named_door[task, room, name] = by_name[name]
    return CorridorMap(
        named_door=named_door,
        doors=doors,
        degree=degree,
        label=np.array([drawn.label for drawn in maps]),
        distance=np.array([drawn.distance for drawn in maps]),
        start=np.array([drawn.start for drawn in maps]),
        goal=np.array([drawn.goal for drawn in maps]),
    )


@dataclass
class _OneMap:
    doors: list[dict[int, int]]
    label: list[int]
    distance: list[int]
    start: int
    goal: int


def _task_generator(task_split: str, task: int) -> np.random.Generator:
    seed = np.random.SeedSequence((zlib.crc32(task_split.encode()), task))
    return np.random.Generator(np.random.Philox(seed))


def _draw_map(shape: str, rooms: int, loops: int, aliases: int, rng: np.random.Generator) -> _OneMap:
    neighbours: list[list[int]] = [[] for _ in range(rooms)]
    for room in range(1, rooms):
        _join(neighbours, room, room - 1 if shape == "chain" else (room - 1) // 2)
    ends = [room for room in range(rooms) if len(neighbours[room]) == 1]
    goal = ends[rng.integers(len(ends))]
    for _ in range(loops):
        _join(neighbours, *_loop_ends(neighbours, loops, rng))
    distance = _distances(neighbours, goal)
    farthest = [room for room in range(rooms) if distance[room] == max(distance)]
    start = farthest[rng.integers(len(farthest))]
    label = [int(number) for number in rng.permutation(rooms)]
    names = [sorted(rng.choice(NUM_NAMES, len(neighbours[room]), replace=False)) for room in range(rooms)]
    if aliases:
        alike = _aliased_rooms(neighbours, goal, aliases, rng)
        for room in alike:
            label[room], names[room] = label[alike[0]], names[alike[0]]
    doors = [
        {int(name): neighbours[room][i] for name, i in zip(names[room], rng.permutation(len(names[room])), strict=True)}
        for room in range(rooms)
    ]
    return _OneMap(doors, label, distance, start, goal)


def _join(neighbours: list[list[int]], a: int, b: int) -> None:
    neighbours[a].append(b)
    neighbours[b].append(a)


def _loop_ends(neighbours: list[list[int]], loops: int, rng: np.random.Generator) -> tuple[int, int]:
    free = [room for room in range(len(neighbours)) if len(neighbours[room]) < NUM_NAMES - 1]
    pairs = [(a, b) for a in free for b in free if a < b and b not in neighbours[a]]
    if not pairs:
        raise ValueError(
            f"TextCorridor: loops={loops}; expected fewer: {len(neighbours)} rooms of at most {NUM_NAMES - 1} doors "
            "have no place for so many"
        )
    return pairs[rng.integers(len(pairs))]


def _distances(neighbours: list[list[int]], goal: int) -> list[int]:
    distance = {goal: 0}
    frontier = [goal]
    for room in frontier:
        for neighbour in neighbours[room]:
            if neighbour not in distance:
                distance[neighbour] = distance[room] + 1
                frontier.append(neighbour)
    return [distance[room] for room in range(len(neighbours))]


def _aliased_rooms(neighbours: list[list[int]], goal: int, aliases: int, rng: np.random.Generator) -> list[int]:
    """Rooms that can look the same: as many doors each, and not the goal, where nothing is decided."""
    by_degree: dict[int, list[int]] = {}
    for room in range(len(neighbours)):
        if room != goal:
            by_degree.setdefault(len(neighbours[room]), []).append(room)
    largest = max(by_degree.values(), key=len)
    if len(largest) < aliases:
        raise ValueError(
            f"TextCorridor: aliases={aliases}; expected at most {len(largest)}, the rooms with equally many doors"
        )
    return [int(room) for room in rng.choice(largest, aliases, replace=False)]
