"""Links, transit, rationing, columns, constants and demand: the parts of supply networks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from palaestra.envs.inventory import columns
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.demand import BinomialDemand, NormalDemand, PoissonDemand
from palaestra.envs.inventory.feasibility import allotted, limited, rationed
from palaestra.envs.inventory.links import Link, read_links
from palaestra.envs.inventory.network_policies import water_filling
from palaestra.envs.inventory.orders import OrderScale
from palaestra.envs.inventory.transit import Transit
from palaestra.envs.noise import draw_tape


def test_links_are_put_in_order():
    graph = read_links(
        "Net",
        [("hub", "east", 2, 0.5), (None, "hub", 3), ("port", "hub", 1), Link(None, "port", 4), ("port", "west", 6)],
    )
    assert graph.nodes == ("hub", "port", "east", "west")
    assert graph.stores == ("east", "west")
    assert graph.num_suppliers == 2
    assert graph.num_outside == 2
    assert graph.suppliers.tolist() == [-1, -1, 0, 1, 1]
    assert graph.customers.tolist() == [0, 1, 2, 0, 3]
    assert graph.lead_times.tolist() == [3, 4, 2, 1, 6]
    assert graph.unit_costs.tolist() == [0.0, 0.0, 0.5, 0.0, 0.0]
    assert graph.given.tolist() == [1, 3, 0, 2, 4]
    assert graph.num_customers == (1, 2)
    reached = {(a, b) for i, a in enumerate(graph.nodes) for j, b in enumerate(graph.nodes) if graph.reaches[i, j]}
    ways = {("hub", "east"), ("port", "hub"), ("port", "east"), ("port", "west")}
    assert reached == ways | {(name, name) for name in graph.nodes}


def test_fastest_and_cheapest_links():
    # The store's dear link is fast; by the cheap one goods pay .5 on the way to the far hub and nothing after.
    links = [(None, "near", 1, 2.0), (None, "far", 1, 0.5), ("near", "store", 1, 0.0), ("far", "store", 5, 0.0)]
    graph = read_links("Net", links)
    assert [graph.links[i].supplier for i in graph.fastest_links()] == [None, None, "near"]
    assert [graph.links[i].supplier for i in graph.cheapest_links()] == [None, None, "far"]
    assert graph.cheapest_ways().tolist() == [2.0, 0.5, 0.5]
    assert graph.periods_between()[:, 2].tolist() == [1.0, 5.0, 0.0]
    only = graph.reaches_over(graph.cheapest_links())
    assert only.tolist() == [[True, False, False], [False, True, True], [False, False, True]]


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([], "expected at least one link"),
        ([(None, "a", 1), (None, "a", 2)], r"links\[1\] leads from None to 'a' again"),
        ([(None, "a", 0)], r"links\[0\].lead_time=0; expected an integer of at least 1"),
        ([(None, "a", 1.5)], r"links\[0\].lead_time=1.5; expected an integer"),
        ([(None, "a", 1, -1.0)], r"links\[0\].unit_cost=-1.0; expected a finite number of at least 0"),
        ([("a", "b", 1)], "node 'a' is disconnected; expected links that reach it from the outside"),
        ([(None, "a", 1), ("b", "c", 1)], "node 'b' is disconnected"),
        ([(None, "a", 1), ("a", "b", 1), ("b", "a", 1)], "lead from 'a' back to it; expected a network without cycles"),
        ([(None, "a", 1), ("a", "a", 1)], "lead from 'a' back to it"),
        ([(None, "a")], r"links\[0\]=\(None, 'a'\); expected \(supplier, customer, lead_time\)"),
        (["abc"], r"links\[0\]='abc'; expected"),
        ([(None, None, 1)], r"links\[0\] leads from None to None; expected names"),
        ([(3, "a", 1)], r"links\[0\] leads from 3 to 'a'; expected names"),
    ],
)
def test_bad_links_are_refused(links, message):
    with pytest.raises(ValueError, match=f"Net: .*{message}" if not message.startswith("links") else f"Net: {message}"):
        read_links("Net", links)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("leads", [[1], [3], [1, 1], [2, 4, 3, 4], [3, 2, 3, 2, 2], [1, 6, 2, 1], [2, 2, 2]])
def test_transit_delivers_after_the_lead_time(leads, library):
    """Flows of 100 link + period over links to nodes of their own, against a list of what was sent when."""
    transit = Transit(np.array(leads), np.arange(len(leads)))
    assert transit.size == sum(lead - 1 for lead in leads)
    in_transit, sent = np.zeros((2, transit.size)), []
    for period in range(12):
        flows = np.array([[100.0 * link + period + 1.0 for link in range(len(leads))]] * 2)
        sent.append(flows[0])
        given = (in_transit, flows) if library == "numpy" else (torch.tensor(in_transit), torch.tensor(flows))
        arrived, later = transit.advance(columns.parted(given[0], transit.groups), given[1])
        in_transit = np.asarray(columns.joined(later)) if later else in_transit
        # What arrives at the end of period t, for use in t + 1, was sent in t + 1 - lead.
        expected = [sent[period + 1 - lead][link] if period + 1 >= lead else 0.0 for link, lead in enumerate(leads)]
        np.testing.assert_array_equal(np.asarray(arrived), [expected] * 2)
        for link, lead in enumerate(leads):
            for ahead in range(1, lead):
                when = period + 1 + ahead - lead
                units = sent[when][link] if when >= 0 else 0.0
                assert in_transit[1, transit.places[link, ahead - 1]] == units
            assert (transit.places[link, lead - 1 :] == -1).all()


def test_several_links_into_one_node_add_up():
    transit = Transit(np.array([2, 1, 3, 1]), np.array([0, 1, 1, 2]))
    in_transit = np.array([[5.0, 7.0, 11.0]])  # One period ahead on links 2 and 0, two ahead on link 2.
    arrived, later = transit.advance(columns.parted(in_transit, transit.groups), np.array([[1.0, 2.0, 3.0, 4.0]]))
    np.testing.assert_array_equal(arrived, [[7.0, 5.0 + 2.0, 4.0]])
    np.testing.assert_array_equal(columns.joined(later), [[11.0, 1.0, 3.0]])
    np.testing.assert_array_equal(transit.coming(in_transit), [[7.0, 16.0, 0.0]])


def random_wishes(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wanted = rng.random((500, 4)) * 10.0 * (rng.random((500, 4)) < 0.8)
    available = rng.random((500, 1)) * 40.0 * (rng.random((500, 1)) < 0.9)
    return wanted, available


def test_rationing_cuts_in_proportion_and_only_where_it_must():
    wanted, available = random_wishes()
    sent = rationed(wanted, available)
    total, short = wanted.sum(1), wanted.sum(1) > available[:, 0]
    assert 100 < short.sum() < 400
    np.testing.assert_array_equal(sent[~short], wanted[~short])
    np.testing.assert_allclose(sent[short].sum(1), available[short, 0], rtol=1e-14)
    np.testing.assert_allclose(sent[short], wanted[short] * (available[short, 0] / total[short])[:, None], rtol=1e-14)
    np.testing.assert_allclose(rationed(3.0 * wanted, 3.0 * available), 3.0 * sent, rtol=1e-14)
    assert (sent >= 0.0).all()


def test_allotment_leaves_nothing():
    wanted, available = random_wishes()
    sent = allotted(wanted, available)
    np.testing.assert_allclose(sent.sum(1), available[:, 0], rtol=1e-13)
    some = wanted.sum(1) > 0.1
    np.testing.assert_allclose(sent[some], (wanted / wanted.sum(1, keepdims=True) * available)[some], atol=1e-6)
    np.testing.assert_allclose(allotted(np.zeros((1, 4)), np.array([[8.0]])), [[2.0] * 4])


def test_limits_are_elementwise():
    wanted, available = random_wishes()
    np.testing.assert_array_equal(limited(wanted, 0.0 * wanted + available), np.minimum(wanted, available))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [rationed, allotted, limited])
@pytest.mark.parametrize(("asked", "stock"), [(0.0, 0.0), (0.0, 5.0), (5.0, 0.0), (5.0, 2.0), (2.0, 5.0)])
def test_gradients_are_finite_without_stock_or_wishes(rule, asked, stock, dtype):
    wanted = torch.full((1, 3), asked, dtype=dtype, requires_grad=True)
    available = torch.full((1, 3 if rule is limited else 1), stock, dtype=dtype, requires_grad=True)
    sent = rule(wanted, available)
    assert sent.dtype == dtype
    gradients = torch.autograd.grad((sent * torch.tensor([1.0, 2.0, 3.0], dtype=dtype)).sum(), (wanted, available))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("rule", [rationed, allotted])
def test_gradients_equal_finite_differences(rule):
    wanted = torch.tensor([[1.0, 4.0, 2.0], [1.0, 0.5, 2.0]], dtype=torch.float64, requires_grad=True)
    available = torch.tensor([[5.0], [9.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rule, (wanted, available))


def test_columns_on_both_libraries():
    rng = np.random.default_rng(1)
    array, other, weights = rng.random((6, 5)), rng.random((6, 2)), rng.random(5)
    tensor = columns.by_column(torch.tensor(array))
    assert tensor.T.is_contiguous()
    assert columns.by_column(array) is array
    pairs = [
        (columns.joined((array, other)), columns.joined((tensor, torch.tensor(other)))),
        (columns.picked(array, np.array([3, 0])), columns.picked(tensor, torch.tensor([3, 0]))),
        (columns.row_sums(array), columns.row_sums(tensor)),
        (columns.weighted_sums(array, weights), columns.weighted_sums(tensor, torch.tensor(weights))),
        (columns.positive_part(array - 0.5), columns.positive_part(tensor - 0.5)),
        *zip(columns.parted(array, (2, 0, 3)), columns.parted(tensor, (2, 0, 3)), strict=True),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-14)
    np.testing.assert_array_equal(columns.joined((array, other)), np.hstack((array, other)))
    np.testing.assert_allclose(columns.weighted_sums(array, weights), array @ weights)


def test_sums_of_a_row_do_not_depend_on_the_batch():
    rng = np.random.default_rng(2)
    for width in (1, 3, 8, 17, 51):
        array, weights = 1e3 * rng.standard_normal((40, width + 3)), rng.standard_normal(width)
        part = array[:, 2 : 2 + width]
        for rows in (1, 7, 40):
            np.testing.assert_array_equal(columns.row_sums(part[:rows]), columns.row_sums(part)[:rows])
            some = columns.weighted_sums(part[:rows], weights)
            np.testing.assert_array_equal(some, columns.weighted_sums(part, weights)[:rows])


def test_constants_follow_library_and_precision():
    constant = Constant([1.0, 2.5])
    assert constant.like(np.zeros(2)) is constant.like(np.zeros(3))
    assert constant.like(np.zeros(2, np.float32)).dtype == np.float32
    single = constant.like(torch.zeros(2, dtype=torch.float32))
    assert single.dtype == torch.float32
    assert constant.like(torch.zeros(5, dtype=torch.float32)) is single
    assert Constant(3.5).like(torch.zeros(2)) == 3.5
    places = Constant([2, 0])
    assert places.like(torch.zeros(2, dtype=torch.float32)).dtype == torch.int64
    copied = pickle.loads(pickle.dumps(constant))
    np.testing.assert_array_equal(copied.values, constant.values)
    with pytest.raises(ValueError, match="read-only"):
        constant.values[0] = 7.0


def test_order_scale():
    scale = OrderScale("World", "normalised", np.array([10.0, 40.0]))
    actions = np.array([[-1.0, 0.0], [1.0, 1.5]])
    np.testing.assert_array_equal(scale.orders_of(actions), [[0.0, 20.0], [10.0, 40.0]])
    np.testing.assert_array_equal(scale.actions_of(np.array([[5.0, 50.0]])), [[0.0, 1.0]])
    units = OrderScale("World", "orders", np.array([10.0, 40.0]))
    np.testing.assert_array_equal(units.orders_of(np.array([[-3.0, 50.0]])), [[0.0, 40.0]])
    np.testing.assert_array_equal(units.space.high, np.float32([10.0, 40.0]))
    with pytest.raises(ValueError, match="World: action_mode='units'; expected 'normalised' or 'orders'"):
        OrderScale("World", "units", 3.0)  # type: ignore[arg-type]


def test_normal_demand_has_its_moments():
    mean, std = np.array([5.0, 3.0, 7.0]), np.array([1.0, 1.5, 2.0])
    key = draw_tape(np.arange(40_000), 1).at(1)
    for correlation in (0.0, 0.5, 1.0):
        demand = NormalDemand(mean, std, correlation, clipped=False).sample(key)
        np.testing.assert_allclose(demand.mean(0), mean, atol=5.0 * std.max() / 200.0)
        np.testing.assert_allclose(demand.std(0), std, rtol=0.02)
        found = np.corrcoef(demand.T)[np.triu_indices(3, 1)]
        np.testing.assert_allclose(found, correlation, atol=0.02)
    clipped = NormalDemand(mean, 3.0 * std, 0.5).sample(key)
    np.testing.assert_array_equal(
        clipped, np.maximum(NormalDemand(mean, 3.0 * std, 0.5, clipped=False).sample(key), 0.0)
    )


def test_counts_have_their_chances():
    key = draw_tape(np.arange(60_000), 1).at(1)
    poisson = PoissonDemand(5.0).sample(key)
    found = np.bincount(poisson.astype(int), minlength=13)[:13]
    expected = 60_000 * stats.poisson.pmf(np.arange(13), 5.0)
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-3
    binomial = BinomialDemand(4, 0.4, 3).sample(key)
    assert binomial.shape == (60_000, 3)
    found = np.bincount(binomial[:, 1].astype(int), minlength=5)
    assert stats.chisquare(found, 60_000 * stats.binom.pmf(np.arange(5), 4, 0.4)).pvalue > 1e-3
    assert abs(np.corrcoef(binomial.T)[0, 1]) < 0.02
    assert BinomialDemand(4, 1.0, 2).sample(key).min() == 4.0
    assert BinomialDemand(4, 0.0, 2).sample(key).max() == 0.0


def test_counts_are_the_same_on_torch():
    ours = draw_tape(np.arange(5000), 1).at(1)
    theirs = draw_tape(torch.arange(5000), 1).at(1)
    for demand in (PoissonDemand(5.0), BinomialDemand(20, 0.4, 5), NormalDemand([5.0, 4.0], [1.0, 2.0], 0.5)):
        np.testing.assert_allclose(demand.sample(theirs).numpy(), demand.sample(ours), rtol=1e-13)


def test_water_filling_against_bisection():
    rng = np.random.default_rng(3)
    heights, widths = 10.0 * rng.standard_normal((300, 6)), 0.5 + rng.random(6)
    volume = 20.0 * rng.random((300, 1)) * (rng.random((300, 1)) < 0.9)
    poured = water_filling(heights, widths, volume)
    np.testing.assert_allclose(poured.sum(1), volume[:, 0], atol=1e-10)
    assert (poured >= 0.0).all()
    low, high = np.full((300, 1), -100.0), np.full((300, 1), 100.0)
    for _ in range(80):
        level = 0.5 * (low + high)
        full = np.maximum(level * widths - heights, 0.0).sum(1, keepdims=True) > volume
        low, high = np.where(full, low, level), np.where(full, level, high)
    np.testing.assert_allclose(poured, np.maximum(high * widths - heights, 0.0), atol=1e-9)
    same = water_filling(torch.tensor(heights), torch.tensor(widths), torch.tensor(volume))
    np.testing.assert_allclose(same.numpy(), poured, atol=1e-12)
