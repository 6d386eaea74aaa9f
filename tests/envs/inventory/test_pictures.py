"""Pictures of stock, at one moment and over time."""

from __future__ import annotations

import numpy as np
import pytest

from palaestra.envs import rendering
from palaestra.envs.inventory.lot_sizing import LotSizing, PlantState
from palaestra.envs.inventory.newsvendor import DayState, Newsvendor
from palaestra.envs.inventory.one_store_lost import OneStoreLost
from palaestra.envs.inventory.serial import Serial
from palaestra.envs.inventory.supply_network import NetworkState, SupplyNetwork
from palaestra.envs.inventory.timeline import timeline
from palaestra.envs.noise import draw_tape


def colored(picture: np.ndarray, color: rendering.Color) -> np.ndarray:
    return (picture == color).all(axis=-1)


def two_nodes() -> tuple[SupplyNetwork, NetworkState]:
    world = SupplyNetwork(
        [(None, "hub", 2), ("hub", "shop", 3)], {"hub": 0.5, "shop": 1.0}, {"shop": 9.0}, {"shop": 5.0}, {"shop": 1.0}
    )
    # Hub, shop, one period ahead (shop, hub), two ahead (shop).
    state = NetworkState(np.array([[4.0, -2.0, 1.5, 7.0, 3.0]]), np.array([[7.0, 3.0]]), np.array([[5.25]]))
    return world, state


def test_text_of_a_network():
    world, state = two_nodes()
    assert world.render(state, mode="ansi") == (
        "hub  | on hand 4.0 | coming 7.0 | last inflow 7.0\n"
        "shop | on hand -2.0 | coming 1.5 3.0 | last inflow 3.0 | last demand 5.2"
    )
    with pytest.raises(ValueError, match="mode='human'"):
        world.render(state, mode="human")


def test_bars_of_a_network():
    world, state = two_nodes()
    picture = world.render(state)
    blue, red = colored(picture, rendering.BLUE), colored(picture, rendering.RED)
    orange = colored(picture, rendering.ORANGE)
    # The shop's row is the lower one; of its backlog the bar hangs below the line on which the others stand.
    assert red.any()
    assert np.argwhere(red)[:, 0].min() >= np.argwhere(orange)[:, 0].max()
    heights = {row: blue[row - 60 : row].sum() for row in (78, 136)}
    assert all(height > 0 for height in heights.values())
    assert picture.shape[0] == 20 + 2 * 58


@pytest.mark.parametrize("world", [Serial(), OneStoreLost(3)], ids=["serial", "store"])
def test_timeline(world):
    picture = timeline(world, world.expert("optimal"), seed=3, periods=25, skip=20)
    nodes = len(world.network.nodes)
    assert picture.dtype == np.uint8
    assert picture.shape == (74 * (nodes + 1) + 8, 128 + 7 * 25 + 8, 3)
    for color in (rendering.BLUE, rendering.PALE, rendering.ORANGE, rendering.GREEN, rendering.RED):
        if color is rendering.RED and not colored(picture, color).any():
            continue
        assert colored(picture, color).any()
    # The same run is the same picture; a policy that never orders is another, with nothing but shortages at its end.
    np.testing.assert_array_equal(picture, timeline(world, world.expert("optimal"), seed=3, periods=25, skip=20))
    starved = timeline(world, lambda *_: np.full((1, *world.action_space.shape), -1.0), seed=3, periods=25, skip=20)
    costs = starved[74 * nodes :]
    assert colored(costs, rendering.RED).sum() > 20 * colored(costs, rendering.BLUE).sum()


def test_timeline_needs_a_network():
    with pytest.raises(TypeError, match="Newsvendor has no network"):
        timeline(Newsvendor(), Newsvendor().expert("optimal"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="periods=0"):
        timeline(Serial(), Serial().expert("optimal"), periods=0)


def test_newsvendor_day():
    world = Newsvendor()
    state = DayState(np.array([9.0]), np.array([6.0]))
    assert world.render(state, mode="ansi") == "last order 6.0 | last demand 9.0 | left -3.0"
    short = colored(world.render(state), rendering.RED)
    assert np.argwhere(short)[:, 0].min() >= 130
    left = world.render(DayState(np.array([2.0]), np.array([6.0])))
    assert colored(left, rendering.GREEN).any()
    assert not colored(left, rendering.RED).any()


def test_plant():
    world = LotSizing("easy")
    state = PlantState(np.array([[3.0, 1.0]]), np.array([[2]]), np.array([4]), np.array([[1.0, 0.0]]))
    assert world.render(state, mode="ansi") == "period 4 | stock 3/3 1/3 | machines make 2"
    blue = colored(world.render(state), rendering.BLUE)
    first, second = blue[:, 12:30].sum(), blue[:, 38:56].sum()
    assert first == pytest.approx(3 * second, rel=0.1)
    idle = PlantState(state.inventory, np.array([[0]]), state.period, state.last_demand)
    assert not colored(world.render(idle), rendering.GREEN).any()
    assert world.render(world.initial(draw_tape([1], 1).at(0)), mode="rgb_array").shape[2] == 3
