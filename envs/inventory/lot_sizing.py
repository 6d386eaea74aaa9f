"""Lot sizing: machines that make one item at a time, setups that cost money and output, demand that is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import at_least, namespace_of
from palaestra.envs.checks import check_count
from palaestra.envs.inventory.columns import row_sums, weighted_sums
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.demand import BinomialDemand
from palaestra.envs.inventory.exact.lot_sizing import (
    LotSizingOptimum,
    fluid_bound,
    lot_sizing_optimum,
    solvable,
)
from palaestra.envs.inventory.lot_sizing_plants import PRESETS, changed_plant, preset_plant
from palaestra.envs.inventory.tuning import Tuned
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition


@dataclass(frozen=True)
class PlantState:
    """Stock and setups at the start of a period.

    Attributes:
        inventory: Units of each item, float64 `[batch, items]`, 0 to the capacity.
        setup: Item that each machine is set up for, counted from 1, 0 for none, int64 `[batch, machines]`.
        period: Number of periods so far, int64 `[batch]`.
        last_demand: Demand of the period before (0 at the start), float64 `[batch, items]`; shown in pictures, without
            effect.
    """

    inventory: Array
    setup: Array
    period: Array
    last_demand: Array


@dataclass(frozen=True)
class ProducedState:
    """Post-decision state: the machines have produced, the demand is unknown.

    Attributes:
        inventory: Units of each item, perhaps above the capacity, float64 `[batch, items]`.
        setup: Item that each machine is set up for, int64 `[batch, machines]`.
        period: Number of periods before this one, int64 `[batch]`.
        setup_cost: float64 `[batch]`.
        reward: Minus the cost of setups, float64 `[batch]`.
    """

    inventory: Array
    setup: Array
    period: Array
    setup_cost: Array
    reward: Array


class LookAhead:
    """Each machine makes what is worth most, one machine after the other, by a price on the shortage ahead.

    An item with c periods of cover (stock, what machines before add included, over mean demand) is worth
    `shortage_cost * mean * max(0, look - c)`, less the holding cost of what a period makes over those c periods. A
    machine that would have to be set up for it deducts the setup cost. Staying idle is worth minus `regret` times the
    cost of setting it up again for what it makes now. What is worth most is done.

    Args:
        world: The plant.
        look: Periods that the rule looks ahead; a number, or one for each row.
        regret: Share of the lost setup that idling is charged; a number, or one for each row.
    """

    def __init__(self, world: LotSizing, look: Any, regret: Any) -> None:
        plant = world.plant
        self._mean = max(plant.demand_trials * plant.demand_probability, 1e-9)
        self._look, self._regret = (Constant(np.asarray(value)[..., None]) for value in (look, regret))
        self._penalty = Constant(plant.shortage_cost * self._mean)
        can = plant.production > 0
        # What a machine cannot make costs it more than anything else could be worth.
        self._setup_cost = [Constant(row) for row in np.where(can, plant.setup_cost, 1e12)]
        self._made = [Constant(row.astype(np.float64)) for row in plant.production]
        self._held = [Constant(row * plant.holding_cost) for row in plant.production]
        self._items = Constant(np.arange(1, plant.items + 1))

    def __call__(self, state: PlantState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, machines]`."""
        stock, choices = state.inventory, []
        xp, items = namespace_of(stock), self._items.like(state.setup)
        look, regret = self._look.like(stock), self._regret.like(stock)
        for machine, costs in enumerate(self._setup_cost):
            present = xp.astype(items == state.setup[:, machine, None], stock.dtype)
            setup_cost = costs.like(stock)
            cover = stock / self._mean
            worth = self._penalty.like(stock) * at_least(look - cover, 0.0) - self._held[machine].like(stock) * cover
            idle = -regret * xp.sum(present * setup_cost, axis=1, keepdims=True)
            options = xp.concat((idle, worth - (1.0 - present) * setup_cost), axis=1)
            choice = xp.argmax(options, axis=1)
            stock = stock + self._made[machine].like(stock) * xp.astype(items == choice[:, None], stock.dtype)
            choices.append(choice)
        return xp.stack(choices, axis=1)


