"""Running statistics against NumPy's over the whole stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

import palaestra
from palaestra.agents.nn.normalization import ObservationNormalizer, RewardNormalizer, RunningMoments


def test_moments_of_batches_are_those_of_the_stream() -> None:
    generator = np.random.default_rng(0)
    stream = generator.normal(3.0, 2.0, (100, 2))
    moments = RunningMoments((2,))
    for batch in np.split(stream, [1, 4, 30, 31]):
        moments.update(torch.as_tensor(batch))
    np.testing.assert_allclose(moments.mean.numpy(), stream.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance.numpy(), stream.var(0), rtol=1e-12)


def test_only_float_vectors_are_normalised() -> None:
    space = spaces.Dict(
        {"vector": spaces.Box(-1, 1, (2,), np.float32), "image": spaces.Box(0, 255, (4, 4, 3), np.uint8)}
    )
    normalizer = ObservationNormalizer(space)
    observation = {
        "vector": torch.tensor([[1.0, 2.0], [3.0, 6.0]]),
        "image": torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
    }
    normalizer.update(observation)
    result = normalizer(observation)
    assert isinstance(result, dict)
    torch.testing.assert_close(result["vector"], torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert result["image"] is observation["image"]


def test_rewards_are_divided_by_the_deviation_of_the_return() -> None:
    normalizer = RewardNormalizer(2, gamma=0.5)
    returns = np.zeros(2)
    seen = []
    for rollout in ([((1.0, 2.0), (False, True)), ((3.0, -1.0), (True, False))], [((0.5, 4.0), (False, False))]):
        for reward, done in rollout:
            returns = returns * 0.5 + reward
            seen.append(returns.copy())
            returns[list(done)] = 0.0
        rewards, ends = zip(*rollout, strict=True)
        normalizer.update(torch.tensor(rewards), torch.tensor(ends))
    expected = 1.0 / np.sqrt(np.concatenate(seen).var() + 1e-8)
    assert normalizer(torch.tensor([1.0])).item() == pytest.approx(expected, rel=1e-6)


def test_prediction_leaves_the_statistics_frozen_and_loading_keeps_them(tmp_path) -> None:
    agent = palaestra.make_agent("ppo", "Pendulum-v1", normalize_observation=True, n_steps=32, batch_size=32)
    agent.learn(64)
    before = {name: value.clone() for name, value in agent.normalizer.state_dict().items()}
    agent.predict(np.full((5, 3), 100.0, np.float32))
    assert all(torch.equal(value, before[name]) for name, value in agent.normalizer.state_dict().items())
    agent.save(tmp_path / "agent")
    loaded = palaestra.load(tmp_path / "agent")
    assert all(torch.equal(value, before[name]) for name, value in loaded.normalizer.state_dict().items())
