"""A frozen lake on which every move may be followed by a slide: the deterministic and the random half of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from palaestra.envs import rendering
from palaestra.envs.arrays import namespace_of, table_like
from palaestra.envs.checks import check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

MAPS: Mapping[str, tuple[str, ...]] = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}
"""The maps of Gymnasium's FrozenLake: start, frozen, hole, goal."""

_TILE_SEED = 42
_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))


@dataclass(frozen=True)
class LakeState:
    """Where the skater is.

    Attributes:
        cell: Row times the number of columns plus column, int64 `[batch]`.
        period: Number of steps so far, int64 `[batch]`; only the optimal policy reads it.
    """

    cell: Array
    period: Array


@dataclass(frozen=True)
class MovedState:
    """Post-decision state: the intended move has been made, the slide is to come.

    Attributes:
        cell: int64 `[batch]`.
        period: Number of steps before this one, int64 `[batch]`.
        reward: Of the move, float64 `[batch]`.
    """

    cell: Array
    period: Array
    reward: Array


@dataclass(frozen=True)
class LakePlan:
    """Acts by a table of moves, `[cells]`, or `[steps left, cells]` where it depends on how many are left."""

    world: SlipLake
    moves: NDArray[np.int64]

    def __call__(self, state: LakeState, observation: Array, key: Key) -> Array:
        """Return actions `[batch]`."""
        moves = table_like(self.moves, state.cell)
        if moves.ndim == 1:
            return moves[state.cell]
        left = namespace_of(state.cell).clip(self.world.horizon - state.period, 1, None)
        return moves[left, state.cell]


