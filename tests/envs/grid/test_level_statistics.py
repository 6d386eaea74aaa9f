"""Our levels are distributed as MiniGrid's, by chi-square tests of homogeneity on all that can be read off a level."""

from __future__ import annotations

import numpy as np
import pytest

from palaestra.envs.grid.cells import EMPTY, KEY
from palaestra.envs.grid.door_key import DoorKey
from palaestra.envs.grid.level import Level, LevelDraws
from palaestra.envs.grid.worlds import MINIGRID_IDS
from palaestra.envs.registration import build_simulator
from tests.envs.grid.level_statistics import our_levels, p_values, their_levels

QUICK = (
    "BabyAI-ActionObjDoor-v0",
    "BabyAI-GoToLocalS6N4-v0",
    "BabyAI-GoToRedBallGrey-v0",
    "BabyAI-OpenDoor-v0",
    "BabyAI-PickupDist-v0",
    "BabyAI-PickupLoc-v0",
    "BabyAI-UnlockPickupDist-v0",
    "BabyAI-UnlockToUnlock-v0",
    "MiniGrid-BlockedUnlockPickup-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-Empty-Random-5x5-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-KeyCorridorS3R3-v0",
    "MiniGrid-LavaCrossingS9N3-v0",
    "MiniGrid-MultiRoom-N2-S4-v0",
    "MiniGrid-ObstructedMaze-1Dlhb-v0",
    "MiniGrid-SimpleCrossingS11N5-v0",
    "MiniGrid-Unlock-v0",
)
FAMILIES = tuple(
    sorted(
        {
            *QUICK,
            "BabyAI-FindObjS5-v0",
            "BabyAI-GoTo-v0",
            "BabyAI-GoToDoor-v0",
            "BabyAI-GoToImpUnlock-v0",
            "BabyAI-GoToObjDoor-v0",
            "BabyAI-GoToObjMazeOpen-v0",
            "BabyAI-GoToRedBlueBall-v0",
            "BabyAI-KeyCorridorS4R3-v0",
            "BabyAI-KeyInBox-v0",
            "BabyAI-OneRoomS8-v0",
            "BabyAI-Open-v0",
            "BabyAI-OpenDoorLoc-v0",
            "BabyAI-OpenRedDoor-v0",
            "BabyAI-Pickup-v0",
            "BabyAI-PickupAbove-v0",
            "BabyAI-UnblockPickup-v0",
            "BabyAI-Unlock-v0",
            "BabyAI-UnlockLocalDist-v0",
            "MiniGrid-MultiRoom-N6-v0",
            "MiniGrid-UnlockPickup-v0",
        }
    )
)
LEVEL = 1e-6
"""Significance of one test; there are some thousand, with fixed seeds."""


def assert_alike(env_id: str, count: int, seed: int) -> None:
    row = MINIGRID_IDS[env_id]
    world = build_simulator(row.simulator, **row.kwargs)
    found = p_values(our_levels(world, count, seed), their_levels(env_id, count, seed))  # type: ignore[arg-type]
    assert len(found) >= 2
    assert {name: value for name, value in found.items() if value < LEVEL} == {}


@pytest.mark.parametrize("env_id", QUICK)
def test_levels_are_alike(env_id: str) -> None:
    assert_alike(env_id, 1000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", FAMILIES)
def test_ten_thousand_levels_are_alike(env_id: str) -> None:
    assert_alike(env_id, 10_000, seed=2)


class CarelessDoorKey(DoorKey):
    """Never lays the key into the last row: a difference that the tests must find."""

    def draw_level(self, draws: LevelDraws) -> Level:
        level = super().draw_level(draws)
        grid = level.cells.reshape(-1, self.width, self.height)
        key = (grid & 127 >= KEY) & (grid & 127 < KEY + 6)
        spoilt = key[:, 1, -2] & (level.place != 2 * self.height - 3)
        grid[spoilt, 1, -3] = np.where(grid[spoilt, 1, -3] == EMPTY, grid[spoilt, 1, -2], grid[spoilt, 1, -3])
        grid[spoilt, 1, -2] = EMPTY
        return level


def test_a_small_difference_is_found() -> None:
    found = p_values(our_levels(CarelessDoorKey(6), 2000, 1), their_levels("MiniGrid-DoorKey-6x6-v0", 2000, 1))
    assert min(found.values()) < LEVEL
