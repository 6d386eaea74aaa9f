"""EncodeText shows texts as tokens of the suite's vocabulary, changes nothing else and remembers nothing."""

from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401 - registers the ids
import numpy as np
import pytest

from palaestra.envs.text.vocabulary import VOCABULARY_SIZE, decode, encode
from palaestra.wrappers.encode_text import EncodeText


class Speaker(gym.Env[Any, Any]):
    """Says its texts one after the other."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, texts: list[str], space: gym.Space[Any] | None = None) -> None:
        self.texts = texts
        self.observation_space = space or gym.spaces.Text(100, charset="abcdefghijklmnopqrstuvwxyz ")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.said = 0
        return self.texts[0], {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.said += 1
        return self.texts[self.said], 0.0, False, False, {}


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToObj-v0"])
def test_a_mission_becomes_tokens_and_the_rest_stays(env_id: str) -> None:
    plain, encoded = gym.make(env_id), EncodeText(gym.make(env_id))
    assert encoded.observation_space["mission"] == gym.spaces.Box(0, VOCABULARY_SIZE - 1, (32,), np.int32)
    for name in ("image", "direction"):
        assert encoded.observation_space[name] == plain.observation_space[name]
    for seed in range(5):
        one, _ = plain.reset(seed=seed)
        other, _ = encoded.reset(seed=seed)
        for action in (0, 1, 2, 2, 1):
            assert decode(other["mission"]) == one["mission"]
            assert encoded.observation_space.contains(other)
            np.testing.assert_array_equal(other["image"], one["image"])
            assert other["direction"] == one["direction"]
            one, other = plain.step(action)[0], encoded.step(action)[0]


def test_missions_need_no_byte_tokens() -> None:
    for env_id in ("MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToObj-v0", "BabyAI-GoToSeq-v0"):
        env = gym.make(env_id)
        for seed in range(5):
            mission = env.reset(seed=seed)[0]["mission"]
            assert len(encode(mission)) == len(mission.replace(",", " ,").split())


def test_a_text_alone_becomes_an_array_filled_up_or_cut() -> None:
    texts = ["go to the door", "go", "go to the red door and then go to the blue door"]
    env = EncodeText(Speaker(texts), length=6)
    assert env.observation_space.shape == (6,)
    seen = [env.reset()[0], env.step(0)[0], env.step(0)[0]]
    assert [decode(tokens) for tokens in seen] == [texts[0], texts[1], "go to the red door and"]
    assert all(env.observation_space.contains(tokens) for tokens in seen)
    assert (seen[1][1:] == 0).all()


def test_texts_inside_dicts_are_found_at_any_depth() -> None:
    text = gym.spaces.Text(100, charset="abcdefghijklmnopqrstuvwxyz ")
    numbers = gym.spaces.Box(-1.0, 1.0, (2,))
    space = gym.spaces.Dict({"said": gym.spaces.Dict({"now": text, "what": numbers}), "seen": numbers})
    observation: Any = {
        "said": {"now": "open the box", "what": np.zeros(2, np.float32)},
        "seen": np.ones(2, np.float32),
    }
    env = EncodeText(Speaker([observation], space), length=4)
    shown = env.reset()[0]
    assert decode(shown["said"]["now"]) == "open the box"
    assert env.observation_space.contains(shown)
    assert shown["seen"] is observation["seen"]


def test_what_is_shown_is_the_callers_own() -> None:
    env = EncodeText(Speaker(["go to the door", "go to the door"]))
    first = env.reset()[0]
    first[:] = 0
    assert decode(env.step(0)[0]) == "go to the door"


def test_envs_without_text_and_bad_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="EncodeText: observation_space=Box"):
        EncodeText(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="EncodeText: length=0"):
        EncodeText(Speaker(["go"]), length=0)


def test_the_wrapper_can_be_made_again_from_its_spec() -> None:
    env = EncodeText(gym.make("MiniGrid-DoorKey-5x5-v0"), length=16)
    assert env.spec is not None
    assert gym.make(env.spec).observation_space["mission"].shape == (16,)  # type: ignore[index]