@dataclass(frozen=True)
class OptimalLots:
    """Looks its actions up in the table of a dynamic programme, by the periods left."""

    world: LotSizing
    table: Constant

    def __call__(self, state: PlantState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, machines]`."""
        xp, table = namespace_of(state.inventory), self.table.like(state.inventory)
        plant = self.world.plant
        left = xp.clip(self.world.horizon - state.period, 1, None)
        stocks = (xp.astype(state.inventory[:, item], xp.int64) for item in range(plant.items))
        setups = (state.setup[:, machine] for machine in range(plant.machines))
        index = table[(left, *stocks, *setups)]
        base = plant.items + 1
        return xp.stack([index // base**place % base for place in reversed(range(plant.machines))], axis=1)


class LotSizing(Simulator[PlantState]):
    """Machines that each make one of several items, at the price of setups, for demand that is lost if not met.

    **One period**: (1) each machine stays idle, which loses its setup, or makes an item: where it was not set up for
    it, that costs `setup_cost` and `setup_loss` units of its output; what it makes is added to the stock (a machine
    that cannot make the item pays and makes nothing); (2) demand, binomial, meets the stock; (3) each unit of demand
    short is lost and costs `shortage_cost`, what is left above `capacity` is thrown away, and each unit kept costs
    `holding_cost`.

    **State**: stock and setups (and the number of periods so far, which only the optimal policy reads, and the last
    demand, for pictures). **Observation**: float32 `[items + machines]` in [0, 1]: stock over capacity, and the item
    that each machine is set up for, counted from 1, over the number of items. **Action**: MultiDiscrete
    `[items + 1] * machines`: 0 idle, else the item to make, counted from 1. **Masks**: the items that each machine can
    make, and idling, one after the other for all machines; a masked item may be chosen, with the effect above.

    **Post-decision state**: stock (perhaps above capacity) and setups before demand; `observe_post` shows it as
    `observe` shows a state.

    **Reward**: minus the cost of the period. **Start**: stock uniform on {0, ..., capacity - 1}, setups uniform over
    the items that a machine can make. **End**: never terminated; truncated after `horizon` periods.

    **Info** after a step: `demand`, `inventory` and `short` `[items]` in units; `setup`, `lost` and `holding`, the
    parts of the cost.

    **Noise**: draws "inventory" and "setup" (uniform) at the start, "demand" (uniform, inverted).

    **Oracle**: of the mean return of an episode. For plants of up to a million pairs of a state and an action the
    optimum, by dynamic programming over the periods left, of which the agent sees nothing (the optimal policy does):
    preset "easy" costs 4.0375 from empty stock without a setup. For others a bound, by a linear programme in which
    machines can divide their time and setups are free.

    **Experts**: "optimal", where the optimum is known. **Reference policies**: "random"; "look-ahead", machines
    that change to the item with the dearest shortage ahead where that is worth the setup, how far ahead chosen by
    simulation on fixed noise.

    **Version history**: v0, first release.

    Args:
        preset: "easy" (2 items, 1 machine), "i5m2", "i15m5" or "i25m15" (items and machines).
        instance_seed: Draws the parameters of the preset, except "easy", which is fixed.
        horizon: Periods to truncation; None for 3 ("easy"), 50 ("i5m2") or 100.
        production: Units that a machine makes of an item in a period, 0 where it cannot, integers `[machines, items]`;
            None, here and below, for the preset's.
        setup_cost: Cost of a setup, `[machines, items]` or one number.
        setup_loss: Units lost in the period of a setup, integers `[machines, items]` or one.
        capacity: Units kept from period to period, integers `[items]` or one, at least 1.
        holding_cost: Of each unit kept, `[items]` or one number.
        shortage_cost: Of each unit of demand lost, `[items]` or one number.
        demand_trials: Demand of each item is binomial of this many trials.
        demand_probability: Of each trial, 0 to 1.

    Raises:
        ValueError: If an argument is outside its range or of a wrong shape, an item is made by no machine, or a machine
            makes no item.

    Source: the lot-sizing setting of "A Reinforcement Learning Method for Environments with Stochastic Variables:
    Post-Decision Proximal Policy Optimization with Dual Critic Networks", arXiv 2504.05150.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("inventory", "setup", "demand")

    def __init__(
        self,
        preset: str = "i5m2",
        instance_seed: int = 0,
        horizon: int | None = None,
        production: Sequence[Sequence[int]] | None = None,
        setup_cost: float | Sequence[Sequence[float]] | None = None,
        setup_loss: int | Sequence[Sequence[int]] | None = None,
        capacity: int | Sequence[int] | None = None,
        holding_cost: float | Sequence[float] | None = None,
        shortage_cost: float | Sequence[float] | None = None,
        demand_trials: int | None = None,
        demand_probability: float | None = None,
    ) -> None:
        self.plant = plant = changed_plant(
            preset_plant(preset, instance_seed),
            {
                "production": production,
                "setup_cost": setup_cost,
                "setup_loss": setup_loss,
                "capacity": capacity,
                "holding_cost": holding_cost,
                "shortage_cost": shortage_cost,
                "demand_trials": demand_trials,
                "demand_probability": demand_probability,
            },
        )
        self.horizon = check_count("LotSizing", "horizon", PRESETS[preset][2] if horizon is None else horizon)
        self.demand = BinomialDemand(plant.demand_trials, plant.demand_probability, plant.items)
        size, choices = plant.items + plant.machines, plant.items + 1
        self.observation_space = gym.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space = gym.spaces.MultiDiscrete([choices] * plant.machines)
        # Tables by machine and choice, choice 0 being idle, flattened so that one index finds an entry.
        idle = ((0, 0), (1, 0))
        self._output = Constant(np.pad(plant.production.astype(np.float64), idle).ravel())
        self._loss = Constant(np.pad(plant.setup_loss.astype(np.float64), idle).ravel())
        self._setup_cost = Constant(np.pad(plant.setup_cost, idle).ravel())
        self._rows = Constant(choices * np.arange(plant.machines))
        self._items = Constant(np.arange(1, choices))
        self._capacity, self._no_demand = Constant(plant.capacity.astype(np.float64)), Constant(np.zeros(plant.items))
        self._holding, self._shortage = Constant(plant.holding_cost), Constant(plant.shortage_cost)
        self._masks = Constant(np.pad(plant.production > 0, idle, constant_values=True).ravel())
        makeable = np.argsort(plant.production == 0, axis=1, kind="stable")
        self._makeable, self._num_makeable = Constant(1 + makeable), Constant((plant.production > 0).sum(axis=1))

    def initial(self, key: Key) -> PlantState:
        """Return random stocks below capacity, and setups that the machines can work with."""
        plant = self.plant
        share = key.uniform("inventory", (plant.items,))
        xp = namespace_of(share)
        inventory = xp.floor(share * self._capacity.like(share))
        chosen = key.uniform("setup", (plant.machines,))
        rank = xp.astype(xp.floor(chosen * self._num_makeable.like(chosen)), xp.int64)
        place = rank + self._rows.like(rank) // (plant.items + 1) * plant.items
        setup = xp.take(xp.reshape(self._makeable.like(rank), (-1,)), xp.reshape(place, (-1,)))
        period = rank[:, 0] * 0
        return PlantState(inventory, xp.reshape(setup, rank.shape), period, 0.0 * inventory)

    def decide(self, state: PlantState, action: Array) -> ProducedState:
        """Return the stock after production, the setups and their cost."""
        xp = namespace_of(state.inventory)
        inventory, changed = state.inventory, (action != state.setup) & (action != 0)
        place = action + self._rows.like(action)
        shift = xp.astype(changed, inventory.dtype)
        made = at_least(self._output.like(inventory)[place] - shift * self._loss.like(inventory)[place], 0.0)
        # Units by machine go to the item that the machine makes.
        of_item = xp.astype(action[:, :, None] == self._items.like(action), inventory.dtype)
        inventory = inventory + (made[:, :, None] * of_item).sum(1)
        setup_cost = row_sums(shift * self._setup_cost.like(inventory)[place])
        return ProducedState(inventory, action, state.period, setup_cost, -setup_cost)

    def realise(self, post: ProducedState, key: Key) -> Transition[PlantState]:
        """Return demand, what it costs, and the stock that is kept."""
        demand = self.demand.sample(key)
        xp = namespace_of(demand)
        over = post.inventory - demand
        left = at_least(over, 0.0)
        short = left - over
        inventory = xp.minimum(left, self._capacity.like(left))
        lost = weighted_sums(short, self._shortage.like(short))
        holding = weighted_sums(inventory, self._holding.like(inventory))
        info = {
            "demand": demand,
            "inventory": inventory,
            "short": short,
            "setup": post.setup_cost,
            "lost": lost,
            "holding": holding,
        }
        never = lost < 0.0
        return Transition(PlantState(inventory, post.setup, post.period + 1, demand), -(lost + holding), never, info)

    def observe(self, state: PlantState) -> Array:
        """Return stock over capacity and setups over the number of items, `[batch, items + machines]`."""
        return self._shown(state.inventory, state.setup)

    def observe_post(self, post: ProducedState) -> Array:
        """Return the same of a post-decision state; stock may be above capacity."""
        return self._shown(post.inventory, post.setup)

    def action_masks(self, state: PlantState) -> Array:
        """Return which items each machine can make, and idling, `[batch, machines * (items + 1)]`."""
        # A comparison that always holds makes a new array, which its reader may keep.
        return (state.setup[:, :1] >= 0) & self._masks.like(state.setup)

    @cached_property
    def optimum(self) -> LotSizingOptimum | None:
        """Return the optimum over the horizon, None where the plant is too large."""
        return lot_sizing_optimum(self.plant, self.horizon) if solvable(self.plant) else None

    @cached_property
    def _bound(self) -> float:
        return fluid_bound(self.plant, self.horizon, np.asarray(0.5 * (self.plant.capacity - 1.0), np.float64))

    def oracle(self) -> Oracle:
        """Return minus the least mean cost of an episode, or minus a lower bound on it."""
        estimand = Estimand("episode_return", unit="minus the cost of an episode")
        if self.optimum is None:
            return Oracle(-self._bound, estimand, "bound", "divisible machine time, setups for free (linear programme)")
        plant = self.plant
        starts = self.optimum.cost[self.horizon]
        starts = starts[tuple(slice(0, int(most)) for most in plant.capacity)]
        mean = starts.mean(axis=tuple(range(plant.items)))
        for machine in reversed(range(plant.machines)):
            mean = mean[..., 1 + np.flatnonzero(plant.production[machine])].mean(axis=-1)
        return Oracle(-float(mean), estimand, "optimum", "dynamic programming over the periods left")

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal", where the optimum is known."""
        return {} if self.optimum is None else {"optimal": OptimalLots(self, Constant(self.optimum.actions))}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and a rule that looks ahead."""
        looks, regrets = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 13.0, 20.0, 30.0), (0.0, 0.5, 1.0)
        grid = np.array([(look, regret) for look in looks for regret in regrets])
        return {"random": RandomActor(self.action_space), "look-ahead": Tuned(self, partial(LookAhead, self), grid)}

    def render(self, state: PlantState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return bars of stock against capacity with the last demand, and what the machines are set up for; or text."""
        stock, setup = [float(units) for units in state.inventory[row]], [int(item) for item in state.setup[row]]
        demand = [float(units) for units in state.last_demand[row]]
        if mode == "ansi":
            items = " ".join(f"{units:.0f}/{most}" for units, most in zip(stock, self.plant.capacity, strict=True))
            machines = " ".join("-" if item == 0 else str(item) for item in setup)
            return f"period {int(state.period[row])} | stock {items} | machines make {machines}"
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        step, width, ground, height = 26, 18, 110, 158
        canvas = rendering.Canvas(24 + step * max(len(stock), len(setup)), height)
        for item, (units, sold, most) in enumerate(zip(stock, demand, self.plant.capacity, strict=True)):
            left, scale = 12 + step * item, 90.0 / most
            canvas.rectangle(left, ground - 90, left + width, ground, rendering.PALE)
            canvas.rectangle(left, ground - scale * units, left + width, ground, rendering.BLUE)
            level = ground - scale * min(sold, float(most))
            canvas.rectangle(left, level - 1, left + width, level + 1, rendering.ORANGE)
            canvas.text(left, ground + 5, str(item + 1), scale=2)
            canvas.text(left, 8, f"{units:.0f}", scale=1)
        for machine, item in enumerate(setup):
            left = 12 + step * machine
            color = rendering.PALE if item == 0 else rendering.GREEN
            canvas.rectangle(left, height - 26, left + width, height - 6, color)
            canvas.text(left + 3, height - 21, "-" if item == 0 else str(item), rendering.INK, scale=2)
        return canvas.pixels

    def _shown(self, inventory: Array, setup: Array) -> Array:
        xp = namespace_of(inventory)
        machines = xp.astype(setup, inventory.dtype) / self.plant.items
        return xp.concat((inventory / self._capacity.like(inventory), machines), axis=1)
