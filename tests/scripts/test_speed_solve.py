"""Wall time to equal quality: the clock, with learners that take known times; and the zoo's side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.scripts import speed_solve
from palaestra.scripts.peer_policy import PeerPolicy
from palaestra.scripts.speed_solve import WARM_UP_SEED, OurLearner, SolveClock, Task, time_to_quality
from palaestra.scripts.timing import OURS


class FakeTime:
    """A time that passes only when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class FakeLearner:
    """Takes `cost` seconds for every ten env steps, and its policy is the number of steps taken."""

    def __init__(self, time: FakeTime, cost: float, budget: int = 1000) -> None:
        self.time, self.cost, self.budget = time, cost, budget
        self.seeds: list[int] = []

    def train(self, seed: int, clock: SolveClock) -> None:
        self.seeds.append(seed)
        self.time.seconds += 1000.0  # making things costs nothing
        policy = {"steps": 0}
        clock.start(policy)
        for steps in range(10, self.budget + 1, 10):
            self.time.seconds += self.cost
            policy["steps"] = steps
            if not clock.go_on(steps, updates=steps):
                break
        clock.stop(policy["steps"])


def test_the_clock_counts_training_and_stands_still_while_looking() -> None:
    time = FakeTime()
    looked: list[int] = []

    def reached(policy: dict[str, int]) -> bool:
        time.seconds += 500.0
        looked.append(policy["steps"])
        return policy["steps"] >= 75

    clock = SolveClock(reached, look_every=25, now=time)
    FakeLearner(time, cost=2.0).train(0, clock)
    # Looks are due at 25, 50, 75, 100 and taken at the first step from there on.
    assert looked == [30, 50, 80]
    assert (clock.solved, clock.steps, clock.seconds) == (True, 80, 16.0)


def test_a_seed_that_never_gets_there_counts_with_its_whole_budget() -> None:
    time = FakeTime()
    clock = SolveClock(lambda policy: False, look_every=40, now=time)
    FakeLearner(time, cost=1.0, budget=90).train(0, clock)
    assert (clock.solved, clock.steps, clock.seconds) == (False, 90, 9.0)


def test_many_steps_at_once_are_looked_at_once() -> None:
    looks: list[Any] = []
    clock = SolveClock(lambda policy: bool(looks.append(policy)), look_every=10, now=FakeTime())
    clock.start("policy")
    for steps in (35, 39, 40, 49, 70):
        assert clock.go_on(steps, updates=steps)
    assert len(looks) == 3  # at 35, 40 and 70


