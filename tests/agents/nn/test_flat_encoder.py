"""The encoder that learns nothing: numbers side by side, scaled by what their spaces say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from palaestra.agents.nn.networks import make_encoder
from palaestra.agents.registry import make_agent


def test_the_parts_of_an_observation_stand_side_by_side() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (40, 40, 3), np.uint8),
            "direction": spaces.Discrete(4),
            "grid": spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "speed": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "words": spaces.Box(0, 50, (3,), np.int32),
        }
    )
    encoder = make_encoder(space, "flat")
    observation = {
        "camera": torch.full((2, 40, 40, 3), 51, dtype=torch.uint8),
        "direction": torch.tensor([3, 0]),
        "grid": torch.full((2, 7, 7, 3), 5, dtype=torch.uint8),
        "speed": torch.tensor([[1.5, -2.0], [0.0, 300.0]]),
        "words": torch.tensor([[50, 25, 0], [0, 0, 0]]),
    }
    expected = [
        [*[0.2] * 4800, 0, 0, 0, 1, *[0.5] * 147, 1.5, -2.0, 1.0, 0.5, 0.0],
        [*[0.2] * 4800, 1, 0, 0, 0, *[0.5] * 147, 0.0, 300.0, 0.0, 0.0, 0.0],
    ]
    torch.testing.assert_close(encoder(observation), torch.tensor(expected, dtype=torch.float32))
    assert encoder.features == len(expected[0])
    assert list(encoder.parameters()) == []


@pytest.mark.parametrize("space", [spaces.Discrete(3, start=1), spaces.MultiBinary(4), spaces.Box(-1.0, 1.0, (2, 2))])
def test_a_single_space_is_encoded_too(space: spaces.Space) -> None:
    encoder = make_encoder(space, "flat")
    space.seed(0)
    batch = torch.as_tensor(np.stack([space.sample() for _ in range(5)]))
    assert encoder(batch).shape == (5, encoder.features)
    torch.testing.assert_close(encoder(batch), make_encoder(space)(batch))


def test_ppo_takes_its_gradient_by_hand_behind_it() -> None:
    def by_hand(encoder: str) -> bool:
        agent = make_agent(
            "ppo", "MiniGrid-Empty-5x5-v0", preset_name=None, device="cpu", encoder=encoder, num_envs=2, n_steps=8
        )
        agent.learn(16)
        return agent.gradient != agent.backpropagate

    assert by_hand("flat")
    assert not by_hand("auto")
