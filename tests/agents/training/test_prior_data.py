"""Prior data: their returns, their share of a batch, their files, and that a run resumes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.numpy
import torch
from gymnasium import spaces

import palaestra
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.spaces import ActionMap
from palaestra.agents.registry import make_agent
from palaestra.agents.training.prior_data import PriorData, collected_returns, joined, read_transitions
from palaestra.agents.training.replayed_seeds import ReplayedSeeds
from tests.agents import worlds  # noqa: F401

CPU = torch.device("cpu")
MAZE = "palaestra/PointMaze2D-v0"
SMALL: dict[str, Any] = {
    "hidden": (16, 16),
    "critic_hidden": (16, 16),
    "base_hidden": (16, 16),
    "base_trunk": "mlp",
    "levels": 2,
    "num_critics": 2,
    "num_samples": 2,
    "batch_size": 32,
    "learning_starts": 20,
    "gradient_steps": 1,
    "policy_delay": 1,
    "buffer_size": 500,
}
DATA: dict[str, Any] = {"offline_policy": "multimodal", "offline_steps": 700, "offline_updates": 3}


def expo(**options: Any) -> Any:
    return make_agent("expo", MAZE, seed=3, device="cpu", preset_name=None, **{**SMALL, **options})


def test_collected_returns_by_hand() -> None:
    """Two envs in turn; one's second episode is cut by the end of the data, so that its returns are unknown."""
    rows = {
        "reward": torch.tensor([1.0, 5.0, 2.0, 6.0, 4.0, 7.0]),
        "terminated": torch.tensor([False, False, True, False, False, False]),
        "truncated": torch.tensor([False, False, False, False, False, True]),
    }
    env = torch.tensor([0, 1, 0, 1, 0, 1])
    returns = collected_returns(rows, env, 0.5)
    torch.testing.assert_close(
        returns, torch.tensor([2.0, 5.0 + 3.0 + 1.75, 2.0, 6.0 + 3.5, torch.nan, 7.0]), equal_nan=True
    )


def test_returns_of_the_expert_are_those_of_its_episodes() -> None:
    """In the maze the return is gamma^(steps to go) where the episode succeeds, and 0 where it does not."""
    agent = expo(offline_policy="multimodal", offline_steps=4000)
    agent.learn(0)
    fields = agent.offline.fields
    known = ~fields["collected_return"].isnan()
    assert 0.7 < float(known.float().mean()) < 1.0
    values = fields["collected_return"][known]
    assert ((values == 0.0) | ((values >= 0.99**36) & (values <= 1.0))).all()
    last = fields["terminated"] & known
    torch.testing.assert_close(fields["collected_return"][last], torch.ones(int(last.sum())))
    assert (fields["collected_return"][fields["truncated"] & ~fields["terminated"]] == 0.0).all()


def test_batches_take_the_share_asked_for() -> None:
    agent = expo(**DATA, offline_share=0.25)
    agent.learn(60)
    batch = agent.draw_batch()
    assert len(batch.reward) == 32
    # The agent's own rows have collected no return that is known; of the expert's a few are cut off.
    assert batch.collected_return is not None
    assert batch.collected_return[:24].isnan().all()
    offline = batch.observation[24:]
    kept = agent.offline.fields["observation"]
    assert all(bool((kept == row).all(-1).any()) for row in offline)
    agent.pretraining = True
    whole = agent.draw_batch().observation
    assert all(bool((kept == row).all(-1).any()) for row in whole)


def test_without_prior_data_batches_are_the_replays_own() -> None:
    agent = expo()
    agent.learn(40)
    state = agent.replay_generator.get_state()
    drawn = agent.draw_batch()
    agent.replay_generator.set_state(state)
    expected = agent.replay.sample(32, agent.replay_generator)
    assert torch.equal(drawn.observation, expected.observation)
    assert drawn.collected_return is None


