"""PPO's minibatches are timed on a rollout as training leaves it, with the gradient that the part names."""

from __future__ import annotations

import pytest

from palaestra.agents.registry import make_agent


def test_a_rollout_is_filled_and_learnt_from_again_and_again() -> None:
    pytest.importorskip("stable_baselines3")
    from palaestra.scripts.speed_core import STORE, _filled_rollout

    agent = make_agent("ppo", STORE, device="cpu", num_envs=4, n_steps=8, batch_size=16, n_epochs=2)
    improve, rollout = _filled_rollout(agent)
    assert rollout.full
    assert agent.num_timesteps == 32
    assert agent.num_updates == 0
    for passes in (1, 2):
        improve(rollout)
        assert agent.num_updates == passes * 2 * 2


@pytest.mark.parametrize("part", ["ppo_update", "ppo_update_autograd"])
def test_minibatches_of_both_sides_are_timed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    from functools import partial

    from palaestra.scripts import speed_core

    agents = []

    def kept(*arguments, **keywords):
        agents.append(make_agent(*arguments, **keywords))
        return agents[-1]

    monkeypatch.setattr(speed_core, "make_agent", kept)
    monkeypatch.setattr(speed_core, "interleaved", partial(speed_core.interleaved, turn_seconds=0.0))
    small = {"num_envs": 8, "n_steps": 8, "batch_size": 32, "n_epochs": 1}
    monkeypatch.setattr(speed_core, "preset", lambda agent, env: small)
    found = getattr(speed_core, part)(3)
    assert list(found.sides) == ["palaestra", "stable_baselines3.PPO.train"]
    assert (agents[0].gradient == agents[0].backpropagate) is (part == "ppo_update_autograd")
    assert found.details["gradient"] == ("autograd" if part == "ppo_update_autograd" else "derived by hand")
