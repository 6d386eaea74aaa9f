"""The evaluation contract: seeds, counting, pairing, enumeration, and that nothing of the agent is touched."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.agents.evaluation import evaluate as module
from palaestra.agents.evaluation.evaluate import evaluate, evaluate_modes
from palaestra.agents.evaluation.statistics import mean_interval, paired_interval
from palaestra.agents.registry import make_agent
from palaestra.agents.training.seeding import make_generator
from palaestra.envs.registration import make_simulator
from palaestra.seeding import row_seeds
from palaestra.wrappers.vectorize import make_vec

KUHN = "palaestra/Kuhn-v0"
STORE = "palaestra/OneStoreBacklog-v0"


class Scripted:
    """An agent whose every attribute but `predict` is an error, with a log of its calls."""

    def __init__(self, act, **allowed):
        self.__dict__.update(act=act, calls=[], **allowed)

    def predict(self, observation, state=None, episode_start=None, deterministic=False, **keywords):
        self.calls.append({"state": state, "start": episode_start, "deterministic": deterministic, **keywords})
        return self.act(observation, state)

    def __getattr__(self, name):
        if name in ("config", "device", "stochastic_modes", "action_probabilities", "acting_in"):
            raise AttributeError(name)
        pytest.fail(f"evaluation touched {name}")

    def __setattr__(self, name, value):
        pytest.fail(f"evaluation set {name}")


class Countdown(gym.Env):
    """Episodes of 1, 3, 5, ... steps, each step worth 1; the k-th episode succeeds if k is odd."""

    observation_space = gym.spaces.Box(-1, 99, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.left = self.episode + 1, 2 * self.episode + 3
        return np.array([self.left], np.float32), {"action_mask": np.array([False, True])}

    def step(self, action):
        assert action == 1
        self.left -= 1
        info = {"action_mask": np.array([False, True]), "is_success": self.left == 0 and self.episode % 2 == 1}
        return np.array([self.left], np.float32), 1.0, self.left == 0, False, info


@pytest.fixture(autouse=True, scope="module")
def countdown():
    gym.register("PalaestraTestCountdown-v0", entry_point=Countdown, disable_env_checker=True)
    yield
    del gym.registry["PalaestraTestCountdown-v0"]


def always(action):
    return lambda observation, state: (np.full(len(observation), action), None)


def test_every_row_runs_as_many_episodes():
    measured = evaluate(Scripted(always(1)), "PalaestraTestCountdown-v0", episodes=6, num_envs=2)
    # Stopping at the sixth episode that ends anywhere would count the same here only by luck of the order.
    np.testing.assert_array_equal(measured.returns, [1, 3, 5] * 2)
    np.testing.assert_array_equal(measured.lengths, [1, 3, 5] * 2)
    np.testing.assert_array_equal(measured.success, [False, True, False] * 2)
    assert measured.success_rate == pytest.approx(1 / 3)
    assert measured.value == measured.mean_return == 3.0
    assert measured.interval == mean_interval([1, 3, 5] * 2)
    assert measured.metrics() == {"mean_return": 3.0, "mean_length": 3.0, "success_rate": pytest.approx(1 / 3)}


def test_rows_that_are_done_do_not_count_on(monkeypatch):
    # Row 0 goes on stepping, and ending episodes, while row 1 finishes one of ten steps.
    class Uneven(Countdown):
        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            self.left = 10 if seed is not None and seed == row_seeds(0, "eval", 2)[1] else self.left
            return observation, info

    monkeypatch.setattr(gym.registry["PalaestraTestCountdown-v0"], "entry_point", Uneven)
    measured = evaluate(Scripted(always(1)), "PalaestraTestCountdown-v0", episodes=2, num_envs=2)
    np.testing.assert_array_equal(measured.returns, [1, 10])


def test_memory_and_masks_reach_the_agent():
    def count(observation, state):
        return np.ones(len(observation), int), 0 if state is None else state + 1

    agent = Scripted(count)
    evaluate(agent, "PalaestraTestCountdown-v0", episodes=2, num_envs=1)
    assert [call["state"] for call in agent.calls] == [None, 0, 1, 2]
    assert [call["start"].tolist() for call in agent.calls] == [[True], [True], [False], [False]]
    assert all((call["action_masks"] == [[False, True]]).all() for call in agent.calls)
    assert all(call["deterministic"] for call in agent.calls)


def test_rows_have_the_seeds_of_evaluation():
    seeds = row_seeds(3, "eval", 4)
    first = []
    evaluate(
        Scripted(lambda observation, state: (first.append(observation.copy()), (np.zeros(4, int), None))[1]),
        "CartPole-v1",
        episodes=4,
        num_envs=4,
        seed=3,
    )
    expected = [gym.make("CartPole-v1").reset(seed=seed)[0] for seed in seeds]
    np.testing.assert_array_equal(first[0], expected)
    assert not set(seeds) & set(row_seeds(3, "train", 1000))


def test_the_default_number_of_rows_divides_the_episodes():
    assert evaluate("random", "CartPole-v1", episodes=34).num_envs == 17
    with pytest.raises(ValueError, match="episodes=5, num_envs=2"):
        evaluate("random", "CartPole-v1", episodes=5, num_envs=2)
    with pytest.raises(ValueError, match="episodes=0"):
        evaluate("random", "CartPole-v1", episodes=0)


@pytest.mark.parametrize(("agent_id", "env_id"), [("sac", "Pendulum-v1"), ("ppo", KUHN)])
@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_changes_nothing_of_an_agent(agent_id, env_id, deterministic):
    agent = make_agent(agent_id, env_id, device="cpu", normalize_observation=True)
    agent.learn(64)
    before, global_streams = flat(agent.state_dict()), streams()
    first = evaluate(agent, env_id, episodes=4, deterministic=deterministic)
    assert_equal_trees(flat(agent.state_dict()), before)
    assert_equal_trees(streams(), global_streams)
    again = evaluate(agent, env_id, episodes=4, deterministic=deterministic)
    np.testing.assert_array_equal(first.returns, again.returns)


def streams():
    """Return the states of the global generators, which nothing may draw from."""
    numpy_state = np.random.get_state()  # noqa: NPY002 - looked at, not drawn from
    return {"torch": torch.get_rng_state(), "numpy": numpy_state[1].copy(), "position": np.array(numpy_state[2])}


def flat(tree, prefix=""):
    """Return the leaves of a tree by path, copied."""
    if isinstance(tree, dict):
        return {path: leaf for name, part in tree.items() for path, leaf in flat(part, f"{prefix}/{name}").items()}
    if isinstance(tree, list | tuple):
        return {path: leaf for name, part in enumerate(tree) for path, leaf in flat(part, f"{prefix}/{name}").items()}
    return {prefix: tree.clone() if isinstance(tree, torch.Tensor) else np.copy(tree)}


def assert_equal_trees(one, two):
    assert one.keys() == two.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(two[path]), err_msg=path)


def test_stochastic_acting_draws_from_the_evaluations_own_stream():
    agent = Scripted(always(1))
    evaluate(agent, "PalaestraTestCountdown-v0", episodes=2, num_envs=1, deterministic=False, seed=5)
    generators = {id(call["generator"]): call["generator"] for call in agent.calls}
    assert len(generators) == 1
    (generator,) = generators.values()
    expected = make_generator(5, "eval-policy", torch.device("cpu"))
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=expected))
    assert not any(call["deterministic"] for call in agent.calls)


def test_both_modes_where_they_differ():
    one = Scripted(always(1))
    assert list(evaluate_modes(one, "PalaestraTestCountdown-v0", episodes=2)) == ["deterministic"]
    two = Scripted(always(1), stochastic_modes=True)
    modes = evaluate_modes(two, "PalaestraTestCountdown-v0", episodes=2)
    assert {name: mode.deterministic for name, mode in modes.items()} == {"deterministic": True, "stochastic": False}


def test_frames_are_stacked_as_the_agent_was_trained():
    shapes = set()

    def act(observation, state):
        shapes.add(observation.shape)
        return np.zeros(len(observation), int), None

    class Config:
        frame_stack = 3

    evaluate(Scripted(act, config=Config()), "CartPole-v1", episodes=2, num_envs=2)
    assert shapes == {make_vec("CartPole-v1", 2, frame_stack=3).observation_space.shape}


def test_a_policy_is_paired_with_the_optimal_one_on_the_same_noise():
    arguments = {"episodes": 2, "env_kwargs": {"demand_std": 1.0}, "periods": 3200, "long_run_rows": 32}
    optimal = evaluate("optimal", STORE, **arguments)
    assert optimal.gap.estimate == optimal.gap.high == optimal.gap.low == 0.0
    lean = evaluate("no-safety-stock", STORE, **arguments)
    assert lean.expert_value == optimal.value
    assert lean.difference.estimate == pytest.approx(optimal.value - lean.value)
    assert lean.gap.estimate == pytest.approx((optimal.value - lean.value) / abs(optimal.value))
    assert lean.gap.low > 0.1
    # The noise is common: pairing leaves a narrower interval than the two runs' own would.
    assert lean.difference.high - lean.difference.low < (lean.interval.high - lean.interval.low)
    assert (lean.estimand, lean.oracle_kind) == ("long_run_reward", "optimum")
    assert optimal.interval.low < lean.oracle_value < optimal.interval.high


def test_a_long_run_is_one_episode_with_its_beginning_dropped():
    measured = evaluate("constant-order", STORE, episodes=2, periods=3010, long_run_rows=3, seed=1)
    env = make_vec(STORE, 3, env_kwargs={"horizon": 3010})
    env.reset(seed=row_seeds(1, "eval", 3))
    actor = env.simulator.reference_policies()["constant-order"]
    rewards = [env.step(actor(env.state, None, env.key()))[1] for _ in range(3010)]
    assert measured.value == pytest.approx(np.mean(rewards[3000:]), rel=1e-12)
    assert measured.interval == mean_interval(np.mean(rewards[3000:], axis=0))
    assert measured.lengths.tolist() == [100, 100]
    with pytest.raises(ValueError, match="periods=3000"):
        evaluate("optimal", STORE, episodes=2, periods=3000)
    with pytest.raises(ValueError, match="long_run_rows=1"):
        evaluate("optimal", STORE, episodes=2, long_run_rows=1)


def test_a_world_that_ends_has_no_long_run():
    env = make_vec(KUHN, 2)
    player = module.make_player("random", env, env.simulator, True, 0)
    with pytest.raises(ValueError, match="an episode ended at step"):
        module._play_long_run(env, player, [0, 1], 50, 10)


def test_without_an_oracle_the_value_is_the_mean_return():
    measured = evaluate("optimal", STORE, episodes=4, against_oracle=False)
    assert (measured.estimand, measured.value) == ("episode_return", measured.mean_return)
    assert measured.oracle_value is measured.gap is measured.expert_value is None


def test_a_bound_is_compared_with_as_a_number():
    measured = evaluate("nearest", "palaestra/MultiGoal2D-v0", episodes=8)
    bound = measured.oracle_value
    assert (measured.oracle_kind, measured.expert_value) == ("bound", None)
    assert measured.difference == paired_interval(np.full(8, bound), measured.returns)
    assert measured.gap.estimate == pytest.approx((bound - measured.value) / bound)
    assert measured.success_rate == 1.0


def test_enumerable_worlds_judge_a_policy_exactly():
    world = make_simulator(KUHN, seat=0)
    _, response = world.best_response()
    actions = response[world.decision_rows()].argmax(axis=1)
    observations = world.observe(world.enumerate_states())

    def respond(observation, state):
        match = (observation[:, None, :] == observations[None]).all(axis=-1)
        return actions[match.argmax(axis=1)], None

    measured = evaluate(Scripted(respond), KUHN, env_kwargs={"seat": 0}, episodes=10)
    assert (measured.exact_value, measured.exact_gap) == (pytest.approx(0.5), pytest.approx(0.0))
    always_bet = evaluate(Scripted(always(1)), KUHN, env_kwargs={"seat": 0}, episodes=10)
    one_hot = np.tile([0.0, 1.0], (len(actions), 1))
    assert always_bet.exact_value == world.exact_return(one_hot)
    assert always_bet.exact_gap == pytest.approx((0.5 - always_bet.exact_value) / 0.5)


def test_a_stochastic_policy_is_judged_by_its_probabilities():
    agent = Scripted(
        always(0), action_probabilities=lambda observation, action_masks: np.full((len(observation), 2), 0.5)
    )
    exact = evaluate(agent, KUHN, env_kwargs={"seat": 0}, episodes=2, deterministic=False).exact_value
    world = make_simulator(KUHN, seat=0)
    assert exact == world.exact_return(np.full((len(world.decision_rows()), 2), 0.5))
    without = evaluate(Scripted(always(0)), KUHN, episodes=2, deterministic=False)
    assert without.exact_value is without.exact_gap is None


@pytest.mark.parametrize("env_id", [KUHN, "palaestra/TextCorridor-v0"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_enumeration_agrees_with_sampling(env_id, deterministic):
    agent = make_agent("ppo", env_id, device="cpu", seed=1)
    measured = evaluate(agent, env_id, episodes=4000, num_envs=1000, deterministic=deterministic)
    # Twice the half width of a 95 % interval is some four standard errors.
    assert abs(measured.exact_value - measured.value) <= measured.interval.high - measured.interval.low


def test_a_policy_with_memory_is_not_judged_by_single_observations():
    agent = Scripted(lambda observation, state: (np.zeros(len(observation), int), 0))
    assert evaluate(agent, KUHN, episodes=2).exact_value is None


def test_random_policies_of_foreign_envs_are_seeded_row_by_row():
    one = evaluate("random", "CartPole-v1", episodes=8, num_envs=8, seed=2)
    assert (one.returns == evaluate("random", "CartPole-v1", episodes=8, num_envs=8, seed=2).returns).all()
    assert (one.returns != evaluate("random", "CartPole-v1", episodes=8, num_envs=8, seed=3).returns).any()
    # The env fails at a masked action.
    assert evaluate("random", "PalaestraTestCountdown-v0", episodes=2).lengths.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("policy", "env_id", "error", "message"),
    [
        ("optimal", "CartPole-v1", KeyError, "'optimal' is unknown to a foreign env"),
        ("perfect", STORE, KeyError, "'perfect' is unknown to OneStoreBacklog.*'random'.*'optimal'"),
        (lambda state, observation, key: None, "CartPole-v1", TypeError, "expected an own world"),
        (3, STORE, TypeError, "policy=3"),
    ],
    ids=["foreign", "unknown", "actor", "number"],
)
def test_policies_that_cannot_act_there_are_refused(policy, env_id, error, message):
    with pytest.raises(error, match=message):
        evaluate(policy, env_id, episodes=2)


def test_actors_are_policies_too():
    world = make_simulator(STORE)
    by_name = evaluate("base-stock", STORE, episodes=2, against_oracle=False)
    as_actor = evaluate(world.reference_policies()["base-stock"], STORE, episodes=2, against_oracle=False)
    np.testing.assert_array_equal(by_name.returns, as_actor.returns)
