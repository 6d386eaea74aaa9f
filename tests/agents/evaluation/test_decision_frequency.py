"""Decision frequencies: what an agent sees and does when it may look less often, and the score made of it."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from palaestra import cli
from palaestra.agents.evaluation.decision_frequency import (
    LENGTHS,
    ReturnScale,
    decision_frequencies,
    frequency_averaged_score,
    return_scale,
)
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.open_loop import OpenLoop
from palaestra.agents.registry import make_agent


class Recording:
    """Acts by the first entry of its observation and remembers which rows were asked."""

    def __init__(self) -> None:
        self.observed: list[np.ndarray] = []

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        self.observed.append(np.asarray(observation)[:, 0].copy())
        count = np.zeros(len(observation)) if state is None else np.where(episode_start, 0, state)
        return np.asarray(observation)[:, :1] * 10 + count[:, None], count + 1


class Planning(Recording):
    """Plans a sequence: its first entry and the integers after it."""

    def predict_sequence(self, observation: Any, length: int, state: Any = None, **keywords: Any) -> Any:
        first = np.asarray(observation)[:, :1]
        return (first + np.arange(length))[:, :, None], first[:, 0] + length


def steps(policy: OpenLoop, starts: list[list[int]]) -> np.ndarray:
    """Actions `[steps, rows]` on observations that count up from 0, with an episode starting where `starts` says."""
    state, actions = None, []
    for step, start in enumerate(starts):
        observation = np.full((len(start), 1), float(step))
        action, state = policy.predict(observation, state, np.array(start, bool), True)
        actions.append(action[:, 0])
    return np.array(actions)


def test_an_action_is_repeated_until_the_next_decision() -> None:
    policy = Recording()
    actions = steps(OpenLoop(policy, 3), [[1]] + [[0]] * 6)
    # The observation times ten, plus the number of decisions before: its recurrent state counts them.
    np.testing.assert_array_equal(actions[:, 0], [0, 0, 0, 31, 31, 31, 62])
    assert [float(seen[0]) for seen in policy.observed] == [0, 3, 6]


def test_an_episode_begins_with_a_decision_in_its_row_alone() -> None:
    starts = [[1, 1], [0, 0], [0, 1], [0, 0], [0, 0]]
    actions = steps(OpenLoop(Recording(), 3), starts)
    np.testing.assert_array_equal(actions[:, 0], [0, 0, 0, 31, 31])
    np.testing.assert_array_equal(actions[:, 1], [0, 0, 20, 20, 20])


def test_a_plan_is_played_to_its_end() -> None:
    np.testing.assert_array_equal(steps(OpenLoop(Planning(), 3), [[1]] + [[0]] * 6)[:, 0], [0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(
        steps(OpenLoop(Planning(), 4), [[1, 1], [0, 1], [0, 0], [0, 0], [0, 0]]),
        [[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]],
    )


def test_length_one_is_the_agent_itself() -> None:
    agent = make_agent("sac", "Pendulum-v1", device="cpu", hidden=(8,))
    plain = evaluate(agent, "Pendulum-v1", episodes=4, seed=1)
    np.testing.assert_array_equal(
        evaluate(OpenLoop(agent, 1), "Pendulum-v1", episodes=4, seed=1).returns, plain.returns
    )
    # It never looks again in episodes of 200 steps: the return is that of its first action, repeated.
    blind = evaluate(OpenLoop(agent, 200), "Pendulum-v1", episodes=4, seed=1)
    env = gym.make_vec("Pendulum-v1", 1, vectorization_mode="sync")
    from palaestra.seeding import row_seeds

    observation, _ = env.reset(seed=row_seeds(1, "eval", 4)[:1])  # type: ignore[arg-type]
    action = agent.predict(observation, deterministic=True)[0]
    total = sum(float(env.step(action)[1][0]) for _ in range(200))
    assert blind.returns[0] == pytest.approx(total)


def test_agents_of_sb3_are_measured() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    agent = sb3.PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, policy_kwargs={"net_arch": [4]}, device="cpu")
    measured = decision_frequencies(agent, "Pendulum-v1", episodes=2, lengths=(1, 30))
    assert measured.returns.shape == (2, 2)
    assert measured.score is not None


def test_recurrent_agents_of_sb3_keep_a_state_for_each_row() -> None:
    """States `[layers, rows, size]`: rows that do not decide keep theirs."""
    state, due = (np.zeros((1, 2, 3)),), np.array([True, False])

    class Recurrent:
        def predict(self, observation: Any, state: Any = None, **_: Any) -> Any:
            before = np.zeros((1, 2, 3)) if state is None else state[0]
            return before[0, :, :1], (before + 1,)

    policy = OpenLoop(Recurrent(), 2)
    starts = [np.array([True, True]), np.array([True, False]), np.array([False, False])]
    intention = None
    for start in starts:
        actions, intention = policy.predict(np.zeros((2, 1)), intention, start, True)
    # Row 0 has decided at steps 0 and 1, row 1 at 0 and 2.
    assert intention is not None
    np.testing.assert_array_equal(intention.state[0][0, :, 0], [2, 2])
    np.testing.assert_array_equal(actions[:, 0], [1, 1])
    assert state[0].shape[1] == len(due)


def test_a_policy_at_the_maximum_of_every_length_scores_29_thirtieths() -> None:
    scale = ReturnScale(1350.0, 1550.0)
    assert LENGTHS == (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
    assert frequency_averaged_score(LENGTHS, np.full(16, -200.0), scale) == pytest.approx(29 / 30)
    assert frequency_averaged_score(LENGTHS, np.full(16, -1550.0), scale) == 0.0
    # A triangle: 10 at length 1, nothing from 3 on.
    assert frequency_averaged_score((1, 3, 5), [10.0, 0.0, 0.0], ReturnScale(10.0)) == pytest.approx(10 / 50)


def test_scales_go_by_name_whatever_the_version() -> None:
    assert return_scale("Pendulum-v1") == return_scale("palaestra/Pendulum-v0") == ReturnScale(1350.0, 1550.0)
    assert return_scale("gymnasium:Reacher-v5") == ReturnScale(60.0, 65.0)
    assert return_scale("CartPole-v1") is None


def test_a_world_without_a_scale_has_a_curve_and_no_score() -> None:
    agent = make_agent("ppo", "palaestra/MultiGoal2D-v0", device="cpu", hidden=(4,))
    measured = decision_frequencies(agent, "palaestra/MultiGoal2D-v0", episodes=2, lengths=(1, 4))
    assert measured.score is None
    assert set(measured.metrics()) == {"return_every_1", "return_every_4"}
    scaled = decision_frequencies(
        agent, "palaestra/MultiGoal2D-v0", episodes=2, lengths=(1, 4), scale=ReturnScale(10.0)
    )
    curve = scaled.mean_returns
    assert scaled.metrics()["frequency_averaged_score"] == pytest.approx(3 * curve.sum() / 2 / 40)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(TypeError, match="policy='random'; expected an agent"):
        decision_frequencies("random", "Pendulum-v1")
    agent = Recording()
    with pytest.raises(ValueError, match="length=0"):
        OpenLoop(agent, 0)
    for lengths in ((1,), (0, 1), (2, 2)):
        with pytest.raises(ValueError, match="expected at least two ascending integers"):
            decision_frequencies(agent, "Pendulum-v1", lengths=lengths)


def test_the_command_prints_the_curve(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_agent("sac", "palaestra/Pendulum-v0", device="cpu", hidden=(4,)).save(tmp_path / "agent")
    assert cli.main(["evaluate", str(tmp_path / "agent"), "--decision-frequencies", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert next(iter(printed)) == "frequency_averaged_score"
    assert len(printed) == 1 + len(LENGTHS)
    assert cli.main(["evaluate", "random", "--env", "palaestra/Pendulum-v0", "--decision-frequencies"]) == 2