def test_updates_before_training_are_made_once() -> None:
    agent = expo(**DATA, normalize_observation=True)
    agent.learn(0)
    assert agent.num_updates == 3
    assert len(agent.offline) == 700
    seen = agent.normalised(agent.offline.fields["observation"])
    torch.testing.assert_close(seen.mean(0), torch.zeros(2), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(seen.std(0), torch.ones(2), atol=1e-2, rtol=0.0)
    agent.learn(0)
    assert agent.num_updates == 3


def test_a_run_resumes_with_its_prior_data(tmp_path: Path) -> None:
    whole = expo(**DATA).learn(60)
    half = expo(**DATA).learn(60, lambda agent: agent.num_timesteps < 30)
    half.save(tmp_path / "half")
    resumed = palaestra.load(tmp_path / "half", env=MAZE)
    assert torch.equal(resumed.offline.fields["action"], half.offline.fields["action"])  # type: ignore[attr-defined]
    resumed.learn(None)
    for one, other in zip(whole.critics.parameters(), resumed.critics.parameters(), strict=True):  # type: ignore
        assert torch.equal(one, other)
    assert resumed.num_updates == whole.num_updates


def test_buffer_is_filled_once_and_holds_what_it_was_filled_with() -> None:
    data = PriorData(CPU)
    assert len(data) == 0
    rows = {"reward": torch.arange(5.0), "action": torch.zeros(5, 2)}
    data.add(rows)
    assert len(data) == data.capacity == 5
    with pytest.raises(ValueError, match="5 transitions are there; expected an empty buffer"):
        data.add(rows)


def batch(count: int, **options: Any) -> Batch:
    flags = torch.zeros(count, dtype=torch.bool)
    fields: dict[str, Any] = {
        "observation": {"a": torch.ones(count, 2)},
        "action": torch.ones(count, 1),
        "reward": torch.ones(count),
        "next_observation": {"a": torch.ones(count, 2)},
        "terminated": flags,
        "truncated": flags,
    }
    return Batch(**{**fields, **options})


def test_joined_batches_keep_every_field() -> None:
    both = joined(batch(2), batch(3, collected_return=torch.arange(3.0)))
    assert isinstance(both.observation, dict)
    assert both.observation["a"].shape == (5, 2)
    assert both.collected_return is not None
    assert both.collected_return.isnan().tolist() == [True, True, False, False, False]
    with pytest.raises(ValueError, match="log_prob is in one source alone"):
        joined(batch(2), batch(3, log_prob=torch.zeros(3)))


class Keyed(gym.Env[Any, Any]):
    """Spaces of a Dict observation and an action in its own units; it is never stepped."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "n": spaces.Discrete(3)})
    action_space = spaces.Box(np.array([0.0], np.float32), np.array([10.0], np.float32))


def arrays(count: int = 4) -> dict[str, np.ndarray]:
    keys = {"a": np.ones((count, 2)), "n": np.arange(count) % 3}
    return {
        **{f"{side}/{key}": value for side in ("observation", "next_observation") for key, value in keys.items()},
        "action": np.linspace(0.0, 10.0, count)[:, None],
        "reward": np.arange(count, dtype=np.float64),
        "terminated": np.zeros(count, np.uint8),
        "truncated": np.arange(count) == count - 1,
    }


def read(path: Path) -> dict[str, Any]:
    return read_transitions(path, Keyed.observation_space, ActionMap(Keyed.action_space), CPU)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_files_come_back_as_agents_see_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "npz":
        np.savez(path, **arrays())  # type: ignore[arg-type]
    else:
        safetensors.numpy.save_file({name: np.ascontiguousarray(value) for name, value in arrays().items()}, path)
    rows = read(path)
    torch.testing.assert_close(rows["action"], torch.tensor([[-1.0], [-1 / 3], [1 / 3], [1.0]]))
    assert rows["observation"]["a"].dtype == rows["reward"].dtype == torch.float32
    assert rows["observation"]["n"].tolist() == [0, 1, 2, 0]
    assert rows["terminated"].dtype == rows["truncated"].dtype == torch.bool


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": None}, "holds .*; expected .*'reward'"),
        ({"extra": np.zeros(4)}, "holds .*'extra'.*; expected"),
        ({"action": np.zeros((4, 2))}, r"'action' of shape \(4, 2\); expected \(4, 1\)"),
        ({"terminated": np.zeros(3)}, r"'terminated' of shape \(3,\); expected \(4,\)"),
        ({"reward": np.array([0.0, np.nan, 1.0, 1.0])}, "'reward' with values that are not finite"),
        ({"reward": np.float64(1.0)}, "'reward' of shape"),
    ],
)
def test_bad_files_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    held = {name: value for name, value in {**arrays(), **change}.items() if value is not None}
    np.savez(path, **held)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        read(path)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing.npz'; expected a file of transitions"):
        read(tmp_path / "nothing.npz")
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"expected a name that ends in \.npz or \.safetensors"):
        read(tmp_path / "data.csv")


def test_agents_learn_from_a_file(tmp_path: Path) -> None:
    agent = expo(**DATA)
    agent.learn(0)
    fields = {name: value.numpy() for name, value in agent.offline.fields.items() if name != "collected_return"}
    np.savez(tmp_path / "maze.npz", **fields)
    other = expo(offline_file=str(tmp_path / "maze.npz"), offline_updates=3)
    other.learn(30)
    assert torch.equal(other.offline.fields["observation"], agent.offline.fields["observation"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offline_steps": -1}, "offline_steps=-1"),
        ({"offline_share": 1.5}, "offline_share=1.5"),
        ({"offline_steps": 5, "offline_file": "a.npz"}, "offline_file='a.npz'; expected ''"),
    ],
)
def test_bad_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expo(**options)


def test_data_of_ones_own_are_learnt_from() -> None:
    source = expo(**DATA)
    source.learn(0)
    agent = expo(offline_updates=3)
    with pytest.raises(ValueError, match="offline_updates=3 without offline data; expected 0"):
        agent.learn(5)
    agent.offline.add(source.offline.fields)
    agent.learn(0)
    for one, other in zip(source.critics.parameters(), agent.critics.parameters(), strict=True):
        assert torch.equal(one, other)


def test_unknown_policies_and_envs_without_an_id_are_refused() -> None:
    with pytest.raises(KeyError, match="policy='nobody' is unknown"):
        expo(offline_policy="nobody", offline_steps=10).learn(5)
    env = gym.make("TestIdentity-v0", kind="Box").unwrapped
    env.spec = None
    agent: Any = make_agent("expo", env, device="cpu", **{**SMALL, "offline_steps": 10})
    with pytest.raises(ValueError, match="on an env without an id"):
        agent.learn(5)


def test_several_seeds_are_not_trained_as_one_batch() -> None:
    """Which would draw from their replays alone and never see the prior data."""
    with pytest.raises(TypeError, match="expo: its batches are not drawn from its replay alone"):
        ReplayedSeeds([expo(**DATA) for _ in range(2)])
