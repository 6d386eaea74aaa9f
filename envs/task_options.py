"""Which task an episode is of, and which noise it meets: the options of `reset` of worlds that have numbered tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from palaestra.envs.noise import MAX_SEED


@dataclass(frozen=True)
class TaskChoice:
    """Tasks `[batch]` of the episodes to begin, and the seeds `[batch]` of their noise where members were named."""

    tasks: np.ndarray
    seeds: np.ndarray | None


def read_task_options(world: str, num_tasks: int, options: Mapping[str, Any] | None, rows: int) -> TaskChoice | None:
    """Return what `reset(options=...)` chooses, or None where it leaves all to the world.

    `{"task_seed": q}` begins an episode of task q in every row; `{"task_seed": q, "member": m}` also lets the noise be
    that of stream (q, m), whatever the seed, so that a group shares the task but not the noise. Both may be lists, one
    entry for each row.

    Args:
        world: Name of the world, for errors.
        num_tasks: Tasks that the world has; 0 where it has none.
        options: As given to `reset`.
        rows: Number of rows.

    Raises:
        ValueError: If the options hold anything else, or numbers out of range.
    """
    if not options:
        return None
    if num_tasks == 0:
        raise ValueError(f"{world}: reset with options={options!r}; expected None: this world takes none")
    if not {"task_seed"} <= set(options) <= {"task_seed", "member"}:
        raise ValueError(f"{world}: reset with options={options!r}; expected 'task_seed' and, if wanted, 'member'")
    tasks = _numbers(world, "task_seed", options["task_seed"], rows, num_tasks - 1)
    if "member" not in options:
        return TaskChoice(tasks, None)
    members = _numbers(world, "member", options["member"], rows, MAX_SEED)
    words = [np.random.SeedSequence(pair).generate_state(1, np.uint64)[0] for pair in zip(tasks, members, strict=True)]
    return TaskChoice(tasks, np.array([int(word) & MAX_SEED for word in words], dtype=np.int64))


def _numbers(world: str, name: str, value: Any, rows: int, highest: int) -> np.ndarray:
    numbers = np.asarray(value)
    fits = numbers.dtype.kind in "iu" and numbers.shape in ((), (rows,))
    if not fits or int(numbers.min()) < 0 or int(numbers.max()) > highest:
        raise ValueError(
            f"{world}: reset with options[{name!r}]={value!r}; expected an integer from 0 to {highest}, "
            f"or {rows} of them"
        )
    return np.broadcast_to(numbers.astype(np.int64), (rows,)).copy()
