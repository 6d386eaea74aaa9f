"""MuJoCo Warp behind the same interface: on the CPU device, in single precision, against the CPU adapters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco_warp")

from palaestra.envs.mujoco.physics import make_physics
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import take_rows
from tests.envs.mujoco.test_model import SwingUp
from tests.envs.mujoco.test_physics import controls, model, noisy_start

# Warp compiles its kernels at their first use on a machine: minutes on a CPU, seconds from its cache later.
pytestmark = pytest.mark.slow


def test_a_step_agrees_with_the_cpu_to_single_precision() -> None:
    tracked = ("xpos", "site_xpos", "cfrc_ext")
    exact, warp = (make_physics(model(), 3, tracked, engine=engine) for engine in ("threads", "warp:cpu"))
    state = exact.place(noisy_start())
    start = warp.place(noisy_start())
    np.testing.assert_allclose(start.physics, state.physics, rtol=0, atol=1e-5)
    for control in controls(steps=8):
        expected = exact.step(state, control)
        found = warp.step(state, control)
        assert found.physics.dtype == np.float32
        for name, tolerance in {"qpos": 1e-5, "qvel": 1e-3, "act": 1e-5, "xpos": 1e-5, "cfrc_ext": 0.5}.items():
            np.testing.assert_allclose(
                warp.layout.field(found, name), exact.layout.field(expected, name), rtol=1e-3, atol=tolerance
            )
        state = expected


def test_states_are_values_and_rows_stand_alone() -> None:
    world = SwingUp(engine="warp:cpu")
    key = CounterKey(torch.arange(4))
    state = world.initial(key)
    action = torch.linspace(-1, 1, 4)[:, None]
    kept = state.physics.clone()
    first = world.step(state, action)
    again = world.step(state, action)
    assert torch.equal(state.physics, kept)
    assert torch.equal(first.state.physics, again.state.physics)
    assert first.reward.dtype == torch.float32
    order = torch.tensor([2, 0])
    part = world.step(take_rows(state, order), action[order])
    assert torch.equal(part.state.physics, first.state.physics[order])
    assert torch.equal(part.reward, first.reward[order])


def test_it_swings_as_the_cpu_does() -> None:
    seeds = np.arange(3)
    worlds = [SwingUp(engine=engine) for engine in ("cpu", "warp:cpu")]
    states = [world.initial(CounterKey(seeds)) for world in worlds]
    for step in range(20):
        action = np.full((3, 1), np.sin(step))
        states = [world.step(state, action).state for world, state in zip(worlds, states, strict=True)]
    shown = [world.observe(state) for world, state in zip(worlds, states, strict=True)]
    assert abs(shown[0][:, 2]).max() > 0.5
    np.testing.assert_allclose(shown[1], shown[0], rtol=0, atol=1e-4)