def test_a_policy_that_was_not_updated_is_not_looked_at_again() -> None:
    looks: list[int] = []
    now = FakeTime()
    clock = SolveClock(lambda policy: bool(looks.append(policy["steps"])), look_every=10, now=now)
    policy = {"steps": 0}
    clock.start(policy)
    for steps in range(0, 100, 10):
        policy["steps"] = steps
        now.seconds += 1.0
        assert clock.go_on(steps, updates=steps // 40)
    assert looks == [10, 40, 80]
    clock.stop(100)
    assert clock.seconds == 10.0


def test_a_learner_that_goes_on_after_it_was_told_to_stop_is_not_counted() -> None:
    now = FakeTime()
    clock = SolveClock(lambda policy: True, look_every=10, now=now)
    clock.start("policy")
    now.seconds += 2.0
    assert not clock.go_on(10, updates=1)
    now.seconds += 5.0
    assert not clock.go_on(20, updates=2)
    clock.stop(20)
    assert (clock.solved, clock.steps, clock.seconds) == (True, 10, 2.0)


def test_sides_are_timed_seed_by_seed_after_a_warm_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time = FakeTime()
    monkeypatch.setattr(SolveClock.__init__, "__defaults__", (time,))
    ours, theirs = FakeLearner(time, 1.0), FakeLearner(time, 3.0, budget=150)
    judged: list[tuple[int, int]] = []

    def reached(policy: dict[str, int], seed: int) -> bool:
        judged.append((seed, policy["steps"]))
        return policy["steps"] >= 100 * (seed + 1)

    found = time_to_quality("x", {OURS: ours, "peer": theirs}, reached, 100, 3, 1, {"env": "fake"})
    assert ours.seeds == theirs.seeds == [WARM_UP_SEED, 0, 1, 2]
    assert found.sides == {OURS: [10.0, 20.0, 30.0], "peer": [30.0, 45.0, 45.0]}
    assert found.details["solved"] == {OURS: [True, True, True], "peer": [True, False, False]}
    assert found.details["steps"]["peer"] == [100, 150, 150]
    assert found.details["env"] == "fake"
    assert (found.unit, found.ratio("peer")) == ("s", 45.0 / 20.0)
    assert judged == [(0, 100), (0, 100), (1, 100), (1, 100), (1, 200), (2, 100), (2, 200), (2, 300), (2, 100)]
    assert "seed 1, peer: 45.00 s, 150 steps, not reached" in capsys.readouterr().out


def test_the_zoo_linear_values_fall_to_zero() -> None:
    falling = speed_solve._schedule("lin_0.2")
    assert [falling(1.0), falling(0.5), falling(0.0)] == [0.2, 0.1, 0.0]
    assert speed_solve._schedule(0.2) == 0.2


def test_the_zoo_side_is_looked_at_as_it_was_trained() -> None:
    pytest.importorskip("stable_baselines3")
    learner = speed_solve.ZooLearner("PPO", "Acrobot-v1", 64, 2, {"n_steps": 16, "batch_size": 32}, normalize=True)
    looks: list[PeerPolicy] = []
    clock = SolveClock(lambda policy: bool(looks.append(policy)), look_every=32)
    learner.train(0, clock)
    assert (clock.steps, len(looks), clock.solved) == (64, 2, False)
    policy, observation = looks[0], np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(2, 6)
    normalised = policy.model.get_vec_normalize_env().normalize_obs(observation)
    assert not np.allclose(normalised, observation)
    expected, _ = policy.model.predict(normalised, deterministic=True)
    np.testing.assert_array_equal(policy.predict(observation)[0], expected)
    # Sampling draws from the evaluation's generator alone.
    before = torch.random.get_rng_state()
    samples = [
        policy.predict(observation, deterministic=False, generator=torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, *range(20))
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(samples[0], samples[1])
    assert any((sample != samples[0]).any() for sample in samples)


def test_the_zoo_side_sees_the_grid_flat_as_it_was_trained() -> None:
    pytest.importorskip("stable_baselines3")
    env_id = "MiniGrid-DoorKey-5x5-v0"
    learner = speed_solve.ZooLearner("PPO", env_id, 16, 2, {"n_steps": 8, "batch_size": 16}, flat_grid=True)
    model = learner.make(0)
    flat = model.env.reset()
    policy = PeerPolicy(model, speed_solve._mission_block(env_id))
    images = flat[:, : 7 * 7 * 3].reshape(2, 7, 7, 3)
    seen: list[np.ndarray] = []
    model.predict = lambda observation, **known: (seen.append(observation), None)
    policy.predict({"image": images, "direction": np.zeros(2)})
    np.testing.assert_array_equal(seen[0], flat)


@pytest.mark.parametrize(
    "task", [speed_solve.CART_POLE, speed_solve.PENDULUM, speed_solve.ACROBOT, speed_solve.DOOR_KEY]
)
def test_the_tasks_are_alike_for_both_sides(task: Task) -> None:
    pytest.importorskip("sb3_contrib")
    assert isinstance(task.ours, OurLearner)
    assert task.ours.settings()["config"]["num_envs"] == task.ours.make(1).num_envs
    assert len({peer.name for peer in task.peers}) == len(task.peers)
    for peer in task.peers:
        assert peer.env_id == task.ours.env_id
        assert task.look_every * 5 <= min(task.ours.budget, peer.budget)
        assert peer.make(0).n_envs == peer.num_envs
