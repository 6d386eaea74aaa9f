"""The newsvendor: one order for one day's demand, day after day; the smallest inventory problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import at_least
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory.demand import NormalDemand, PoissonDemand
from palaestra.envs.inventory.estimand import LONG_RUN
from palaestra.envs.inventory.exact import newsvendor as exact
from palaestra.envs.inventory.exact.lattice import Lattice, clipped_normal
from palaestra.envs.inventory.orders import ActionMode, OrderScale
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Key, Oracle, Transition


@dataclass(frozen=True)
class DayState:
    """What the newsvendor knows in the morning.

    Attributes:
        last_demand: Demand of the day before, in units, float64 `[batch]`.
        last_order: Order of the day before (0 on the first day); shown in pictures, without effect; float64 `[batch]`.
    """

    last_demand: Array
    last_order: Array


@dataclass(frozen=True)
class StockedState:
    """Post-decision state: the papers are bought, the day has not begun.

    Attributes:
        order: In units, float64 `[batch]`.
        reward: 0: all costs follow demand; float64 `[batch]`.
    """

    order: Array
    reward: Array


@dataclass(frozen=True)
class FixedOrder:
    """Orders the same quantity every day."""

    world: Newsvendor
    order: float

    def __call__(self, state: DayState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        return self.world.action_of(self.order + 0.0 * state.last_demand)


@dataclass(frozen=True)
class DemandChasing:
    """Moves from the mean demand a share of the way to the demand of the day before, as people do."""

    world: Newsvendor
    share: float

    def __call__(self, state: DayState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        mean = self.world.demand_mean
        return self.world.action_of(mean + self.share * (state.last_demand - mean))


class Newsvendor(Simulator[DayState]):
    """Buy papers before the day's demand is known; what is left is worth less than it cost, what is short is lost.

    **One period**: (1) the newsvendor orders; (2) demand comes, independent of all before; (3) each unit left costs
    `overage_cost` (what it cost less its salvage value) and each unit short `underage_cost` (its price less its cost);
    nothing is kept for the next day.

    **State**: demand (and order) of the day before. **Observation**: float32 `[1]`, that demand divided by
    `demand_mean`; it says nothing about today. **Action**: float32 `[1]`; with `action_mode="normalised"` in [-1, 1],
    for an order of `max_order * (action + 1) / 2` units; with "orders" the order itself, in [0, max_order].
    **Masks**: none.

    **Post-decision state**: the order; `observe_post` shows it divided by `demand_mean`.

    **Reward**: minus the cost of the day. **Start**: a demand of the day before is drawn. **End**: never terminated;
    truncated after `horizon` days.

    **Info** after a step: `order` and `demand` in units, `overage` and `underage` (the two parts of the cost).

    **Noise**: draw "demand" (uniform, inverted, for Poisson demand; normal for normal demand).

    **Oracle**: the least mean cost of a day, as reward: that of the smallest order with
    `P(demand <= order) >= underage / (underage + overage)`; 4.22109 for an order of 8 at the default arguments.
    The closed form takes normal demand as not clipped at 0 where `demand_mean >= 3 demand_std` (exact to a relative
    .0004), and sums over a fine lattice below that. Where `max_order` is less than the optimal order, its own cost is
    the optimum.

    **Experts**: "optimal". **Reference policies**: "random"; "mean", orders the mean demand; "chasing", halfway from
    there to the demand of the day before (Schweitzer and Cachon, 2000); "critical-ratio", the optimal order.

    **Version history**: v0, first release.

    Args:
        underage_cost: Cost of each unit short, above 0.
        overage_cost: Cost of each unit left, above 0.
        demand: "poisson" or "normal" (clipped at 0).
        demand_mean: Mean demand of a day, in units, above 0.
        demand_std: Standard deviation of normal demand, in units; None for that of Poisson demand, which has no other.
        horizon: Days to truncation; 1 makes it a bandit.
        action_mode: "normalised" or "orders".
        max_order: Largest order, in units; None for three times the mean demand. `step` itself clips orders to it.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Arrow, Harris and Marschak, "Optimal inventory policy", Econometrica 19 (1951).
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("demand",)

    def __init__(
        self,
        underage_cost: float = 9.0,
        overage_cost: float = 1.0,
        demand: Literal["poisson", "normal"] = "poisson",
        demand_mean: float = 5.0,
        demand_std: float | None = None,
        horizon: int = 50,
        action_mode: ActionMode = "normalised",
        max_order: float | None = None,
    ) -> None:
        world = "Newsvendor"
        self.horizon = check_count(world, "horizon", horizon)
        self.underage_cost = check_amount(world, "underage_cost", underage_cost, positive=True)
        self.overage_cost = check_amount(world, "overage_cost", overage_cost, positive=True)
        self.demand_mean = check_amount(world, "demand_mean", demand_mean, positive=True)
        largest = 3.0 * self.demand_mean if max_order is None else max_order
        self.max_order = check_amount(world, "max_order", largest, positive=True)
        self._lattice: Lattice | None
        if demand == "poisson":
            if demand_std is not None:
                raise ValueError(f"{world}: demand_std={demand_std!r}; expected None with Poisson demand")
            poisson = PoissonDemand(self.demand_mean)
            self.demand: PoissonDemand | NormalDemand = poisson
            self._lattice = poisson.lattice()
        elif demand == "normal":
            std = check_amount(world, "demand_std", self.demand_mean**0.5 if demand_std is None else demand_std)
            self.demand = NormalDemand(self.demand_mean, std)
            far_from_zero = self.demand_mean >= 3.0 * std
            self._lattice = None if far_from_zero else clipped_normal(self.demand_mean, std, std / 1000.0)
        else:
            raise ValueError(f"{world}: demand={demand!r}; expected 'poisson' or 'normal'")
        self._scale = OrderScale(world, action_mode, self.max_order)
        self.action_space = self._scale.space
        self.observation_space = gym.spaces.Box(0.0, np.inf, (1,), np.float32)

    def initial(self, key: Key) -> DayState:
        """Return a first morning, with a demand of the day before."""
        demand = self.demand.sample(key)
        return DayState(demand, 0.0 * demand)

    def action_of(self, order: Array) -> Array:
        """Return the actions `[batch, 1]` of orders `[batch]` in units, clipped to what can be ordered."""
        return self._scale.actions_of(order)[:, None]

    def decide(self, state: DayState, action: Array) -> StockedState:
        """Return the order."""
        return StockedState(self._scale.orders_of(action[:, 0]), 0.0 * state.last_demand)

    def realise(self, post: StockedState, key: Key) -> Transition[DayState]:
        """Return demand and its cost."""
        demand = self.demand.sample(key)
        left = post.order - demand
        overage, underage = self.overage_cost * at_least(left, 0.0), self.underage_cost * at_least(-left, 0.0)
        info = {"order": post.order, "demand": demand, "overage": overage, "underage": underage}
        never = demand < 0.0
        return Transition(DayState(demand, post.order), -(overage + underage), never, info)

    def observe(self, state: DayState) -> Array:
        """Return the demand of the day before over the mean demand, `[batch, 1]`."""
        return state.last_demand[:, None] / self.demand_mean

    def observe_post(self, post: StockedState) -> Array:
        """Return the order over the mean demand, `[batch, 1]`."""
        return post.order[:, None] / self.demand_mean

    def expected_cost(self, order: float) -> float:
        """Return the mean cost of a day that starts with `order` units: minus the value of the post-decision state."""
        if self._lattice is not None:
            return exact.newsvendor_cost(order, self._lattice, self.underage_cost, self.overage_cost)
        mean, std = self.demand_mean, float(self.demand.std)
        return exact.normal_newsvendor_cost(order, mean, std, self.underage_cost, self.overage_cost)

    def optimal_order(self) -> float:
        """Return the order of the least mean cost, in units, at most `max_order`."""
        if self._lattice is not None:
            optimum = exact.newsvendor(self._lattice, self.underage_cost, self.overage_cost)
        else:
            std = float(self.demand.std)
            optimum = exact.normal_newsvendor(self.demand_mean, std, self.underage_cost, self.overage_cost)
        return min(optimum.level, self.max_order)

    def oracle(self) -> Oracle:
        """Return minus the least mean cost of a day."""
        return Oracle(-self.expected_cost(self.optimal_order()), LONG_RUN, "optimum", "critical ratio, in closed form")

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal"."""
        return {"optimal": FixedOrder(self, self.optimal_order())}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", two habits of people, and the optimal order."""
        return {
            "random": RandomActor(self.action_space),
            "mean": FixedOrder(self, self.demand_mean),
            "chasing": DemandChasing(self, 0.5),
            "critical-ratio": FixedOrder(self, self.optimal_order()),
        }

    def render(self, state: DayState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return bars of yesterday's order and demand, and of what was left or short; or one line of text ("ansi")."""
        order, demand = float(state.last_order[row]), float(state.last_demand[row])
        if mode == "ansi":
            return f"last order {order:.1f} | last demand {demand:.1f} | left {order - demand:+.1f}"
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        height, ground = 200, 130
        scale = 110.0 / max(self.max_order, 3.0 * self.demand_mean)
        canvas = rendering.Canvas(156, height)
        left = order - demand
        bars = (
            ("ORDER", order, rendering.BLUE),
            ("DEMAND", demand, rendering.ORANGE),
            ("LEFT" if left >= 0.0 else "SHORT", left, rendering.GREEN if left >= 0.0 else rendering.RED),
        )
        for index, (label, units, color) in enumerate(bars):
            start = 12 + 44 * index
            canvas.rectangle(start, ground - scale * units, start + 34, ground, color)
            canvas.text(start, height - 14, label, scale=1)
            canvas.text(start, 8, f"{units:.1f}", scale=2 if abs(units) < 100 else 1)
        canvas.rectangle(6, ground, 150, ground + 2, rendering.INK)
        return canvas.pixels
