"""The exact values of TextCorridor: closed forms, the simulator's own law integrated exactly, and simulation."""

from typing import Any

import numpy as np
import pytest

from palaestra.envs.noise import Tape, draw_tape
from palaestra.envs.simulator import take_rows
from palaestra.envs.text.corridor_exact import CorridorState
from palaestra.envs.text.text_corridor import TextCorridor
from palaestra.protocols import Enumerable

WORLDS: tuple[dict[str, Any], ...] = (
    {},
    {"shape": "tree", "reward_mode": "per_turn", "invalid_penalty": 0.1},
    {"reward_mode": "delayed", "action_mode": "slots", "loops": 2},
    {"shape": "tree", "reward_mode": "shaped", "rooms": 6, "tasks": 3, "invalid_penalty": 0.5},
    {"shape": "tree", "aliases": 3, "slip": 1.0, "rooms": 9},
    {"aliases": 4, "slip": 0.0, "tasks": 2},
)
WORLD_IDS = [",".join(f"{k}={v}" for k, v in world.items()) or "default" for world in WORLDS]


def random_policy(world: TextCorridor, seed: int = 0, admissible: bool = False) -> np.ndarray:
    masks = world.action_masks(world.enumerate_states())
    weights = np.random.default_rng(seed).random(masks.shape) * (masks if admissible else 1.0)
    return weights / weights.sum(axis=1, keepdims=True)


def table_of(world: TextCorridor, actor: Any) -> np.ndarray:
    states = world.enumerate_states()
    return np.eye(world.num_actions)[actor(states, world.observe(states), None)]


