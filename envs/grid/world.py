"""The grid world: everything that MiniGrid's worlds share, batched; each world adds how its levels are drawn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.checks import check_count
from palaestra.envs.grid.cells import EMPTY, NUM_CODES, TARGET
from palaestra.envs.grid.drawing import ansi_picture, picture
from palaestra.envs.grid.dynamics import (
    ACTIONS,
    CELL,
    FACED_TARGET,
    HAND_CLASS,
    HANDS,
    MOVE_BIT,
    OUTCOME,
    SWAP_BIT,
    TURN_BIT,
)
from palaestra.envs.grid.level import Level, LevelDraws, draw_levels
from palaestra.envs.grid.missions import MISSION_TOKENS, Missions
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.view import DIRECTIONS, VIEW, full_view, partial_view
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import Simulator
from palaestra.envs.text.vocabulary import VOCABULARY_SIZE
from palaestra.protocols import Actor, Array, Key, Transition

Observation = Literal["partial", "full"]
MissionMode = Literal["tokens", "text"]
PRINTABLE = "".join(map(chr, range(32, 127)))


@dataclass(frozen=True)
class GridState:
    """One world a row.

    Attributes:
        cells: Codes of `palaestra.envs.grid.cells`, uint8 `[batch, width, height]`.
        place: The agent's cell, `x * height + y`, int64 `[batch]`.
        direction: 0 right, 1 down, 2 left, 3 up, int64 `[batch]`.
        carried: Code of what the hand holds, `EMPTY` for nothing, int64 `[batch]`.
        elapsed: Steps taken, int64 `[batch]`.
        mission: Number of the mission, int64 `[batch]`.
    """

    cells: Array
    place: Array
    direction: Array
    carried: Array
    elapsed: Array
    mission: Array


class GridWorld(Simulator[GridState]):
    """A grid of cells, an agent that turns, walks, carries one thing and opens doors, and a mission.

    All rules are MiniGrid's, step by step (Chevalier-Boisvert et al., "Minigrid & Miniworld: modular and customizable
    reinforcement learning environments for goal-oriented tasks", NeurIPS 2023); a subclass adds how levels are drawn.

    **Observation**: `Dict(direction, image, mission)`. `direction`: `Discrete(4)`: right, down, left, up. `image`:
    uint8 `[7, 7, 3]`, the cells ahead, column (left to right) before row (far to near), each as (type, colour, state)
    in MiniGrid's numbers; the agent stands at [3, 6], where what it carries shows; what walls and closed doors hide is
    (0, 0, 0). With `observation="full"` it is the whole grid `[width, height, 3]` with the agent as (10, 0, direction),
    as MiniGrid's `FullyObsWrapper` gives it. `mission`: int32 `[32]`, the tokens of the text in the suite's vocabulary,
    padded with 0, as `EncodeText` makes of MiniGrid's; with `mission="text"` the text.
    **Action**: `Discrete(7)`: 0 turn left, 1 turn right, 2 forward, 3 pick up, 4 drop, 5 toggle, 6 nothing; all always
    admissible, and without effect where they make no sense.
    **Reward**: `1 - 0.9 * steps / max_steps` in the step that fulfils the mission, 0 in all others.
    **End**: terminated by success, by lava, and by a strict mission's failure; truncated after `max_steps` steps.
    A step that does both counts as terminated (MiniGrid reports both).
    **Info**: empty.

    Args:
        width, height: Cells.
        max_steps: Steps after which the face truncates the episode, at least 1.
        missions: What the agent may be told.
        observation: "partial" or "full".
        mission: "tokens" or "text".
        see_through: Whether walls and doors let the view pass.

    Raises:
        ValueError: If an argument is outside its range.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    draws: ClassVar[tuple[str, ...]] = ("level", "policy")
    starts_ahead: ClassVar[int] = 256
    draws_per_level: int = 8

    def __init__(
        self,
        width: int,
        height: int,
        max_steps: int,
        missions: Missions,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
        see_through: bool = False,
    ) -> None:
        name = type(self).__name__
        if observation not in ("partial", "full"):
            raise ValueError(f"{name}: observation={observation!r}; expected 'partial' or 'full'")
        if mission not in ("tokens", "text"):
            raise ValueError(f"{name}: mission={mission!r}; expected 'tokens' or 'text'")
        self.width, self.height, self.missions, self.see_through = width, height, missions, see_through
        self.horizon = self.max_steps = check_count(name, "max_steps", max_steps)
        self.observation = observation
        cells = (VIEW, VIEW) if observation == "partial" else (width, height)
        said: gym.Space[Any] = gym.spaces.Box(0, VOCABULARY_SIZE - 1, (MISSION_TOKENS,), np.int32)
        if mission == "text":
            said = gym.spaces.Text(max(map(len, missions.texts)), charset=PRINTABLE)
        self.observation_space = gym.spaces.Dict(
            {
                "direction": gym.spaces.Discrete(4),
                "image": gym.spaces.Box(0, 255, (*cells, 3), np.uint8),
                "mission": said,
            }
        )
        self.action_space = gym.spaces.Discrete(len(ACTIONS))

    @abstractmethod
    def draw_level(self, draws: LevelDraws) -> Level:
        """Return one try at a level for every row of the draws."""

    def initial(self, key: Key) -> GridState:
        """Return the start of an episode on a level drawn at random for every row."""
        level = draw_levels(self.draw_level, self.draws_per_level, key)
        zero = 0 * level.place
        cells = namespace_of(level.cells).reshape(level.cells, (-1, self.width, self.height))
        return GridState(cells, level.place, level.direction, zero + EMPTY, zero, level.mission)

    def step(self, state: GridState, action: Array, key: Key) -> Transition[GridState]:
        """Return the transition of every row.

        Args:
            state: The present state.
            action: int64 `[batch]`.
            key: Not used: given the level, nothing is random.
        """
        place, direction, carried = state.place, state.direction, state.carried
        xp = namespace_of(place)
        area = self.width * self.height
        first = xp.arange(0, place.shape[0] * area, area, device=place.device)
        strides = table_on(_strides(self.height), place)
        before = xp.reshape(state.cells, (-1,))
        ahead = strides[direction]
        at = first + (place + ahead)
        content = xp.astype(before[at], xp.int64)
        hand = table_on(HAND_CLASS, place)[carried]
        outcome = table_on(OUTCOME, place)[(action * HANDS + hand) * NUM_CODES + content]
        gained = (outcome >> SWAP_BIT & 1) * (content - carried)
        cells = xp.asarray(state.cells, copy=True)
        xp.reshape(cells, (-1,))[at] = xp.astype((outcome & CELL) - gained, xp.uint8)
        place = place + ahead * (outcome >> MOVE_BIT & 1)
        direction = direction + (outcome >> TURN_BIT) & 3
        if self.missions.go:
            # What stood there before the step counts, as in BabyAI: an object taken away in the first step too.
            faced = before[first + (place + strides[direction])] >= TARGET
            outcome = outcome + xp.astype(faced, xp.int64) * FACED_TARGET
        elapsed = state.elapsed + 1
        success = (outcome & self._events(self.missions.success, state.mission)) != 0
        ended = success | ((outcome & self._events(self.missions.failure, state.mission)) != 0)
        reward = xp.astype(success, xp.float64) * (1.0 - 0.9 * (xp.astype(elapsed, xp.float64) / self.max_steps))
        return Transition(GridState(cells, place, direction, carried + gained, elapsed, state.mission), reward, ended)

    def returns_after(self, steps: np.ndarray) -> np.ndarray:
        """Return the returns of episodes that succeed after so many steps; 0 past the time limit."""
        return np.where(steps <= self.max_steps, 1.0 - 0.9 * (steps / self.max_steps), 0.0)

    @staticmethod
    def _events(events: np.ndarray, mission: Array) -> Any:
        return int(events[0]) if len(events) == 1 else table_on(events, mission)[mission]

    def observe(self, state: GridState) -> dict[str, Array]:
        """Return `direction`, `image` and `mission` (tokens, also in mode "text")."""
        if self.observation == "full":
            image = full_view(state.cells, state.place, state.direction)
        else:
            image = partial_view(state.cells, state.place, state.direction, state.carried, self.see_through)
        said = table_on(self.missions.tokens, state.mission)[state.mission]
        return {"direction": state.direction, "image": image, "mission": said}

    def decode_observation(self, observation: Mapping[str, Array], state: GridState) -> list[dict[str, Any]]:
        """Return the dicts of all rows, with the missions as texts."""
        texts = self.missions.texts
        rows = zip(observation["direction"], observation["image"], state.mission.tolist(), strict=True)
        return [
            {"direction": np.int64(direction), "image": image, "mission": texts[mission]}
            for direction, image, mission in rows
        ]

    def state_key(self, state: GridState) -> np.ndarray:
        """Return an int64 hash `[batch]` of level, agent, hand and mission."""
        words = np.concatenate(
            [
                np.asarray(state.cells).reshape(len(state.place), -1).astype(np.int64),
                *(np.asarray(part)[:, None] for part in (state.place, state.direction, state.carried, state.mission)),
            ],
            axis=1,
        )
        weights = CounterKey([0]).integers("weights", 2**31, (2, words.shape[1]))[0]
        with np.errstate(over="ignore"):
            return words @ ((weights[0] << 31 | weights[1]) * 2 + 1)

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", and the experts that there are."""
        return {**super().reference_policies(), **self.experts()}

    def render(self, state: GridState, row: int = 0, mode: str = "rgb_array") -> Any:
        """Return a picture `[height, width, 3]` with the seen cells lighter, or the grid as text, of one row."""
        if mode not in self.render_modes:
            return super().render(state, row, mode)
        cells, place, direction = state.cells[row], int(state.place[row]), int(state.direction[row])
        if mode == "ansi":
            said = self.missions.texts[int(state.mission[row])]
            return ansi_picture(cells, place, direction, int(state.carried[row]), said)
        return picture(cells, place, direction, self.see_through)


@lru_cache(maxsize=64)
def _strides(height: int) -> np.ndarray:
    """Distances of the cells ahead, facing right, down, left and up."""
    return np.array([dx * height + dy for dx, dy in DIRECTIONS])
