"""Random episodes of MiniGrid's own envs, stepped beside ours from the same levels by the same actions."""

from __future__ import annotations

import contextlib
import io
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
from minigrid.core.constants import DIR_TO_VEC

from palaestra.envs.grid.minigrid_levels import from_minigrid
from palaestra.envs.grid.world import GridState, GridWorld
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import map_arrays

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)


@dataclass
class Walker:
    """Chooses actions that make things happen: it walks to a thing, a door or the goal, and does something there."""

    rng: np.random.Generator
    goal: tuple[int, int] | None = None
    patience: int = 0

    def action(self, env: Any) -> int:
        rng = self.rng
        if rng.random() < 0.25:
            return int(rng.integers(7))
        front = env.grid.get(*env.front_pos)
        if front is not None and front.type != "wall" and rng.random() < 0.7:
            apt = {
                "door": [TOGGLE, FORWARD],
                "box": [PICK_UP, TOGGLE],
                "goal": [FORWARD],
                "lava": [LEFT, RIGHT, FORWARD],
            }
            return int(rng.choice(apt.get(front.type, [PICK_UP])))
        if env.carrying is not None and front is None and rng.random() < 0.05:
            return DROP
        return self._towards(env)

    def _towards(self, env: Any) -> int:
        """The next action on a shortest way to a cell of interest, or a random move where there is none."""
        self.patience -= 1
        if self.goal is None or self.patience < 0:
            cells = [
                (x, y)
                for x in range(env.width)
                for y in range(env.height)
                if env.grid.get(x, y) is not None and env.grid.get(x, y).type not in ("wall", "lava")
            ]
            self.goal = cells[self.rng.integers(len(cells))] if cells else None
            self.patience = 30
        step = None if self.goal is None else first_step(env, self.goal)
        if step is None:
            self.goal = None
            return int(self.rng.choice([LEFT, RIGHT, FORWARD, FORWARD]))
        turn = (step - env.agent_dir) % 4
        return FORWARD if turn == 0 else RIGHT if turn in (1, 2) else LEFT


def first_step(env: Any, goal: tuple[int, int]) -> int | None:
    """Direction of the first step on a shortest way to a cell; things but the goal itself block it."""
    start = tuple(int(part) for part in env.agent_pos)
    seen, queue = {goal: 0}, deque([goal])
    while queue:
        here = queue.popleft()
        for direction, (dx, dy) in enumerate(DIR_TO_VEC):
            there = (here[0] - int(dx), here[1] - int(dy))
            if there == start:
                return direction
            if there in seen or not (0 <= there[0] < env.width and 0 <= there[1] < env.height):
                continue
            cell = env.grid.get(*there)
            if cell is None or cell.type == "door":
                seen[there] = 0
                queue.append(there)
    return None


def events_of_equal_episodes(env_id: str, world: GridWorld, episodes: int, seed: int, rows: int = 16) -> Counter[str]:
    """Play episodes in both, demand that all they show is equal, and count what happened."""
    # BabyAI prints every level that it throws away.
    with contextlib.redirect_stdout(io.StringIO()):
        return _events(env_id, world, episodes, seed, rows)


def _events(env_id: str, world: GridWorld, episodes: int, seed: int, rows: int) -> Counter[str]:
    envs = [gym.make(env_id, disable_env_checker=True).unwrapped for _ in range(rows)]
    walkers = [Walker(np.random.default_rng([seed, row])) for row in range(rows)]
    events: Counter[str] = Counter()
    seeds = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000))
    states = []
    for env in envs:
        env.reset(seed=next(seeds))
        states.append(from_minigrid(world, env))
    state = map_arrays(lambda *arrays: np.concatenate(arrays), *states)
    compare_observations(world, state, [env.gen_obs() for env in envs])
    key = CounterKey(np.zeros(rows, np.int64))
    while events["episodes"] < episodes:
        actions = [walker.action(env) for walker, env in zip(walkers, envs, strict=True)]
        before = [before_step(env, action) for env, action in zip(envs, actions, strict=True)]
        outcomes = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        transition = world.step(state, np.array(actions), key)
        state = transition.state
        compare_observations(world, state, [outcome[0] for outcome in outcomes])
        np.testing.assert_array_equal(transition.reward, [float(outcome[1]) for outcome in outcomes])
        np.testing.assert_array_equal(transition.terminated, [outcome[2] for outcome in outcomes])
        np.testing.assert_array_equal(state.elapsed >= world.horizon, [outcome[3] for outcome in outcomes])
        events["steps"] += rows
        for row, (env, outcome) in enumerate(zip(envs, outcomes, strict=True)):
            events.update(after_step(env, actions[row], *before[row], outcome))
            if outcome[2] or outcome[3]:
                events["episodes"] += 1
                env.reset(seed=next(seeds))
                walkers[row].goal = None
                fresh = from_minigrid(world, env)
                for name, array in vars(state).items():
                    array[row] = getattr(fresh, name)[0]
    return events


def compare_observations(world: GridWorld, state: GridState, theirs: list[dict[str, Any]]) -> None:
    ours = world.observe(state)
    np.testing.assert_array_equal(ours["image"], [observation["image"] for observation in theirs])
    np.testing.assert_array_equal(ours["direction"], [observation["direction"] for observation in theirs])
    assert [world.missions.texts[number] for number in state.mission] == [o["mission"] for o in theirs]


def before_step(env: Any, action: int) -> tuple[str, str, bool]:
    """What the step is about to meet: the kind of the cell ahead, a door's state, whether the hand is full."""
    front = env.grid.get(*env.front_pos)
    kind = "nothing" if front is None else front.type
    door = "" if kind != "door" else "open" if front.is_open else "locked" if front.is_locked else "closed"
    return kind, door, env.carrying is not None


def after_step(env: Any, action: int, kind: str, door: str, full: bool, outcome: Any) -> list[str]:
    happened = []
    if action == PICK_UP and not full and env.carrying is not None:
        happened.append(f"{kind} picked up")
    if action == PICK_UP and full and kind in ("key", "ball", "box"):
        happened.append("hand full")
    if action == DROP and full:
        happened.append("dropped" if env.carrying is None else "no room to drop")
    if action == TOGGLE and kind == "box":
        happened.append("box opened")
    if action == TOGGLE and kind == "door":
        front = env.grid.get(*env.front_pos)
        now = "open" if front.is_open else "locked" if front.is_locked else "closed"
        happened.append(f"door {door} to {now}")
    if action == FORWARD:
        happened.append(f"walked into {kind} {door}".strip())
    if outcome[2]:
        happened.append("success" if outcome[1] > 0 else "failure")
    elif outcome[3]:
        happened.append("out of time")
    return happened
