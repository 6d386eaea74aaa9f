"""RetailStore and RetailNetwork: profit, what is seen and what is not, just-in-time, and real sales."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palaestra.envs.inventory.retail_network import PUBLISHED_LEAD_TIMES, RetailNetwork
from palaestra.envs.inventory.retail_store import RetailStore
from palaestra.envs.inventory.sales import HISTORY, synthetic_sales
from palaestra.envs.inventory.timeline import timeline
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import long_run_reward, rollout

WORLDS: dict[str, Any] = {
    "store": lambda **given: RetailStore(**{"products": 8, **given}),
    "network": lambda **given: RetailNetwork(**{"products": 8, **given}),
}


@pytest.fixture(params=WORLDS)
def make(request: pytest.FixtureRequest) -> Any:
    return WORLDS[request.param]


def seeds(rows: int = 12) -> np.ndarray:
    return np.arange(rows)


# What is sold


def test_one_week_by_hand() -> None:
    world = RetailStore(products=1, stores=1, lead_times=(2,), underage_cost=9.0, action_mode="orders")
    sold = synthetic_sales(1, 1, 0).units[0, 0]
    scale = max(sold[:HISTORY].mean(), 1.0)
    key = CounterKey([0])
    state = world.initial(key)
    profits = []
    for _ in range(3):
        transition = world.step(state, np.array([[2.0]]), key)
        profits.append(float(transition.reward[0]) * scale)
        state = transition.state
    # The first two weeks have nothing to sell; the order of the first week is on hand in the third.
    assert profits[:2] == [0.0, 0.0]
    demand = sold[HISTORY + 2]
    on_hand = 2.0 * scale
    assert profits[2] == pytest.approx(9.0 * min(on_hand, demand) - max(on_hand - demand, 0.0))
    np.testing.assert_allclose(state.pipeline[0], [max(on_hand - demand, 0.0) + 2.0 * scale, 2.0 * scale])


def test_an_order_arrives_after_the_lead_time_of_its_series() -> None:
    world = RetailStore(products=2, stores=3)
    key = CounterKey(seeds(6))
    state = world.initial_of_task(np.arange(6), key)
    arrived = np.zeros(6, int)
    for period in range(1, 8):
        action = np.full((6, 1), -0.5 if period == 1 else -1.0)
        state = world.step(state, action, key).state
        arrived = np.where((arrived == 0) & (state.pipeline[:, 0] > 0.0), period, arrived)
    assert set(world.lead_times.tolist()) <= {4, 5, 6}
    np.testing.assert_array_equal(arrived, world.lead_times)


def test_profit_is_margin_less_costs_and_what_is_lost(make: Any) -> None:
    """Margin earned and margin lost add up to that of all demand; reward is profit over the scale."""
    world = make()
    run = rollout(world, world.reference_policies()["moving-average"], seeds(), steps=60)
    info, scale = run.info, run.state.scale
    supply = info.get("supply", 0.0)
    np.testing.assert_allclose(run.rewards * scale, info["margin"] - info["holding"] - supply, rtol=1e-9, atol=1e-9)
    if isinstance(world, RetailStore):
        wanted = info["demand"] * world.underage_costs[run.state.series]
    else:
        wanted = (info["demand"] * world.underage_cost).mean(-1)
    np.testing.assert_allclose(info["margin"] + info["underage"], wanted)
    assert (info["margin"] > 0.0).any()
    assert (info["underage"] > 0.0).any()


def test_a_network_of_one_path_is_the_store_with_the_lead_time() -> None:
    """Where a warehouse always has enough, its store sells what the single store sells."""
    store = RetailStore(products=4, stores=1, lead_times=(2,), underage_cost=9.0, action_mode="orders")
    network = RetailNetwork(
        products=4,
        store_lead_times=[(2,)],
        warehouse_lead_time=1,
        warehouse_holding_costs=(0.0,),
        supply_costs=(0.0,),
        underage_cost=9.0,
        holding_cost=1.0,
        action_mode="orders",
        max_order=1e4,
    )
    tasks, key = np.arange(4), CounterKey(seeds(4))
    ours, theirs = store.initial_of_task(tasks, key), network.initial_of_task(tasks, key)
    plenty = np.array([[1e4, 0.0]]) + np.zeros((4, 2))
    theirs = network.step(theirs, plenty, key).state
    start = network.initial_of_task(tasks, key)
    theirs = type(theirs)(**{**vars(theirs), "period": start.period})
    generator = np.random.default_rng(0)
    for _ in range(50):
        order = generator.uniform(0.0, 2.0, (4, 1))
        one = store.step(ours, order, key)
        other = network.step(theirs, np.concatenate((0.0 * order, order), axis=1), key)
        np.testing.assert_allclose(one.reward, other.reward, rtol=1e-9, atol=1e-9)
        ours, theirs = one.state, other.state


# What is seen


def test_observations_show_the_past_alone(make: Any) -> None:
    """Other sales from a week on change nothing of what is seen before it."""
    world, other = make(), make()
    table = other.table.window.values.copy()
    changed = HISTORY + 20
    table[:, changed:] += 100.0
    other.table.window = type(other.table.window)(table)
    key = CounterKey(seeds())
    states = [w.initial(key) for w in (world, other)]
    action = np.full((12, *world.action_space.shape), -0.7)
    for period in range(25):
        first, second = (w.observe(state) for w, state in zip((world, other), states, strict=True))
        assert np.array_equal(first, second) == (period <= 20)
        states = [w.step(state, action, key).state for w, state in zip((world, other), states, strict=True)]


def test_history_and_calendar_stand_where_the_network_says(make: Any) -> None:
    world = make(split="dev")
    network, key = world.network, CounterKey(seeds(3))
    state = world.initial_of_task(np.array([5, 1, 7]), key)
    for _ in range(2):
        state = world.step(state, np.full((3, *world.action_space.shape), -0.8), key).state
    observation = world.observe(state) * state.scale[:, None]
    sales = synthetic_sales(8, 21, 0)
    weeks = slice(88 + 2, 88 + 2 + HISTORY)
    stores = len(network.nodes) - int((network.underage_costs == 0.0).sum())
    for row, task in enumerate((5, 1, 7)):
        past = sales.units[task, :, weeks] if stores > 1 else sales.units.reshape(-1, 171)[task, weeks][None]
        np.testing.assert_allclose(observation[row][network.history[-stores:]], past)
    days = world.observe(state)[:, network.calendar[0]]
    np.testing.assert_allclose(days, sales.days_from_christmas[88 + HISTORY + 2] / 182.0)
    assert len(network.units) == world.observation_space.shape[0]


def test_windows_share_one_network(make: Any) -> None:
    first, *others = (vars(make(split=split).network) for split in ("train", "dev", "test"))
    for other in others:
        for name, values in first.items():
            np.testing.assert_array_equal(values, other[name])


def test_a_run_past_the_window_begins_it_again(make: Any) -> None:
    world = make(split="test")
    run = rollout(world, world.reference_policies()["moving-average"], seeds(4), steps=40)
    np.testing.assert_array_equal(run.info["demand"][37:], run.info["demand"][:3])


def test_series_are_numbered_tasks(make: Any) -> None:
    world = make()
    key = CounterKey(seeds(400))
    drawn = world.initial(key).series
    assert set(drawn.tolist()) <= set(range(world.tasks))
    assert len(set(drawn.tolist())) > 0.8 * min(world.tasks, 400)
    np.testing.assert_array_equal(world.initial_of_task(np.array([3]), CounterKey([9])).series, [3])


# What can be earned


def test_just_in_time_sells_everything_and_keeps_nothing() -> None:
    """From the first arrival on, where no week sells more than can be ordered."""
    world = RetailStore(products=8, max_order=1e3)
    run = rollout(world, world.expert("just-in-time"), seeds(50), steps=95)
    late = {name: values[6:] for name, values in run.info.items()}
    np.testing.assert_allclose(late["underage"], 0.0, atol=1e-6)
    np.testing.assert_allclose(late["holding"], 0.0, atol=1e-6)
    np.testing.assert_allclose(run.rewards[6:] * run.state.scale, late["margin"], atol=1e-6)


def test_the_oracle_is_what_just_in_time_earns() -> None:
    world = RetailStore(products=2, stores=3, split="test", max_order=1e3)
    oracle = world.oracle()
    assert (oracle.kind, oracle.estimand.periods, oracle.estimand.ignore) == ("bound", 37, 16)
    key = CounterKey(seeds(6))
    state, earned = world.initial_of_task(np.arange(6), key), []
    for _ in range(37):
        transition = world.step(state, world.expert("just-in-time")(state, None, key), key)
        earned.append(transition.reward)
        state = transition.state
    assert float(np.mean(earned[16:])) == pytest.approx(oracle.value)


def test_policies_earn_in_the_order_of_what_they_know(make: Any) -> None:
    """On the same products: random below moving average below just-in-time below the bound of these products."""
    world = make(split="test")
    policies = {**world.reference_policies(), **world.experts()}
    earned = {name: long_run_reward(world, policy, seeds(64), 37, 16) for name, policy in policies.items()}
    assert earned["random"].mean() < earned["moving-average"].mean() < earned["just-in-time"].mean()
    run = rollout(world, policies["just-in-time"], seeds(64), steps=37)
    bound = ((run.info["margin"] + run.info["underage"]) / run.state.scale)[16:].mean(0)
    for reward in earned.values():
        assert (reward <= bound + 1e-9).all()


def test_returns_can_only_help_the_same_levels() -> None:
    """With returns a base-stock level is kept from above, too; without them negative orders are none."""
    allowed, plain = (RetailStore(products=8, returns=given) for given in (True, False))
    state = plain.initial(CounterKey(seeds()))
    order = -0.5 * state.scale
    np.testing.assert_allclose(plain.decide(state, plain.action_of(order, state.scale)).order, 0.0, atol=1e-9)
    np.testing.assert_allclose(allowed.decide(state, allowed.action_of(order, state.scale)).order, order)
    np.testing.assert_array_equal(allowed.network.least_flows, [-6.0])
    assert float(allowed.observation_space.low[0]) == -np.inf


# The published network, torch, pictures


def test_the_network_is_the_published_one() -> None:
    world = RetailNetwork(products=2)
    network = world.network
    assert network.nodes[:3] == ("warehouse 0", "warehouse 1", "warehouse 2")
    assert len(network.nodes) == 24
    links = {
        (int(supplier), int(customer) - 3): int(lead)
        for supplier, customer, lead in zip(network.suppliers, network.customers, network.lead_times, strict=True)
        if supplier >= 0
    }
    expected = {
        (hub, store): lead
        for store, row in enumerate(PUBLISHED_LEAD_TIMES)
        for hub, lead in enumerate(row)
        if lead is not None
    }
    assert links == expected
    missing = {hub: [s for s, row in enumerate(PUBLISHED_LEAD_TIMES) if row[hub] is None] for hub in range(3)}
    assert missing == {0: [3, 14], 1: [5, 10, 11, 12, 13], 2: [11]}
    np.testing.assert_array_equal(network.lead_times[:3], 3)
    np.testing.assert_array_equal(network.unit_costs[:3], [0.5, 1.5, 0.7])
    np.testing.assert_array_equal(network.holding_costs[:3], [0.3, 0.4, 0.2])


def test_torch_gives_the_rewards_of_numpy_and_gradients(make: Any) -> None:
    world = make()
    run = rollout(world, world.reference_policies()["moving-average"], seeds(5), steps=30)
    key = CounterKey(torch.arange(5))
    state = world.initial(key)
    actions = torch.tensor(run.actions, requires_grad=True)
    total = []
    for step in range(30):
        transition = world.step(state, actions[step], key)
        state = transition.state
        total.append(transition.reward)
    np.testing.assert_allclose(torch.stack(total).detach().numpy(), run.rewards, rtol=1e-9, atol=1e-9)
    torch.stack(total).sum().backward()
    assert actions.grad is not None
    assert bool(actions.grad.isfinite().all())
    assert bool((actions.grad[:20] != 0.0).any())


def test_pictures_show_units(make: Any) -> None:
    world = make(split="test")
    picture = timeline(world, world.reference_policies()["moving-average"], periods=37)
    assert picture.shape == (74 * (len(world.network.nodes) + 1) + 8, 128 + 7 * 37 + 8, 3)
    state = world.initial_of_task(np.array([1]), CounterKey([0]))
    assert "on hand 0.0" in str(world.render(state, mode="ansi"))
    assert world.render(state).dtype == np.uint8


# Files and arguments


def sales_file(path: Path, products: int = 3, stores: int = 21, weeks: int = 120) -> str:
    drawn = np.random.default_rng(0).poisson(20.0, (products, stores, weeks)).astype(np.float32)
    np.savez(path, weekly_sales=drawn, days_from_christmas=np.arange(weeks) - 60)
    return str(path)


def test_worlds_take_sales_from_a_file(make: Any, tmp_path: Path) -> None:
    path = sales_file(tmp_path / "sales.npz")
    world = make(sales=path, split="train")
    assert world.horizon == 120 - 60 - HISTORY
    earned = long_run_reward(world, world.reference_policies()["moving-average"], seeds(), world.horizon, 16)
    assert np.isfinite(earned).all()
    with pytest.raises(ValueError, match="of 21 stores; expected 2, one for each row of store_lead_times"):
        RetailNetwork(sales=path, store_lead_times=[(1,), (2,)], warehouse_holding_costs=(0.1,), supply_costs=(0.1,))


def test_names_alone_are_looked_for_among_the_data(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    sales_file(folder / "sales.npz")
    with pytest.raises(FileNotFoundError, match=r"sales\.npz"):
        make(sales="sales.npz")
    monkeypatch.setenv("PALAESTRA_DATA", str(folder))
    assert make(sales="sales.npz", split="train").horizon == 120 - 60 - HISTORY
    with pytest.raises(FileNotFoundError, match=r"data/other\.npz"):
        make(sales="other.npz")
    monkeypatch.chdir(tmp_path)
    sales_file(tmp_path / "other.npz")
    assert make(sales="other.npz", split="train").horizon == 120 - 60 - HISTORY


@pytest.mark.skipif(
    not (Path(os.environ.get("PALAESTRA_DATA", "")) / "weekly_sales.npz").is_file(),
    reason="PALAESTRA_DATA names no folder with weekly_sales.npz",
)
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_real_sales_have_the_published_size(make: Any, split: str) -> None:
    path = str(Path(os.environ["PALAESTRA_DATA"]) / "weekly_sales.npz")
    world = make(sales=path, split=split)
    assert world.tasks == (288 * 21 if isinstance(world, RetailStore) else 288)
    assert world.horizon == (95 if split == "train" else 37)
    policies = {**world.reference_policies(), **world.experts()}
    earned = {name: long_run_reward(world, policy, seeds(64), world.horizon, 16) for name, policy in policies.items()}
    assert earned["random"].mean() < earned["moving-average"].mean() < earned["just-in-time"].mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "validation"}, "split='validation'; expected one of train, dev, test"),
        ({"split": "test", "horizon": 38}, "horizon=38; expected None or at most the 37 weeks of the window"),
        ({"products": 0}, "products=0; expected an integer of at least 1"),
        ({"data_seed": -1}, "data_seed=-1; expected an integer of at least 0"),
        ({"underage_cost": 0.0}, "underage_cost.*0.0.*; expected a finite number above 0"),
        ({"max_order": 0.0}, "max_order=0.0; expected a finite number above 0"),
    ],
)
def test_bad_arguments_are_refused(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_a_store_without_a_lead_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lead_times=\(\); expected at least one"):
        RetailStore(lead_times=())
    with pytest.raises(ValueError, match=r"lead_times\[1\]=0; expected an integer of at least 1"):
        RetailStore(lead_times=(4, 0))