class SlipLake(Simulator[LakeState]):
    """Cross a frozen lake: the intended move succeeds, but half the time the ice then carries the skater one cell on.

    **One step**: (1) the skater moves to the intended cell (off the map: stays), which may be the goal; (2) unless it
    is, with probability `slip_probability` a slide follows, in a direction whose chances belong to the tile: four
    draws from the Dirichlet distribution (1, 1, 1, 1), made once with NumPy's legacy generator and seed 42, whose
    stream never changes. A slide off the map leaves the skater where it is; a slide can also carry it out of a hole
    that the move led into, for it falls in only where it comes to rest.

    **State**: cell, int64 (and the number of steps so far). **Observation**: float32 `[cells]`, one-hot; with
    `one_hot=False` Discrete(cells), row by row. **Action**: Discrete(4): left, down, right, up. **Masks**: none.

    **Post-decision state**: the cell after the move; `observe_post` shows it as `observe` shows a state.

    **Reward**: with `shaping="none"` 1 on reaching the goal. With "paper", for each of the two halves that takes place
    (the stay of a skater who does not slide is none) `1 / (1 + d)`, d the Manhattan distance to the goal, less
    `1 / (rows + columns)` in a hole, and 1 in the goal: it makes hovering near the goal worth far more than reaching
    it, so read the success rate beside the return. With "potential" that of "none" plus the change of the potential
    `-d / (rows + columns)`, which is 0 where the episode ends; it favours no way of ending over another.

    **Start**: the cell S. **End**: terminated at rest in a hole or in the goal; truncated after `horizon` steps.

    **Info** after a step: `cell` (int64), `success` (bool: in the goal), `slipped` (bool: a slide took place).

    **Noise**: draw "slip", uniform: below the probability a slide, whose direction it also decides.

    **Oracle**: the best mean return of an episode, by dynamic programming over the steps left, which the agent does not
    see (the optimal policy does): 35.2178 by default, .9911 with `shaping="none"`.

    **Experts**: "optimal". **Reference policies**: "random"; "goal", moves by which the goal is reached most often
    within the horizon, whatever the shaping; "optimal".

    **Exact returns** of stationary policies: `enumerate_states` and `exact_return`.

    **Version history**: v0, first release.

    Args:
        map_name: "4x4" or "8x8".
        layout: Rows of a map of your own of S, F, H and G, with one S and one G; None for the named one.
        slip_probability: That a slide follows a move, 0 to 1.
        shaping: "paper", "potential" or "none".
        one_hot: Whether observations are one-hot.
        horizon: Steps to truncation.

    Raises:
        ValueError: If an argument is outside its range or the layout is no such map.

    Source: the lake of "A Reinforcement Learning Method for Environments with Stochastic Variables: Post-Decision
    Proximal Policy Optimization with Dual Critic Networks", arXiv 2504.05150, read in its published code.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("slip",)

    def __init__(
        self,
        map_name: Literal["4x4", "8x8"] = "4x4",
        layout: Sequence[str] | None = None,
        slip_probability: float = 0.5,
        shaping: Literal["paper", "potential", "none"] = "paper",
        one_hot: bool = True,
        horizon: int = 100,
    ) -> None:
        world = "SlipLake"
        if layout is None and map_name not in MAPS:
            raise ValueError(f"{world}: map_name={map_name!r}; expected one of {sorted(MAPS)}")
        rows = tuple(MAPS[map_name] if layout is None else layout)
        letters = "".join(rows)
        if (
            len({len(row) for row in rows}) != 1
            or not set(letters) <= set("SFHG")
            or letters.count("S") != 1
            or letters.count("G") != 1
        ):
            raise ValueError(f"{world}: layout={rows!r}; expected equal rows of S, F, H and G, with one S and one G")
        if not (np.asarray(slip_probability).dtype.kind in "iuf" and 0.0 <= slip_probability <= 1.0):
            raise ValueError(f"{world}: slip_probability={slip_probability!r}; expected a number from 0 to 1")
        if shaping not in ("paper", "potential", "none"):
            raise ValueError(f"{world}: shaping={shaping!r}; expected 'paper', 'potential' or 'none'")
        self.rows = rows
        self.slip_probability = float(slip_probability)
        self.shaping = shaping
        self.one_hot = bool(one_hot)
        self.horizon = check_count(world, "horizon", horizon)
        height, width = len(rows), len(rows[0])
        cells = height * width
        self.start, self.goal = letters.index("S"), letters.index("G")
        self.holes = np.array([letter == "H" for letter in letters])
        self.next_cell = _moves(height, width)
        """Cell after each move from each cell, int64 `[cells, 4]`."""
        self.tile_chances = np.random.RandomState(_TILE_SEED).dirichlet(np.ones(4), size=(height, width)).reshape(-1, 4)
        """Chances of the four directions of a slide from each cell, float64 `[cells, 4]`."""
        # A draw below these bounds slides left, down, right, up; one above all of them does not slide.
        self._bounds = self.slip_probability * np.cumsum(self.tile_chances, axis=1)
        self._bounds[:, -1] = self.slip_probability
        self._ends = self.holes | (np.arange(cells) == self.goal)
        distance = np.abs(np.arange(height)[:, None] - self.goal // width) + np.abs(
            np.arange(width) - self.goal % width
        )
        distance = distance.reshape(-1).astype(np.float64)
        # What it pays to get into a cell, and the potential of a cell: on the way, and where the episode ends there.
        self._entry = (np.arange(cells) == self.goal).astype(np.float64)
        self._potential = np.zeros(cells)
        if shaping == "paper":
            self._entry = 1.0 / (1.0 + distance) - self.holes / (height + width)
        elif shaping == "potential":
            self._potential = -distance / (height + width)
        self._potential_at_rest = np.where(self._ends, 0.0, self._potential)
        self._one_hot = np.eye(cells)
        self.action_space = gym.spaces.Discrete(4)
        box, discrete = gym.spaces.Box(0.0, 1.0, (cells,), np.float32), gym.spaces.Discrete(cells)
        self.observation_space = box if self.one_hot else discrete

    def initial(self, key: Key) -> LakeState:
        """Return the start."""
        # A draw of nothing: zeros in the key's own library.
        zero = key.integers("slip", 1)
        return LakeState(zero + self.start, zero)

    def decide(self, state: LakeState, action: Array) -> MovedState:
        """Return the cell after the intended move, and its reward."""
        cell = table_like(self.next_cell, state.cell)[state.cell, action]
        entry, potential = table_like(self._entry, cell), table_like(self._potential, cell)
        return MovedState(cell, state.period, entry[cell] + potential[cell] - potential[state.cell])

    def realise(self, post: MovedState, key: Key) -> Transition[LakeState]:
        """Return where the skater comes to rest."""
        share = key.uniform("slip")
        xp = namespace_of(share)
        bounds = table_like(self._bounds, share)[post.cell]
        direction = xp.sum(xp.astype(share[:, None] >= bounds, xp.int64), axis=1)
        slipped = (direction < 4) & (post.cell != self.goal)
        slid = table_like(self.next_cell, post.cell)[post.cell, xp.clip(direction, None, 3)]
        cell = xp.where(slipped, slid, post.cell)
        entry = table_like(self._entry, share)[cell]
        reward = xp.where(slipped, entry, xp.zeros_like(entry))
        reward = (
            reward + table_like(self._potential_at_rest, share)[cell] - table_like(self._potential, share)[post.cell]
        )
        ends = table_like(self._ends, post.cell)[cell]
        info = {"cell": cell, "success": cell == self.goal, "slipped": slipped}
        return Transition(LakeState(cell, post.period + 1), reward, ends, info)

    def observe(self, state: LakeState) -> Array:
        """Return the cell, one-hot `[batch, cells]` or as a number `[batch]`."""
        return table_like(self._one_hot, state.cell)[state.cell] if self.one_hot else state.cell

    def observe_post(self, post: MovedState) -> Array:
        """Return the cell after the move in the same way."""
        return self.observe(LakeState(post.cell, post.period))

    def enumerate_states(self) -> LakeState:
        """Return the cells in which a decision is made, in their order."""
        cells = np.flatnonzero(~self._ends)
        return LakeState(cells, 0 * cells)

    def exact_return(self, probabilities: NDArray[np.float64]) -> float:
        """Return the expected return of an episode under a stationary policy.

        Args:
            probabilities: Of the moves `[num_states, 4]`, in the order of `enumerate_states`.
        """
        value, decided = np.zeros(len(self._ends)), np.flatnonzero(~self._ends)
        for _ in range(self.horizon):
            following = np.zeros_like(value)
            following[decided] = (probabilities * self._action_values(value)[decided]).sum(axis=1)
            value = following
        return float(value[self.start])

    def success_rate(self, probabilities: NDArray[np.float64]) -> float:
        """Return the chance that a stationary policy reaches the goal in an episode; arguments as `exact_return`."""
        return self._plain.exact_return(probabilities)

    def oracle(self) -> Oracle:
        """Return the best mean return of an episode."""
        best = float(self._optimum[0][self.horizon, self.start])
        return Oracle(best, Estimand("episode_return"), "optimum", "dynamic programming over the steps left")

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal"."""
        return {"optimal": LakePlan(self, self._optimum[1])}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", the way to the goal, and the optimal policy."""
        goal = LakePlan(self, self._plain._optimum[1][self.horizon])
        return {"random": RandomActor(self.action_space), "goal": goal, **self.experts()}

    def render(self, state: LakeState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return the map with the skater on it, as a picture or as text ("ansi")."""
        width, cell = len(self.rows[0]), int(state.cell[row])
        if mode == "ansi":
            letters = [f"[{x}]" if index == cell else f" {x} " for index, x in enumerate("".join(self.rows))]
            return "\n".join("".join(letters[start : start + width]) for start in range(0, len(letters), width))
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        side = 40
        canvas = rendering.Canvas(side * width, side * len(self.rows), rendering.INK)
        for index, letter in enumerate("".join(self.rows)):
            top, left = (side * part for part in divmod(index, width))
            color = {"H": rendering.BLUE, "G": rendering.GREEN}.get(letter, rendering.PALE)
            canvas.rectangle(left + 1, top + 1, left + side - 1, top + side - 1, color)
            if letter in "SG":
                canvas.text(left + 4, top + 4, letter, scale=2)
        top, left = (side * part for part in divmod(cell, width))
        canvas.disc(left + side / 2, top + side / 2, 10, rendering.ORANGE)
        return canvas.pixels

    @cached_property
    def _plain(self) -> SlipLake:
        """The same lake, with 1 for the goal and nothing else."""
        return SlipLake(layout=self.rows, slip_probability=self.slip_probability, shaping="none", horizon=self.horizon)

    @cached_property
    def _optimum(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Value and best move with each number of steps left, `[horizon + 1, cells]`."""
        values = np.zeros((self.horizon + 1, len(self._ends)))
        moves = np.zeros(values.shape, np.int64)
        for left in range(1, self.horizon + 1):
            actions = self._action_values(values[left - 1])
            moves[left] = actions.argmax(axis=1)
            values[left] = np.where(self._ends, 0.0, actions.max(axis=1))
        return values, moves

    def _action_values(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the value of each move from each cell, `[cells, 4]`, given that of each cell a step later."""
        rest = self._potential_at_rest + np.where(self._ends, 0.0, value)
        slid = (self.tile_chances * (self._entry + rest)[self.next_cell]).sum(axis=1)
        after = (1.0 - self.slip_probability) * rest + self.slip_probability * slid - self._potential
        after[self.goal] = 0.0
        return (self._entry + self._potential + after)[self.next_cell] - self._potential[:, None]


def _moves(height: int, width: int) -> NDArray[np.int64]:
    """Return the cell after each move from each cell, int64 `[cells, 4]`."""
    row, column = np.divmod(np.arange(height * width), width)
    steps = [
        np.clip(row + down, 0, height - 1) * width + np.clip(column + right, 0, width - 1) for down, right in _MOVES
    ]
    return np.stack(steps, axis=1)
