"""Drawing levels: fair choices, tries that do not depend on the batch, reach, and rooms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from palaestra.envs.grid import reach
from palaestra.envs.grid.cells import BALL, CLOSED_DOOR, EMPTY, KEY, LOCKED_DOOR, WALL
from palaestra.envs.grid.level import Level, LevelDraws, draw_levels, other_than
from palaestra.envs.grid.rooms import DOWN, LEFT, RIGHT, UP, Draft, floor_plan
from palaestra.envs.noise import CounterKey


def test_choices_are_uniform_among_the_true() -> None:
    rows = 6000
    draws = LevelDraws(np.arange(rows), 0, ahead=4)
    mask = np.tile([False, True, True, False, True], (rows, 1))
    index, found = draws.choose(mask)
    assert found.all()
    assert chisquare(np.bincount(index, minlength=5)[[1, 2, 4]]).pvalue > 1e-3
    assert not np.isin(index, (0, 3)).any()
    index, found = draws.choose(mask & (np.arange(rows) % 2 == 0)[:, None])
    np.testing.assert_array_equal(found, np.arange(rows) % 2 == 0)


def test_numbers_are_new_each_time_and_independent() -> None:
    draws = LevelDraws(np.arange(4000), 0, ahead=2)
    numbers = np.stack([draws.uniform() for _ in range(5)])
    assert len(np.unique(numbers)) == numbers.size
    assert np.abs(np.corrcoef(numbers) - np.eye(5)).max() < 0.08
    several = draws.uniform(7)
    assert several.shape == (4000, 7)
    assert not np.isin(several, numbers).any()
    low, high = draws.among(3, 5)
    assert chisquare(np.bincount(low * 5 + high, minlength=15)).pvalue > 1e-3
    # The same rows elsewhere in a batch draw the same.
    again = LevelDraws(np.arange(100, 110), 0, ahead=2)
    np.testing.assert_array_equal(np.stack([again.uniform() for _ in range(5)]), numbers[:, 100:110])


def test_all_but_one_are_drawn_evenly() -> None:
    np.testing.assert_array_equal(other_than(np.arange(4), np.full(4, 2)), [0, 1, 3, 4])


def picky(draws: LevelDraws) -> Level:
    """Valid in one try of eight; the level says which number made it so."""
    number = draws.below(8000)
    return Level(np.zeros((draws.batch, 4), np.uint8), number, draws.full(0), draws.full(0), number < 1000)


def test_the_first_valid_try_counts_whatever_the_batch() -> None:
    whole = draw_levels(picky, 2, CounterKey(np.arange(600)))
    assert whole.valid.all()
    assert (whole.place < 1000).all()
    for rows in (np.arange(3, 4), np.arange(100, 400), np.arange(7, 600, 11)):
        np.testing.assert_array_equal(draw_levels(picky, 2, CounterKey(rows)).place, whole.place[rows])
    # Tries come one after another: the first of a row is the one that a single draw makes.
    words = CounterKey(np.arange(600)).integers("level", 2**31, (2,))
    first = picky(LevelDraws((words[:, 0] << 31) | words[:, 1], 0, 2))
    assert 40 < first.valid.sum() < 120
    np.testing.assert_array_equal(whole.place[first.valid], first.place[first.valid])


def test_worlds_without_valid_levels_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palaestra.envs.grid.level._MAX_TRIES", 1000)

    def never(draws: LevelDraws) -> Level:
        level = picky(draws)
        return Level(level.cells, level.place, level.direction, level.mission, level.place < 0)

    with pytest.raises(RuntimeError, match="no valid level in 1000 tries; expected a roomier world"):
        draw_levels(never, 2, CounterKey([1, 2]))


def flooded(cells: np.ndarray, place: int) -> bool:
    """The same question by a plain search."""
    width, height = cells.shape
    seen, stack = set(), [divmod(place, height)]
    while stack:
        x, y = stack.pop()
        if (x, y) in seen or not (0 <= x < width and 0 <= y < height):
            continue
        seen.add((x, y))
        if cells[x, y] == EMPTY or CLOSED_DOOR <= cells[x, y] < LOCKED_DOOR + 6:
            stack += [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
    things = zip(*np.nonzero((cells != EMPTY) & (cells != WALL)), strict=True)
    return all((int(x), int(y)) in seen for x, y in things)


def test_reach_is_what_a_search_finds() -> None:
    rng = np.random.default_rng(0)
    contents = np.array([EMPTY, WALL, KEY + 1, BALL + 2, CLOSED_DOOR, LOCKED_DOOR + 3])
    cells = np.full((400, 8, 7), WALL, np.uint8)
    cells[:, 1:-1, 1:-1] = rng.choice(contents, (400, 6, 5), p=[0.55, 0.3, 0.05, 0.05, 0.025, 0.025])
    cells[:, 3, 3] = EMPTY
    place = np.full(400, 3 * 7 + 3)
    expected = [flooded(grid, 24) for grid in cells]
    assert 40 < sum(expected) < 360
    np.testing.assert_array_equal(reach.all_reached(cells, place), expected)
    tensors = torch.as_tensor(cells), torch.as_tensor(place)
    np.testing.assert_array_equal(reach.all_reached(*tensors).numpy(), expected)


def test_plans_join_every_room_with_its_neighbours() -> None:
    plan = floor_plan(2, 3, 5)
    assert (plan.width, plan.height, len(plan.edge_rooms)) == (13, 9, 7)
    for room in range(6):
        assert plan.room(room % 3, room // 3) == room
        for side, (other, exists) in {
            RIGHT: (room + 1, room % 3 < 2),
            DOWN: (room + 3, room < 3),
            LEFT: (room - 1, room % 3 > 0),
            UP: (room - 3, room > 2),
        }.items():
            edge = plan.edge_of[room, side]
            assert (edge >= 0) == exists
            if exists:
                assert set(plan.edge_rooms[edge]) == {room, other}
                assert np.isin(plan.edge_cells[edge], plan.room_cells[room]).all()
                assert np.isin(plan.edge_cells[edge], plan.room_cells[other]).all()
    assert (plan.walls.reshape(-1)[plan.inner_cells] == EMPTY).all()
    assert (plan.walls == EMPTY).sum() == plan.inner_cells.size


def test_connected_rooms_are_a_graph_without_parts_and_skip_the_locked_room() -> None:
    plan = floor_plan(3, 3, 4)
    draft = Draft(LevelDraws(np.arange(300), 0, ahead=64), plan)
    draft.add_door(4, RIGHT, locked=True)
    draft.connect_all()
    assert draft.valid.all()
    doors = draft.joined.sum(axis=1)
    # A tree has eight; the others were added before the last part was joined.
    assert (doors.min(), doors.max() <= 9) == (8, True)
    for row in range(300):
        reached = {0}
        for _ in range(9):
            for edge in np.flatnonzero(draft.joined[row]):
                if reached & set(plan.edge_rooms[edge]):
                    reached |= set(plan.edge_rooms[edge])
        assert len(reached) == 9
        assert sum(4 in plan.edge_rooms[edge] for edge in np.flatnonzero(draft.joined[row])) == 1
    kinds = draft.cells[np.arange(300)[:, None], draft.door_place]
    np.testing.assert_array_equal((kinds >= CLOSED_DOOR) & (kinds < LOCKED_DOOR + 6), draft.joined)


def test_what_finds_no_place_makes_the_level_invalid() -> None:
    plan = floor_plan(1, 1, 4)
    draft = Draft(LevelDraws(np.arange(50), 0, ahead=64), plan)
    draft.place_agent()
    # Two cells of four are next to the agent, one is its own: one thing fits.
    draft.place_thing(0, draft.draws.full(3))
    assert draft.valid.all()
    draft.place_thing(0, draft.draws.full(4))
    assert not draft.valid.any()
    assert ((draft.cells >= KEY) & (draft.cells < BALL)).sum() == 50
