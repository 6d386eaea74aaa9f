"""What worlds of one store with a lead time share: pipeline, orders, costs, rules of thumb and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import at_least, namespace_of
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory.demand import Demand
from palaestra.envs.inventory.orders import ActionMode, OrderScale
from palaestra.envs.simulator import Simulator
from palaestra.protocols import OUTSIDE, Array, Key, Network, Transition

SoldAs = TypeVar("SoldAs", bound=Demand)


@dataclass(frozen=True)
class StoreState:
    """What is on hand and on its way, in units.

    Attributes:
        pipeline: float64 `[batch, lead_time]`; slot 0 is on hand at the start of the period, today's arrival included
            and negative under backlog; slot k arrives k periods later.
        last_demand: float64 `[batch]`, demand of the period before (0 at the start); shown in pictures, without effect.
    """

    pipeline: Array
    last_demand: Array


@dataclass(frozen=True)
class OrderedState:
    """Post-decision state: the order has been placed, the demand is unknown.

    Attributes:
        pipeline: float64 `[batch, lead_time]`, as before the decision.
        order: float64 `[batch]`, in units; it arrives after the lead time.
    """

    pipeline: Array
    order: Array

    @property
    def reward(self) -> Array:
        """Return 0, for all costs follow demand; float64 `[batch]`."""
        return 0.0 * self.order


@dataclass(frozen=True)
class BaseStock:
    """Orders up to a level of the inventory position (on hand plus on order), as far as `cap` and `max_order` allow.

    Attributes:
        world: The world.
        level: In units; a number, or one for each row, `[batch]`.
        cap: Largest order, in units; None for that of the world. With a cap it is the capped base-stock policy.
    """

    world: OneStore[Any]
    level: Any
    cap: Any = None

    def __call__(self, state: StoreState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        order = self.level - state.pipeline.sum(-1)
        if self.cap is not None:
            cap = self.cap + 0.0 * order
            order = namespace_of(order).minimum(order, cap)
        return self.world.action_of(order)


@dataclass(frozen=True)
class ConstantOrder:
    """Orders the same quantity in every period: in units; a number, or one for each row, `[batch]`."""

    world: OneStore[Any]
    order: Any

    def __call__(self, state: StoreState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        return self.world.action_of(self.order + 0.0 * state.last_demand)


class OneStore(Simulator[StoreState], Generic[SoldAs]):
    """A store that orders with a lead time; what its worlds add is their demand and what becomes of unmet demand.

    Args:
        lead_time: Periods from an order to its arrival, at least 1.
        underage_cost: Cost of each unit short in a period, above 0.
        holding_cost: Cost of each unit left in a period, above 0.
        demand: Demand of a period.
        horizon: Periods to truncation.
        action_mode: "normalised" or "orders".
        max_order: Largest order, in units; None for twice the mean demand.

    Raises:
        ValueError: If an argument is outside its range.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("slots", "demand")
    loses_sales: ClassVar[bool]
    """Whether unmet demand is lost; otherwise it is backlogged."""

    def __init__(
        self,
        lead_time: int,
        underage_cost: float,
        holding_cost: float,
        demand: SoldAs,
        horizon: int,
        action_mode: ActionMode,
        max_order: float | None,
    ) -> None:
        world = type(self).__name__
        self.lead_time = check_count(world, "lead_time", lead_time)
        self.horizon = check_count(world, "horizon", horizon)
        self.underage_cost = check_amount(world, "underage_cost", underage_cost, positive=True)
        self.holding_cost = check_amount(world, "holding_cost", holding_cost, positive=True)
        self.demand = demand
        self.demand_mean = float(demand.mean)
        largest = 2.0 * self.demand_mean if max_order is None else max_order
        self.max_order = check_amount(world, "max_order", largest, positive=True)
        self._scale = OrderScale(world, action_mode, self.max_order)
        lowest = 0.0 if self.loses_sales else -np.inf
        self.observation_space = gym.spaces.Box(lowest, np.inf, (self.lead_time,), np.float32)
        self.action_space = self._scale.space

    @property
    def network(self) -> Network:
        """Return the store as a network of one node that the outside supplies."""
        return Network(
            nodes=("store",),
            suppliers=np.array([OUTSIDE]),
            customers=np.array([0]),
            lead_times=np.array([self.lead_time]),
            unit_costs=np.zeros(1),
            flow_limits=np.array([self.max_order]),
            holding_costs=np.array([self.holding_cost]),
            underage_costs=np.array([self.underage_cost]),
            demand_mean=np.array([self.demand_mean]),
            demand_std=np.array([float(self.demand.std)]),
            holds_stock=np.array([True]),
            on_hand=np.array([0]),
            in_transit=np.arange(1, self.lead_time)[None],
            units=np.full(self.lead_time, self.demand_mean),
        )

    def initial(self, key: Key) -> StoreState:
        """Return slots filled by up to one period's mean demand."""
        pipeline = self.demand_mean * key.uniform("slots", (self.lead_time,))
        return StoreState(pipeline, 0.0 * pipeline[:, 0])

    def order_of(self, action: Array) -> Array:
        """Return the orders `[batch]` in units of actions `[batch, 1]`, clipped to what can be ordered."""
        return self._scale.orders_of(action[:, 0])

    def action_of(self, order: Array) -> Array:
        """Return the actions `[batch, 1]` of orders `[batch]` in units, clipped to what can be ordered."""
        return self._scale.actions_of(order)[:, None]

    def decide(self, state: StoreState, action: Array) -> OrderedState:
        """Return the pipeline and the order."""
        return OrderedState(state.pipeline, self.order_of(action))

    def step(self, state: StoreState, action: Array, key: Key) -> Transition[StoreState]:
        """Return the whole transition; all of its reward is that of its random half."""
        return self.realise(self.decide(state, action), key)

    def realise(self, post: OrderedState, key: Key) -> Transition[StoreState]:
        """Return demand, its cost and the shifted pipeline."""
        demand = self.demand.sample(key)
        pipeline, reward, inventory, holding, underage = self._period(post.pipeline, post.order, demand)
        info = {
            "order": post.order,
            "demand": demand,
            "inventory": inventory,
            "holding": holding,
            "underage": underage,
        }
        return Transition(StoreState(pipeline, demand), reward, holding < 0.0, info)

    def _period(self, pipeline: Array, order: Array, demand: Array) -> tuple[Array, ...]:
        """Return pipeline, reward, inventory after demand, holding and underage costs of a period."""
        if not isinstance(pipeline, np.ndarray):
            # Only here, for worlds on NumPy do without torch.
            from palaestra.envs.inventory.fused_store import fusable, fused_period

            if fusable(pipeline):
                return fused_period(pipeline, order, demand, self.holding_cost, self.underage_cost, self.loses_sales)
        inventory = pipeline[:, 0] - demand
        left = at_least(inventory, 0.0)
        holding, underage = self.holding_cost * left, self.underage_cost * (left - inventory)
        kept = left if self.loses_sales else inventory
        # What arrives next is the second slot or, with a lead time of 1, the order itself.
        if self.lead_time == 1:
            return (kept + order)[:, None], -(holding + underage), inventory, holding, underage
        slots = ((kept + pipeline[:, 1])[:, None], pipeline[:, 2:], order[:, None])
        following = namespace_of(pipeline).concat(slots, axis=-1)
        return following, -(holding + underage), inventory, holding, underage

    def observe(self, state: StoreState) -> Array:
        """Return the slots in periods of mean demand, `[batch, lead_time]`."""
        return state.pipeline / self.demand_mean

    def render(self, state: StoreState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return bars of the pipeline, on hand at the left, and of the last demand; or one line of text ("ansi")."""
        slots, demand = [float(units) for units in state.pipeline[row]], float(state.last_demand[row])
        if mode == "ansi":
            coming = " ".join(f"{units:.1f}" for units in slots[1:])
            return f"on hand {slots[0]:.1f} | on order {coming or '-'} | last demand {demand:.1f}"
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        width, step, height, ground = 34, 44, 200, 130
        scale = 45.0 / self.max_order
        canvas = rendering.Canvas(24 + step * (len(slots) + 1), height)
        bars = [("HAND" if slot == 0 else f"T+{slot}", units) for slot, units in enumerate(slots)] + [
            ("DEMAND", demand)
        ]
        for index, (label, units) in enumerate(bars):
            left = 12 + step * index
            color = rendering.ORANGE if label == "DEMAND" else rendering.RED if units < 0 else rendering.BLUE
            canvas.rectangle(left, ground - scale * units, left + width, ground, color)
            canvas.text(left, height - 14, label, scale=1 if label == "DEMAND" else 2)
            canvas.text(left, 8, f"{units:.1f}", scale=2 if abs(units) < 100 else 1)
        canvas.rectangle(6, ground, canvas.pixels.shape[1] - 6, ground + 2, rendering.INK)
        return canvas.pixels
