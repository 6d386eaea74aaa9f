"""A serial supply chain: several stages and a store, with the optimum of Clark and Scarf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory.estimand import LONG_RUN
from palaestra.envs.inventory.exact.clark_scarf import SerialOptimum, clark_scarf
from palaestra.envs.inventory.exact.lattice import clipped_normal
from palaestra.envs.inventory.links import Link
from palaestra.envs.inventory.network_policies import EchelonBaseStock, safety_levels
from palaestra.envs.inventory.orders import ActionMode
from palaestra.envs.inventory.supply_network import SupplyNetwork
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Actor, Oracle

_POINTS = 100
"""Points of the coarser lattice of demand in one standard deviation."""


class Serial(SupplyNetwork):
    """A chain of stages that supply one store, which backlogs: echelon base-stock policies are optimal.

    outside supplier -> echelon 0 -> echelon 1 -> warehouse -> store -> customers

    **One period**: (1) all orders are decided from the stock at the start of the period, and every stage ships what
    the next one orders, as far as it has it; (2) demand `max(0, normal(demand_mean, demand_std))` meets what the store
    has; (3) each stage pays its holding cost for each unit left after shipping, the store after demand, and
    `underage_cost` for each unit short, which is backlogged; stock in transit costs nothing; (4) goods move on: what
    is sent with lead time L in period t is on hand in period t + L, before the demand of that period.

    **State**: units on hand and in transit, float64. **Observation**: float32 (13 entries by default): on hand at each
    stage, most upstream first and the store negative under backlog, then what arrives at the stages in 1, 2, ...
    periods, those with the longest lead times first; all divided by `demand_mean`. `network` says which is which.
    **Action**: float32 `[stages]`, the orders of the stages, most upstream first; with `action_mode="normalised"` in
    [-1, 1], for `max_order * (action + 1) / 2` units, with "orders" in units. **Masks**: none.

    **Reward**: minus the cost of the period. **Start**: all stages are empty but the store, which has `demand_mean`
    times a uniform draw on [0, 1) on hand and in each slot of its pipeline. **End**: never terminated; truncated after
    `horizon` periods.

    **Info** after a step: `flows` `[stages]`, `demand` `[1]`, `inventory` `[stages]` and `rationed` in units;
    `holding`, `underage` and `supply` (0), the parts of the cost.

    **Noise**: draws "slots" (uniform) and "demand" (normal).

    **Oracle**: the least mean cost per period in the long run (5,000 periods, the first 3,000 ignored), as reward, by
    the decomposition of Clark and Scarf for demand clipped at 0, less the cost of stock in transit, which the
    textbook's recursion charges and this world does not: 10.7339 by default. Where holding costs fall downstream,
    the bound of the store alone; where `max_order` is less than `demand_mean + 3 demand_std`, a bound.

    | lead time of the store | cost at underage 4 | 9 | 19 | 39 |
    |---|---|---|---|---|
    | 1 | 6.8986 | 8.3669 | 9.6079 | 10.7008 |
    | 2 | 7.5984 | 9.2610 | 10.6703 | 11.9129 |
    | 3 | 8.2059 | 10.0366 | 11.5919 | 12.9647 |
    | 4 | 8.7525 | 10.7339 | 12.4201 | 13.9099 |

    **Experts**: "optimal", echelon base stock at the levels of Clark and Scarf. **Reference policies**: "random";
    "myopic", echelon base stock at the store's quantile of the demand over each stage's lead times;
    "newsvendor-bounds", echelon base stock at the mean of two quantiles that bound the optimal level (Shang and Song,
    2003); and, where it is known, "echelon-base-stock", at the optimal levels.

    **Version history**: v0, first release.

    Args:
        store_lead_time: From the warehouse to the store, in periods, at least 1.
        underage_cost: Cost of each unit of backlog in a period, above 0.
        upstream_lead_times: To each stage before the store, in periods, most upstream first.
        holding_costs: Of each unit left at each stage in a period, in the same order, the store's last.
        demand_mean: Mean demand in a period before clipping, in units, above 0.
        demand_std: Its standard deviation, at least 0.
        horizon: Periods to truncation.
        action_mode: "normalised" or "orders".
        max_order: Largest order of every stage, in units; None for four times the mean demand.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the serial setting of Alvo, Russo and Kanoria, "Neural inventory control in networks via hindsight
    differentiable policy optimization", arXiv 2306.11246; Clark and Scarf, "Optimal policies for a multi-echelon
    inventory problem", Management Science 6 (1960).
    """

    def __init__(
        self,
        store_lead_time: int = 4,
        underage_cost: float = 9.0,
        upstream_lead_times: Sequence[int] = (2, 4, 3),
        holding_costs: Sequence[float] = (0.1, 0.2, 0.5, 1.0),
        demand_mean: float = 5.0,
        demand_std: float = 2.0,
        horizon: int = 100,
        action_mode: ActionMode = "normalised",
        max_order: float | None = None,
    ) -> None:
        world = "Serial"
        if len(upstream_lead_times) < 1 or len(holding_costs) != len(upstream_lead_times) + 1:
            raise ValueError(
                f"{world}: upstream_lead_times={tuple(upstream_lead_times)!r} and holding_costs="
                f"{tuple(holding_costs)!r}; expected at least one stage before the store, and one holding cost more"
            )
        upstream = len(upstream_lead_times)
        names = [*(f"echelon {stage}" for stage in range(upstream - 1)), "warehouse", "store"]
        leads = [
            *(check_count(world, f"upstream_lead_times[{i}]", lead) for i, lead in enumerate(upstream_lead_times)),
            check_count(world, "store_lead_time", store_lead_time),
        ]
        holding = [check_amount(world, f"holding_costs[{i}]", cost) for i, cost in enumerate(holding_costs)]
        suppliers: list[str | None] = [None, *names[:-1]]
        super().__init__(
            links=[Link(*link) for link in zip(suppliers, names, leads, strict=True)],
            holding_cost=dict(zip(names, holding, strict=True)),
            underage_cost={"store": check_amount(world, "underage_cost", underage_cost, positive=True)},
            demand_mean={"store": check_amount(world, "demand_mean", demand_mean, positive=True)},
            demand_std={"store": check_amount(world, "demand_std", demand_std)},
            horizon=horizon,
            action_mode=action_mode,
            max_order=max_order,
        )

    @cached_property
    def optimum(self) -> SerialOptimum | None:
        """Return the optimum of Clark and Scarf; None where holding costs fall downstream."""
        if (np.diff(self.holding_cost) < 0.0).any():
            return None
        mean, std, underage = float(self.demand.mean[0]), float(self.demand.std[0]), float(self.underage_cost[0])
        coarse, fine = (
            clark_scarf(
                self.graph.lead_times,
                self.holding_cost,
                underage,
                clipped_normal(mean, std, (std or mean) / points),
            )
            for points in (_POINTS, 2 * _POINTS)
        )
        # The error falls with the square of the step, so that most of it can be extrapolated away.
        correction = (fine.cost - coarse.cost) / 3.0
        return SerialOptimum(fine.levels, fine.cost + correction, fine.cost_with_transit + correction)

    def oracle(self) -> Oracle | None:
        """Return minus the optimal cost per period in the long run, or minus a lower bound on it."""
        if self.optimum is None:
            return super().oracle()
        order_suffices = self.flow_limits[0] >= float(self.demand.mean[0] + 3.0 * self.demand.std[0])
        return Oracle(
            value=-self.optimum.cost,
            estimand=LONG_RUN,
            kind="optimum" if order_suffices else "bound",
            source="decomposition of Clark and Scarf (1960)",
        )

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal", where the oracle is an optimum."""
        oracle = self.oracle()
        exact = self.optimum is not None and oracle is not None and oracle.kind == "optimum"
        return {"optimal": EchelonBaseStock(self, self.optimum.levels)} if exact and self.optimum else {}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and rules of thumb, the best last."""
        policies: dict[str, Actor] = {
            "random": RandomActor(self.action_space),
            "myopic": EchelonBaseStock(self, safety_levels(self)),
        }
        if self.optimum is not None:
            policies["newsvendor-bounds"] = EchelonBaseStock(self, self.newsvendor_levels())
            policies["echelon-base-stock"] = EchelonBaseStock(self, self.optimum.levels)
        return policies

    def newsvendor_levels(self) -> np.ndarray:
        """Return echelon levels, each the mean of two newsvendor quantiles that bound the optimal one, `[stages]`.

        With p the underage cost and H the holding cost of a stage, of the one before it, and of the store, the
        quantiles are at `(p + H_before) / (p + H_store)` and `(p + H_before) / (p + H)`.

        Source: Shang and Song, "Newsvendor bounds and heuristic for optimal policies in serial supply chains",
        Management Science 49 (2003).
        """
        before = np.concatenate(((0.0,), self.holding_cost[:-1]))
        shortage = self.underage_cost[0] + before
        low = ndtri(shortage / (self.underage_cost[0] + self.holding_cost[-1]))
        high = ndtri(np.minimum(shortage / (self.underage_cost[0] + self.holding_cost), 1.0 - 1e-9))
        periods = np.cumsum(self.graph.lead_times[::-1])[::-1] + 1.0
        return periods * self.demand.mean[0] + 0.5 * (low + high) * self.demand.std[0] * np.sqrt(periods)
