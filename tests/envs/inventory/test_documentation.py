"""What docs/inventory.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium as gym
import pytest

from palaestra.envs import registration
from palaestra.envs.registration import make_simulator

TEXT = (Path(__file__).parents[3] / "docs" / "inventory.md").read_text(encoding="utf-8")


def table(title: str) -> list[list[float]]:
    """The numbers of the table whose head holds a title, row by row, without the first column."""
    lines = TEXT[TEXT.index(f"| {title}") :].split("\n\n")[0].splitlines()
    return [[float(cell) for cell in line.strip("| ").split(" | ")[1:]] for line in lines[2:]]


@pytest.mark.parametrize("lead", [1, 2, 3, 4])
def test_serial_table(lead):
    for underage, cost in zip((4.0, 9.0, 19.0, 39.0), table("`Serial`")[lead - 1], strict=True):
        world = make_simulator("palaestra/Serial-v0", store_lead_time=lead, underage_cost=underage)
        assert round(-world.oracle().value, 4) == cost  # type: ignore[union-attr]


@pytest.mark.parametrize(("row", "stores"), [(0, 3), (1, 5), (2, 10)])
def test_transshipment_table(row, stores):
    settings = ((4.0, 0.0), (4.0, 0.5), (9.0, 0.0), (9.0, 0.5))
    for (underage, correlation), cost in zip(settings, table("`Transshipment`")[row], strict=True):
        world = make_simulator(
            "palaestra/Transshipment-v0", stores=stores, underage_cost=underage, demand_correlation=correlation
        )
        assert round(-world.oracle().value, 4) == cost  # type: ignore[union-attr]


def test_store_tables():
    for lead, cost in zip((1, 4, 7, 10, 15, 20), table("`OneStoreBacklog`")[0], strict=True):
        assert round(-make_simulator("palaestra/OneStoreBacklog-v0", lead_time=lead).oracle().value, 4) == cost  # type: ignore[union-attr]
    # Longer lead times take seconds each: the world's own tests hold them.
    for lead, costs in enumerate(table("`OneStoreLost`")[:2], 1):
        for underage, cost in zip((4.0, 9.0, 19.0, 39.0), costs, strict=True):
            world = make_simulator("palaestra/OneStoreLost-v0", lead_time=lead, underage_cost=underage)
            assert round(-world.oracle().value, 4) == cost  # type: ignore[union-attr]


def test_every_world_named_exists():
    named = set(re.findall(r"palaestra/\w+-v0", TEXT))
    assert named <= set(registration.own_env_ids())


def test_examples_run():
    names: dict[str, object] = {}
    try:
        for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
            exec(code, names)
        env = names["env"]
        assert isinstance(env, gym.vector.VectorEnv)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        assert env.unwrapped.simulator.network.nodes == ("roastery", "depot", "airport", "old town", "station")  # type: ignore[attr-defined]
    finally:
        gym.registry.pop("my_package/Coffee-v0", None)
        registration._registered.pop("my_package/Coffee-v0", None)
