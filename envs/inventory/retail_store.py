"""A store that orders one product from week to week, whose sales have seasons, trends and a Christmas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import gymnasium as gym
import numpy as np
from scipy.special import ndtri

from palaestra.envs.arrays import at_least, namespace_of
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory import pictures
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.orders import ActionMode, OrderScale
from palaestra.envs.inventory.sales import HISTORY, Split, open_sales
from palaestra.envs.inventory.series_table import SeriesTable
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import OUTSIDE, Actor, Array, Estimand, Key, Network, Oracle, Transition


@dataclass(frozen=True)
class RetailState:
    """One product at one store at the start of a week, in units.

    Attributes:
        pipeline: float64 `[batch, longest lead time]`; slot 0 is on hand, this week's arrival included; slot k arrives
            k weeks later.
        series: Which product at which store, int64 `[batch]`.
        period: Weeks since the first order, int64 `[batch]`.
        scale: Mean weekly demand of the series before the first order, at least 1, float64 `[batch]`.
        last_order: Order of the week before (0 at the start), float64 `[batch]`.
        last_demand: Demand of the week before, float64 `[batch]`. Both are shown in pictures, without effect.
    """

    pipeline: Array
    series: Array
    period: Array
    scale: Array
    last_order: Array
    last_demand: Array


@dataclass(frozen=True)
class RetailOrder:
    """Post-decision state: the order has been placed, the week's demand is unknown.

    Attributes:
        state: The state in which it was placed.
        order: In units, float64 `[batch]`.
        reward: 0: all costs follow demand; float64 `[batch]`.
    """

    state: RetailState
    order: Array
    reward: Array


@dataclass(frozen=True)
class MovingAverage:
    """Orders up to the newsvendor's quantile of a normal demand with the mean and the deviation of the past weeks."""

    world: RetailStore

    def __call__(self, state: RetailState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        world = self.world
        past = world.table.history(state.series, state.period, state.pipeline)
        mean = past.sum(-1) / HISTORY
        std = (((past - mean[:, None]) ** 2).sum(-1) / HISTORY) ** 0.5
        periods = world.lead_time_of(state) + 1.0
        level = periods * mean + world.safety_of(state) * std * periods**0.5
        return world.action_of(at_least(level - state.pipeline.sum(-1), 0.0), state.scale)


@dataclass(frozen=True)
class JustInTime:
    """Knows the future, and orders what will be sold in the week in which the order arrives."""

    world: RetailStore

    def __call__(self, state: RetailState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        world = self.world
        xp = namespace_of(state.pipeline)
        arrival = state.period + xp.astype(world.lead_time_of(state), xp.int64)
        return world.action_of(world.table.demand(state.series, arrival, state.pipeline), state.scale)


class RetailStore(Simulator[RetailState]):
    """One product at one store, with weekly sales that trend, sway with the season and peak before Christmas.

    **One period**, a week: (1) the store orders; (2) demand meets what is on hand, and what is not met is lost; (3) the
    store earns `underage_cost`, the margin, for each unit sold and pays `holding_cost` for each unit left; (4) the
    pipeline moves on: an order of period t is on hand in period t + lead time, before the demand of that period.

    **Series**: an episode is one product at one store, drawn at random with equal chances; product i at store j is task
    `i * stores + j`, from which `reset(options={"task_seed": ...})` chooses. Each has its own lead time and margin.
    What is sold is what the data say, whatever is ordered.

    **State**: pipeline in units, series and week. **Observation**: float32 `[longest lead time + 16 + 3]`: on hand and
    what arrives in 1, 2, ... weeks; demand of the 16 weeks before, the oldest first; both divided by the scale of the
    series, its mean weekly demand before the first order (at least 1 unit); days from the nearest Christmas over 182,
    negative before it; `underage_cost / (underage_cost + holding_cost)`; lead time over the longest. `network` says
    which entry is which. **Action**: float32 `[1]`; with `action_mode="normalised"` in [-1, 1], for an order of
    `max_order * (action + 1) / 2` times the scale, with "orders" in [0, max_order], the order over the scale; with
    `returns` from minus `max_order` on. **Masks**: none.

    **Reward**: profit of the week over the scale of the series, so that all products count alike. (The published
    setting adds up money.) **Start**: nothing is on hand or ordered. **End**: never
    terminated; truncated after `horizon` weeks.

    **Info** after a step: `order`, `demand` and `inventory` (on hand less demand; what is below 0 is lost) in units;
    `margin` earned, `holding` paid and `underage` (the margin lost) in money.

    **Noise**: draw "series" (uniform), at the start alone.

    **Oracle**: a bound, the profit of ordering in time exactly what will be sold: the margin of all demand. Mean reward
    per week of one run of the whole window, of which the first 16 weeks do not count; as the mean over all series,
    which differ far more from each other than policies do: compare policies on the same seeds.

    **Experts**: "just-in-time", which reads the future and attains the bound once its first order has arrived.
    **Reference policies**: "random"; "moving-average", base stock at the newsvendor's quantile of normal demand with
    mean and deviation of the past 16 weeks.

    **Data**: by default drawn (`synthetic_sales`), or a file of real weekly sales (`read_sales`). Of 171 weeks, orders
    are placed in weeks 16 to 110 of "train", 104 to 140 of "dev" and 134 to 170 of "test". Past the end of its window a
    run begins it again.

    **Version history**: v0, first release.

    Args:
        split: Window of the data: "train", "dev" or "test".
        sales: File of weekly sales (see `read_sales`); None draws them.
        products: Number of products that are drawn.
        stores: Number of stores that are drawn.
        data_seed: Seed of what is drawn, 0 to 2**32 - 1.
        lead_times: Weeks from an order to its arrival; each series has one of them, drawn with equal chances.
        underage_cost: Margin of a unit sold, above 0; None draws one for each series, uniform on [6.3, 11.7].
        holding_cost: Cost of each unit left in a week, above 0.
        returns: Whether negative orders are allowed, which take stock off the pipeline: no store can, but a policy that
            may tells what its surplus costs.
        horizon: Weeks to truncation; None for the whole window.
        action_mode: "normalised" or "orders".
        max_order: Largest order over the scale of the series, above 0.

    Raises:
        FileNotFoundError: If there is no such file of sales.
        ValueError: If an argument is outside its range, or the file holds something else.

    Source: the setting "one store, retail series" of Alvo, Russo and Kanoria, "Neural inventory control in networks via
    hindsight differentiable policy optimization", arXiv 2306.11246.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("series",)

    def __init__(
        self,
        split: Split = "train",
        sales: str | None = None,
        products: int = 64,
        stores: int = 21,
        data_seed: int = 0,
        lead_times: Sequence[int] = (4, 5, 6),
        underage_cost: float | None = None,
        holding_cost: float = 1.0,
        returns: bool = False,
        horizon: int | None = None,
        action_mode: ActionMode = "normalised",
        max_order: float = 6.0,
    ) -> None:
        world = type(self).__name__
        counts = (check_count(world, "products", products), check_count(world, "stores", stores))
        data = open_sales(world, sales, *counts, check_count(world, "data_seed", data_seed, 0))
        series = data.units.reshape(-1, data.weeks)
        self.table = SeriesTable(world, data, split, series)
        self.tasks = len(series)
        self.horizon = read_horizon(world, horizon, self.table.periods)
        leads = [check_count(world, f"lead_times[{index}]", lead) for index, lead in enumerate(lead_times)]
        if not leads:
            raise ValueError(f"{world}: lead_times=(); expected at least one")
        self.lead_times = np.random.RandomState(41).choice(leads, self.tasks)
        """Weeks from an order to its arrival, int64 `[tasks]`."""
        if underage_cost is None:
            margins = np.random.RandomState(28).uniform(6.3, 11.7, self.tasks)
        else:
            margins = np.full(self.tasks, check_amount(world, "underage_cost", underage_cost, positive=True))
        self.underage_costs = margins
        """Margin of a unit sold, float64 `[tasks]`."""
        self.holding_cost = check_amount(world, "holding_cost", holding_cost, positive=True)
        self.returns = bool(returns)
        self.max_order = check_amount(world, "max_order", max_order, positive=True)
        self.longest = max(leads)
        self._scale = OrderScale(world, action_mode, self.max_order, signed=self.returns)
        self.action_space = self._scale.space
        self._slots = Constant(np.eye(self.longest)[self.lead_times - 1])
        self._margins, self._leads = Constant(margins), Constant(self.lead_times.astype(np.float64))
        known = series[:, slice(*data.window(world, "train"))]
        # Like the network it describes, it must be the same in all windows.
        self._deviation = float((known.std(axis=1) / np.maximum(known.mean(axis=1), 1.0)).mean())
        ratios = margins / (margins + self.holding_cost)
        self._safety, self._scales = Constant(ndtri(ratios)), Constant(self.table.scales)
        self._facts = Constant(np.stack((ratios, self.lead_times / self.longest), axis=1))
        low = np.zeros(self.longest + HISTORY + 3, np.float32)
        low[: self.longest] = -np.inf if self.returns else 0.0
        low[self.longest + HISTORY] = -np.inf
        self.observation_space = gym.spaces.Box(low, np.inf, low.shape, np.float32)

    @cached_property
    def network(self) -> Network:
        """Return the store as a network of one node; units are those of the scale of the series.

        Its lead time is the longest of all series, its underage cost and the deviation of its demand the means.
        """
        size = self.longest
        return Network(
            nodes=("store",),
            suppliers=np.array([OUTSIDE]),
            customers=np.array([0]),
            lead_times=np.array([size]),
            unit_costs=np.zeros(1),
            flow_limits=np.array([self.max_order]),
            holding_costs=np.array([self.holding_cost]),
            underage_costs=np.array([float(self.underage_costs.mean())]),
            demand_mean=np.ones(1),
            demand_std=np.array([self._deviation]),
            holds_stock=np.array([True]),
            on_hand=np.array([0]),
            in_transit=np.arange(1, size)[None],
            units=np.concatenate((np.ones(size + HISTORY), np.zeros(3))),
            least_flows=np.array([-self.max_order if self.returns else 0.0]),
            history=np.arange(size, size + HISTORY)[None],
            calendar=np.array([size + HISTORY]),
            critical_ratio=np.array([size + HISTORY + 1]),
            lead_share=np.array([size + HISTORY + 2]),
        )

    def initial(self, key: Key) -> RetailState:
        """Return an empty store for a series drawn at random."""
        share = key.uniform("series")
        xp = namespace_of(share)
        return self._empty(xp.clip(xp.astype(share * self.tasks, xp.int64), 0, self.tasks - 1), share)

    def initial_of_task(self, task: Array, key: Key) -> RetailState:
        """Return an empty store for chosen series, numbers `[batch]` from 0 to `tasks - 1`."""
        return self._empty(task, key.uniform("series"))

    def _empty(self, series: Array, like: Array) -> RetailState:
        none = 0.0 * like
        pipeline = none[:, None] + namespace_of(like).zeros_like(self._slots.like(like)[:1])
        last = self.table.history(series, 0 * series, like)[:, -1]
        return RetailState(pipeline, series, 0 * series, self._scales.like(like)[series], none, last)

    def lead_time_of(self, state: RetailState) -> Array:
        """Return the lead times of the series, floats `[batch]`."""
        return self._leads.like(state.pipeline)[state.series]

    def safety_of(self, state: RetailState) -> Array:
        """Return the standard normal quantile at `underage_cost / (underage_cost + holding_cost)`, `[batch]`."""
        return self._safety.like(state.pipeline)[state.series]

    def action_of(self, order: Array, scale: Array) -> Array:
        """Return the actions `[batch, 1]` of orders `[batch]` in units, for series of the given scale `[batch]`."""
        return self._scale.actions_of(order / scale)[:, None]

    def decide(self, state: RetailState, action: Array) -> RetailOrder:
        """Return the order."""
        return RetailOrder(state, self._scale.orders_of(action[:, 0]) * state.scale, 0.0 * state.scale)

    def realise(self, post: RetailOrder, key: Key) -> Transition[RetailState]:
        """Return demand, profit and the shifted pipeline."""
        state, order = post.state, post.order
        pipeline, scale = state.pipeline, state.scale
        xp = namespace_of(pipeline)
        demand = self.table.demand(state.series, state.period, pipeline)
        margins = self._margins.like(pipeline)[state.series]
        inventory = pipeline[:, 0] - demand
        left = at_least(inventory, 0.0)
        holding, underage = self.holding_cost * left, margins * at_least(-inventory, 0.0)
        margin = margins * demand - underage
        moved = xp.concat((pipeline[:, 1:], 0.0 * pipeline[:, :1]), axis=1)
        slots = xp.concat(((moved[:, 0] + left)[:, None], moved[:, 1:]), axis=1)
        slots = slots + order[:, None] * self._slots.like(pipeline)[state.series]
        info = {
            "order": order,
            "demand": demand,
            "inventory": inventory,
            "margin": margin,
            "holding": holding,
            "underage": underage,
        }
        following = RetailState(slots, state.series, state.period + 1, scale, order, demand)
        return Transition(following, (margin - holding) / scale, left < 0.0, info)

    def observe(self, state: RetailState) -> Array:
        """Return pipeline, history, calendar, critical ratio and lead time, `[batch, longest + 19]`."""
        pipeline, scale = state.pipeline, state.scale[:, None]
        parts = (
            pipeline / scale,
            self.table.history(state.series, state.period, pipeline) / scale,
            self.table.days(state.period, pipeline)[:, None],
            self._facts.like(pipeline)[state.series],
        )
        return namespace_of(pipeline).concat(parts, axis=1)

    def oracle(self) -> Oracle:
        """Return the margin of all demand, over the scales of the series, per week."""
        earned = self.underage_costs * counted_demand(self.table, self.horizon) / self.table.scales
        return Oracle(float(earned.mean()), retail_estimand(self.horizon), "bound", "just-in-time orders")

    def experts(self) -> Mapping[str, Actor]:
        """Return "just-in-time"."""
        return {"just-in-time": JustInTime(self)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and "moving-average"."""
        return {"random": RandomActor(self.action_space), "moving-average": MovingAverage(self)}

    def render(self, state: RetailState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return on hand and on order by week of arrival, the last order and demand; as bars or text ("ansi")."""
        slots = np.asarray(state.pipeline[row], np.float64)
        order, demand = float(state.last_order[row]), float(state.last_demand[row])
        rows = [pictures.StockRow(f"series {int(state.series[row])}", slots, order, demand)]
        if mode == "ansi":
            return pictures.stock_text(rows)
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        return pictures.draw_stock(rows)


def read_horizon(world: str, horizon: int | None, periods: int) -> int:
    """Return the horizon of a window of so many periods.

    Raises:
        ValueError: If it is no integer from 1 to `periods`.
    """
    if horizon is None:
        return periods
    if check_count(world, "horizon", horizon) > periods:
        raise ValueError(f"{world}: horizon={horizon}; expected None or at most the {periods} weeks of the window")
    return horizon


def counted_demand(table: SeriesTable, horizon: int) -> np.ndarray:
    """Return the mean weekly demand of each series over the weeks that count, `[series]` or `[series, stores]`."""
    counted = table.window.values[:, HISTORY : HISTORY + horizon]
    return np.asarray(counted[:, min(HISTORY, horizon - 1) :].mean(axis=1))


def retail_estimand(horizon: int) -> Estimand:
    """Return the mean reward of a week of a run of the whole window, without the weeks that its start still shows."""
    unit = "profit per week over the scale of the series"
    return Estimand("long_run_reward", unit, horizon, min(HISTORY, horizon - 1))
