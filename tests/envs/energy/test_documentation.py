"""What docs/energy.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.envs import registration
from palaestra.envs.energy.exact.single_reservoir import expected_cost
from palaestra.envs.registration import make_simulator

TEXT = (Path(__file__).parents[3] / "docs" / "energy.md").read_text(encoding="utf-8")


def test_expected_costs_of_hydro_1r() -> None:
    head, _, row = TEXT[TEXT.index("| optimal |") :].split("\n\n")[0].splitlines()
    told = dict(zip(head.strip("| ").split(" | "), map(float, row.strip("| ").split(" | ")), strict=True))
    world = make_simulator("palaestra/Hydro1R-v0")
    rules = {"constant release of 60": "constant", "greedy": "greedy", "run-of-river": "run-of-river"}
    found = {name: expected_cost(world, world.reference_policies()[rule]) for name, rule in rules.items()}
    found["optimal"] = -world.oracle().value  # type: ignore[union-attr]
    assert told == {name: round(cost, 2) for name, cost in found.items()}


def test_optima_and_water_value_in_the_text() -> None:
    world: Any = make_simulator("palaestra/Hydro1R-v0")
    costs = [f"{world.optimum.cost_from(0, volume):.2f}" for volume in (0.0, 150.0)]
    assert all(number in TEXT for number in [*costs, f"{world.optimum.water_value(0, 50.0):.2f}"])
    assert f"{len(world.inflows.probabilities) ** world.horizon:,}" in TEXT


def test_every_world_named_exists() -> None:
    assert set(re.findall(r"palaestra/\w+-v0", TEXT)) <= set(registration.own_env_ids())


def test_examples_run() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(code, names)
    assert names["picture"].dtype == np.uint8
