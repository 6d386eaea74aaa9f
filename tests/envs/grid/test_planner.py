"""The planner takes a shortest way: against a search over the true dynamics that knows nothing of keys and doors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palaestra.envs.grid.crossing import Crossing
from palaestra.envs.grid.door_key import DoorKey
from palaestra.envs.grid.dynamics import DONE
from palaestra.envs.grid.empty import Empty
from palaestra.envs.grid.four_rooms import FourRooms
from palaestra.envs.grid.multi_room import MultiRoom
from palaestra.envs.grid.planner import NEVER, Planner, make_plan
from palaestra.envs.grid.unlock import Unlock
from palaestra.envs.grid.world import GridState, GridWorld
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import episode_returns
from palaestra.envs.simulator import map_arrays, take_rows

WORLDS = [
    (Empty(5), 40),
    (DoorKey(5), 25),
    (DoorKey(6), 4),
    (Crossing(7, 3), 25),
    (Crossing(7, 3, "wall"), 25),
    (FourRooms(), 4),
    (MultiRoom(2, 4), 8),
    (Unlock(), 3),
]


def shortest_by_search(world: GridWorld, start: GridState) -> int:
    """Number of steps to the first success, by a breadth-first search with all seven actions."""
    frontier, seen, steps = start, {int(world.state_key(start)[0])}, 0
    while len(frontier.place):
        steps += 1
        rows = np.repeat(np.arange(len(frontier.place)), 7)
        actions = np.tile(np.arange(7), len(frontier.place))
        transition = world.step(take_rows(frontier, rows), actions, CounterKey(rows))
        if (transition.reward > 0).any():
            return steps
        keys = world.state_key(transition.state)
        _, first = np.unique(keys, return_index=True)
        fresh = [index for index in first if not transition.terminated[index] and int(keys[index]) not in seen]
        seen.update(int(keys[index]) for index in fresh)
        frontier = take_rows(transition.state, np.array(fresh, int))
    return NEVER


@pytest.mark.parametrize(("world", "levels"), WORLDS)
def test_no_way_is_shorter(world: GridWorld, levels: int) -> None:
    state = world.initial(CounterKey(np.arange(levels)))
    expected = [shortest_by_search(world, take_rows(state, slice(row, row + 1))) for row in range(levels)]
    planner, taken = world.expert("planner"), np.zeros(levels, int)
    for step in range(1, max(expected) + 1):
        transition = world.step(state, planner(state, None, CounterKey(np.arange(levels))), CounterKey([0] * levels))
        taken[(taken == 0) & (transition.reward > 0)] = step
        state = transition.state
    np.testing.assert_array_equal(taken, expected)


def test_plans_go_on_from_where_a_stranger_left_off() -> None:
    """Key carried, key dropped elsewhere, door opened and shut again: from each the goal is reached."""
    world, rows = DoorKey(6), 60
    state = world.initial(CounterKey(np.arange(rows)))
    for step in range(1, 120):
        state = world.step(state, CounterKey(np.arange(rows), step=step).integers("any", 6), CounterKey([0])).state
    planner, done = Planner(), np.zeros(rows, bool)
    for _ in range(40):
        transition = world.step(state, planner(state, None, CounterKey(np.arange(rows))), CounterKey([0]))
        done |= transition.reward > 0
        state = transition.state
    # A key that was dropped into the doorway or beyond a shut door is still fetched; none of these levels is lost.
    assert done.all()


def test_where_there_is_no_way_nothing_is_done() -> None:
    world = DoorKey(5)
    state = world.initial(CounterKey([1]))
    cells = state.cells.copy()
    cells[(cells & 127 >= 4) & (cells & 127 < 10)] = 1
    lost = map_arrays(lambda array: array, state)
    lost = type(state)(
        cells, *(getattr(lost, name) for name in ("place", "direction", "carried", "elapsed", "mission"))
    )
    assert make_plan(cells, np.array([False])).steps[0, state.place[0], 0] >= NEVER
    np.testing.assert_array_equal(Planner()(lost, None, CounterKey([0])), [DONE])


def test_torch_plans_the_same() -> None:
    world = DoorKey()
    ours, theirs = world.initial(CounterKey(np.arange(30))), world.initial(CounterKey(torch.arange(30)))
    actions = Planner()(ours, None, CounterKey(np.arange(30)))
    np.testing.assert_array_equal(Planner()(theirs, None, CounterKey(torch.arange(30))).numpy(), actions)


@pytest.mark.parametrize(
    "world", [Empty(5), Empty(6, random_start=False), Empty(5, observation="full"), DoorKey(5), DoorKey(6)]
)
def test_oracles_are_the_planners_mean_returns(world: GridWorld) -> None:
    oracle = world.oracle()
    assert oracle is not None
    returns = episode_returns(world, world.expert("planner"), np.arange(2000), 1)
    error = returns.std() / np.sqrt(returns.size)
    assert abs(returns.mean() - oracle.value) <= 4.0 * error + 1e-12
    exact = isinstance(world, Empty) and (not world.random_start or world.observation == "full")
    assert oracle.kind == ("optimum" if exact else "bound")


def test_a_short_time_limit_lowers_the_oracle() -> None:
    oracle = Empty(8, random_start=False, max_steps=11).oracle()
    assert oracle.value == pytest.approx(1.0 - 0.9)
    assert Empty(8, random_start=False, max_steps=10).oracle().value == 0.0