@pytest.mark.parametrize("slip", [0.0, 0.3, 1.0])
def test_a_chain_of_three_rooms_by_hand(slip: float) -> None:
    # From the middle an optimal move reaches the goal with probability p, else the end, from where the only door
    # leads back: six turns give three tries.
    p = 1.0 - slip + slip / 2.0
    world = TextCorridor(rooms=3, slip=slip)
    assert world.oracle().value == pytest.approx(1.0 - (1.0 - p) ** 3, abs=1e-12)
    # The same walk at one unit a turn: two turns, plus two more after each failed try, of which there are two at most.
    turns = 2.0 + 2.0 * (1.0 - p) + 2.0 * (1.0 - p) ** 2
    assert TextCorridor(rooms=3, slip=slip, reward_mode="per_turn").oracle().value == pytest.approx(-turns, abs=1e-12)
    values, states = world.exact_values(), world.enumerate_states()
    here = (states.turn == 5) & (states.place == 1)
    np.testing.assert_allclose(values.value[here], p, atol=1e-12)
    masked = np.where(world.action_masks(states), values.action_value, np.nan)[here]
    np.testing.assert_allclose(np.nanmax(masked, axis=1) + np.nanmin(masked, axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("arguments", WORLDS, ids=WORLD_IDS)
@pytest.mark.parametrize("optimal", [True, False])
def test_values_obey_the_simulators_own_law(arguments: dict[str, Any], optimal: bool) -> None:
    # A step draws one uniform number, on which it depends through thresholds at multiples of slip / degree only, so a
    # grid of that spacing integrates it exactly.
    world = TextCorridor(**arguments)
    states = world.enumerate_states()
    policy = None if optimal else random_policy(world)
    exact = world.exact_values(policy)
    row_of = {tuple(key): row for row, key in enumerate(zip(states.turn, states.place, states.last, strict=True))}
    grid = (np.arange(240) + 0.5) / 240
    count = len(states.turn)
    for action in range(world.num_actions):
        batch = take_rows(states, np.repeat(np.arange(count), len(grid)))
        step = world.step(batch, np.full(len(batch.turn), action), Tape({"slip": np.tile(grid, count)}))
        after = step.state
        following = np.array(
            [
                0.0 if over or turn == world.horizon else exact.value[row_of[turn, place, last]]
                for over, turn, place, last in zip(step.terminated, after.turn, after.place, after.last, strict=True)
            ]
        )
        q = (step.reward + following).reshape(count, len(grid)).mean(axis=1)
        np.testing.assert_allclose(exact.action_value[:, action], q, atol=1e-12)
    best = exact.action_value.max(axis=1) if policy is None else (policy * exact.action_value).sum(axis=1)
    np.testing.assert_allclose(exact.value, best, atol=1e-12)
    start = (states.turn == 0) & (states.last == 0)
    assert start.sum() == world.tasks
    assert exact.start_value == pytest.approx(exact.value[start].mean(), abs=1e-12)


@pytest.mark.parametrize("arguments", WORLDS, ids=WORLD_IDS)
def test_simulated_episodes_return_the_exact_value(arguments: dict[str, Any]) -> None:
    world, episodes = TextCorridor(**arguments), 4000
    actors = {**world.experts(), **world.reference_policies()}
    tables = {kind: table_of(world, actor) for kind, actor in actors.items() if kind != "random"}
    masks = world.action_masks(world.enumerate_states())
    tables["random"] = masks / masks.sum(axis=1, keepdims=True)
    for number, (kind, table) in enumerate(tables.items()):
        tape = draw_tape(range(number * episodes, (number + 1) * episodes), world.horizon)
        state = world.initial(tape.at(0))
        running, returns = np.ones(episodes, bool), np.zeros(episodes)
        for turn in range(world.horizon):
            key = tape.at(turn + 1)
            step = world.step(state, actors[kind](state, world.observe(state), key), key)
            returns += running * step.reward
            running, state = running & ~step.terminated, step.state
        error = returns.std() / np.sqrt(episodes)
        assert abs(returns.mean() - world.exact_return(table)) <= 4.0 * error + 1e-9, kind


@pytest.mark.parametrize("arguments", WORLDS, ids=WORLD_IDS)
def test_no_policy_passes_the_oracle_and_experts_stand_in_order(arguments: dict[str, Any]) -> None:
    world = TextCorridor(**arguments)
    optimum, experts = world.oracle(), world.experts()
    value = {kind: world.exact_return(table_of(world, actor)) for kind, actor in experts.items()}
    masks = world.action_masks(world.enumerate_states())
    uniform = world.exact_return(masks / masks.sum(axis=1, keepdims=True))
    assert value["optimal"] == pytest.approx(optimum.value, abs=1e-12)
    assert max(value["privileged"], value["fair"], world.exact_return(random_policy(world))) <= optimum.value + 1e-12
    assert min(value.values()) >= uniform - 1e-12
    assert (world.exact_values().advantage.max(axis=1) <= 1e-12).all()
    if optimum.kind == "optimum":
        assert value["fair"] == pytest.approx(optimum.value, abs=1e-12)


def test_aliased_rooms_make_the_optimum_a_bound_that_no_observer_reaches() -> None:
    world = TextCorridor(aliases=4)
    assert world.oracle().kind == "bound"
    states = world.enumerate_states()
    seen = np.unique(world.observe(states)["tokens"], axis=0, return_inverse=True)[1]
    fair = world.experts()["fair"](states, None, None)
    assert len(np.unique(seen)) < len(seen)
    assert all(len(set(fair[seen == look])) == 1 for look in np.unique(seen))
    assert world.exact_return(np.eye(6)[fair]) < world.oracle().value - 0.01
    # Without slips the turn line tells the rooms apart, so the bound is reached.
    certain = TextCorridor(aliases=4, slip=0.0)
    assert certain.exact_return(table_of(certain, certain.experts()["fair"])) == certain.oracle().value == 1.0
    assert TextCorridor(aliases=0).oracle().kind == "optimum"


def test_tasks_that_look_alike_make_the_optimum_a_bound() -> None:
    assert TextCorridor(rooms=2, tasks=40).oracle().kind == "bound"


def test_shaped_and_delayed_rewards_change_no_return() -> None:
    arguments: dict[str, Any] = {"shape": "tree", "loops": 1, "tasks": 2}
    modes = ("sparse", "shaped", "per_turn", "delayed")
    worlds = {mode: TextCorridor(reward_mode=mode, **arguments) for mode in modes}
    for seed in range(3):
        policy = random_policy(worlds["sparse"], seed)
        value = {mode: world.exact_return(policy) for mode, world in worlds.items()}
        assert value["shaped"] == pytest.approx(value["sparse"] + 1.0, abs=1e-12)
        assert value["delayed"] == pytest.approx(value["per_turn"], abs=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rooms": 2},
        {"rooms": 2, "tasks": 2},
        {"rooms": 3, "slip": 0.4, "action_mode": "slots", "reward_mode": "delayed"},
    ],
)
def test_probabilities_of_all_walks_sum_to_one_and_weigh_the_return(arguments: dict[str, Any]) -> None:
    world = TextCorridor(invalid_penalty=0.25, **arguments)
    policy = random_policy(world)
    slips = (0.0, 0.99 * world.slip, 0.99)
    total, expected = 0.0, 0.0
    walks: list[tuple[list[CorridorState], list[int], float]] = [
        ([CorridorState(np.array([place]), np.array([0]), np.array([0]))], [], 0.0)
        for place in np.arange(world.tasks) * world.rooms + world.map.start
    ]
    while walks:
        walk, actions, gained = walks.pop()
        for action in range(world.num_actions):
            steps = [world.step(walk[-1], np.array([action]), Tape({"slip": np.array([slip])})) for slip in slips]
            for step in {int(step.state.place[0]): step for step in steps}.values():
                longer = ([*walk, step.state], [*actions, action], gained + float(step.reward[0]))
                if not step.terminated[0] and len(longer[1]) < world.horizon:
                    walks.append(longer)
                    continue
                columns = [np.concatenate([getattr(s, name) for s in longer[0]]) for name in ("place", "last", "turn")]
                probability = world.trajectory_probability(CorridorState(*columns), np.array(longer[1]), policy)
                total, expected = total + probability, expected + probability * longer[2]
    assert total == pytest.approx(1.0, abs=1e-12)
    assert expected == pytest.approx(world.exact_return(policy), abs=1e-12)


def test_an_impossible_walk_has_probability_zero() -> None:
    world = TextCorridor(slip=0.0)
    states = world.enumerate_states()
    start = take_rows(states, np.flatnonzero(states.turn == 0))
    jump = CorridorState(np.append(start.place, (start.place + 4) % 8), np.array([0, 1]), np.array([0, 1]))
    uniform = np.full((len(states.turn), 6), 1 / 6)
    assert all(world.trajectory_probability(jump, np.array([action]), uniform) == 0.0 for action in range(6))


def test_enumeration_holds_every_state_that_play_can_reach_and_no_other() -> None:
    world, rows = TextCorridor(rooms=4, shape="tree", slip=0.5), 3000
    assert isinstance(world, Enumerable)
    states = world.enumerate_states()
    listed = set(zip(states.turn.tolist(), states.place.tolist(), states.last.tolist(), strict=True))
    assert len(listed) == len(states.turn)
    tape, rng = draw_tape(range(rows), world.horizon), np.random.default_rng(0)
    state, running, met = world.initial(tape.at(0)), np.ones(rows, bool), set()
    for turn in range(world.horizon):
        now = take_rows(state, running)
        met |= set(zip(now.turn.tolist(), now.place.tolist(), now.last.tolist(), strict=True))
        step = world.step(state, rng.integers(0, 6, rows), tape.at(turn + 1))
        state, running = step.state, running & ~step.terminated
    assert met == listed


@pytest.mark.parametrize(("change", "message"), [((0, slice(None)), "rows that"), ((slice(1), slice(3)), "shape")])
def test_tables_that_are_no_policies_are_refused(change: tuple[Any, Any], message: str) -> None:
    world = TextCorridor()
    table = random_policy(world)
    broken = table[change[0], change[1]] if message == "shape" else np.where(np.arange(6) == 0, -1.0, table)
    with pytest.raises(ValueError, match=message):
        world.exact_return(broken)


def test_the_default_world_has_the_values_of_its_docstring() -> None:
    world = TextCorridor()
    masks = world.action_masks(world.enumerate_states())
    uniform = masks / masks.sum(axis=1, keepdims=True)
    mixed = 0.9 * table_of(world, world.expert("optimal")) + 0.1 * uniform
    found = [world.oracle().value, world.exact_return(mixed), world.exact_return(uniform)]
    np.testing.assert_allclose(found, [0.9839, 0.9547, 0.1536], atol=5e-5)
