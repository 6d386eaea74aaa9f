"""The CPU adapters: both give the bits of one MjData for each row, from states that are values."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

import mujoco

from palaestra.envs.mujoco.physics import Physics, has_batch, load_model, make_physics
from palaestra.envs.mujoco.state import INTEGRATION, TRACKABLE, MujocoState, StateLayout
from palaestra.envs.simulator import take_rows
from palaestra.envs.threads import THREADS_VARIABLE, default_threads

ARM = """
<mujoco>
  <option timestep="0.004" integrator="{integrator}"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 .1"/>
    <body name="ball" pos="0 0 .12"><freejoint/><geom type="sphere" size=".1" mass="1"/></body>
    <body name="arm" pos="0 .5 .5">
      <joint name="shoulder" axis="0 1 0" damping=".1"/>
      <geom type="capsule" fromto="0 0 0 .4 0 0" size=".03"/>
      <body pos=".4 0 0">
        <joint name="elbow" axis="0 1 0" range="-60 60" limited="true"/>
        <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03"/>
        <site name="tip" pos=".3 0 0"/>
      </body>
    </body>
    <body name="hand" mocap="true" pos="1 0 1"><geom type="sphere" size=".02" contype="0" conaffinity="0"/></body>
  </worldbody>
  <actuator>
    <motor joint="shoulder" gear="5" ctrlrange="-1 1"/>
    <general joint="elbow" dyntype="filter" dynprm=".02" gainprm="5" ctrlrange="-1 1"/>
  </actuator>
  <sensor><jointpos joint="elbow"/><accelerometer site="tip"/></sensor>
</mujoco>
"""
ROWS, STEPS, SKIP = 5, 40, 3
ENGINES = ["threads", pytest.param("batch", marks=pytest.mark.skipif(not has_batch(), reason="MuJoCo before 4"))]


def model(integrator: str = "Euler") -> Any:
    return load_model(ARM.format(integrator=integrator))


def noisy_start(rows: int = ROWS) -> dict[str, np.ndarray]:
    rng, compiled = np.random.default_rng(1), model()
    return {
        "qpos": compiled.qpos0 + rng.uniform(-0.1, 0.1, (rows, compiled.nq)),
        "qvel": rng.uniform(-1, 1, (rows, compiled.nv)),
        "mocap_pos": rng.uniform(0, 1, (rows, 1, 3)),
    }


def controls(steps: int = STEPS, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(2).uniform(-1, 1, (steps, rows, 2))


def run(physics: Physics, steps: np.ndarray, state: MujocoState | None = None) -> list[MujocoState]:
    states = [physics.place(noisy_start(steps.shape[1])) if state is None else state]
    for control in steps:
        states.append(physics.step(states[-1], control))
    return states


def assert_equal(found: list[MujocoState], expected: list[MujocoState]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.physics, other.physics)
        np.testing.assert_array_equal(one.derived, other.derived)


@pytest.mark.parametrize("integrator", ["Euler", "RK4", "implicitfast"])
@pytest.mark.parametrize("engine", ENGINES)
def test_rows_are_simulations_of_their_own(engine: str, integrator: str) -> None:
    tracked = ("xpos", "qfrc_constraint", "sensordata", "site_xmat")
    compiled = model(integrator)
    physics = make_physics(compiled, SKIP, tracked, threads=2, engine=engine)
    states = run(physics, controls())
    start = noisy_start()
    touched = 0
    for row in range(ROWS):
        data = mujoco.MjData(compiled)
        data.qpos[:], data.qvel[:] = start["qpos"][row], start["qvel"][row]
        data.mocap_pos[:] = start["mocap_pos"][row]
        mujoco.mj_forward(compiled, data)
        for step, state in enumerate(states):
            if step:
                data.ctrl[:] = controls()[step - 1, row]
                mujoco.mj_step(compiled, data, SKIP)
                touched += data.ncon
            expected = np.empty(physics.layout.size)
            mujoco.mj_getState(compiled, data, expected, INTEGRATION)
            np.testing.assert_array_equal(state.physics[row], expected)
            for name in (*tracked, "qpos", "qvel", "act", "ctrl", "qacc_warmstart", "mocap_pos", "xfrc_applied"):
                np.testing.assert_array_equal(physics.layout.field(state, name)[row], getattr(data, name), name)
            assert physics.layout.field(state, "time")[row] == data.time
    assert touched > 0, "no contact: the warm start of the solver was never needed"


def test_contact_forces_are_those_after_the_last_substep() -> None:
    compiled = model("RK4")
    physics = make_physics(compiled, SKIP, ("cfrc_ext",))
    states = run(physics, controls(steps=30))
    data = mujoco.MjData(compiled)
    data.qpos[:], data.qvel[:] = noisy_start()["qpos"][2], noisy_start()["qvel"][2]
    mujoco.mj_forward(compiled, data)
    np.testing.assert_array_equal(physics.layout.field(states[0], "cfrc_ext")[2], data.cfrc_ext)
    for control, state in zip(controls(steps=30), states[1:], strict=True):
        data.ctrl[:] = control[2]
        mujoco.mj_step(compiled, data, SKIP)
        mujoco.mj_rnePostConstraint(compiled, data)
        np.testing.assert_array_equal(physics.layout.field(state, "cfrc_ext")[2], data.cfrc_ext)
    assert data.cfrc_ext.any()


@pytest.mark.parametrize("engine", ENGINES)
def test_states_are_values(engine: str) -> None:
    physics = make_physics(model(), SKIP, ("xpos",), threads=2, engine=engine)
    states = run(physics, controls())
    kept = copy.deepcopy(states)
    assert_equal(run(physics, controls()[20:], states[20]), kept[20:])
    assert_equal(states, kept)
    # Rows may be taken out, doubled and reordered: each goes its own way whatever stands beside it.
    order = np.array([4, 0, 0, 2, 3, 1, 4])
    shuffled = run(physics, controls()[20:, order], take_rows(states[20], order))
    assert_equal(shuffled, [take_rows(state, order) for state in kept[20:]])
    assert_equal(
        run(physics, controls()[20:, :2], take_rows(states[20], slice(2))), [take_rows(s, slice(2)) for s in kept[20:]]
    )
    physics.close()
    assert_equal(run(physics, controls()), kept)
    assert_equal(run(pickle.loads(pickle.dumps(physics)), controls()), kept)


@pytest.mark.parametrize("engine", ENGINES)
def test_torch_goes_in_and_comes_out(engine: str) -> None:
    physics = make_physics(model(), SKIP, ("xpos",), engine=engine)
    start = {name: torch.from_numpy(values) for name, values in noisy_start().items()}
    state = physics.place(start)
    for control, expected in zip(controls(), run(physics, controls())[1:], strict=True):
        state = physics.step(state, torch.from_numpy(control))
        assert isinstance(state.physics, torch.Tensor)
        assert isinstance(state.derived, torch.Tensor)
        np.testing.assert_array_equal(state.physics.numpy(), expected.physics)
        np.testing.assert_array_equal(state.derived.numpy(), expected.derived)


@pytest.mark.skipif(not has_batch(), reason="MuJoCo before 4")
def test_the_faster_adapter_is_chosen_where_it_can_do_what_is_asked() -> None:
    names = {tracked: type(make_physics(model(), 1, tracked)).__name__ for tracked in ((), ("cfrc_ext",))}
    assert names == {(): "BatchPhysics", ("cfrc_ext",): "ThreadPhysics"}
    with pytest.raises(ValueError, match="expected no field of mj_rnePostConstraint"):
        make_physics(model(), 1, ("cfrc_ext",), engine="batch")


def test_every_trackable_field_is_one_of_mjdata() -> None:
    layout = StateLayout(model(), sorted(TRACKABLE))
    data = mujoco.MjData(model())
    assert layout.derived_size == sum(getattr(data, name).size for name in TRACKABLE)


def test_bad_arguments_are_named() -> None:
    for arguments, message in (
        ({"frame_skip": 0}, "frame_skip=0; expected at least 1"),
        ({"threads": 0}, "threads=0; expected at least 1"),
        ({"engine": "jax"}, "engine='jax'; expected cpu, batch, threads, warp or warp:DEVICE"),
        ({"engine": "batch:0"}, "engine='batch:0'"),
        ({"tracked": ("qpos2",)}, "expected names of"),
        ({"tracked": ("efc_force",)}, "expected names of"),
    ):
        with pytest.raises(ValueError, match=message):
            make_physics(model(), **{"frame_skip": 1, "tracked": (), **arguments})
    with pytest.raises(KeyError, match="'xpos'; expected one of"):
        StateLayout(model()).place_of("xpos")
    with pytest.raises(FileNotFoundError, match=r"no_such\.xml"):
        load_model("no_such.xml")
    with pytest.raises(ValueError, match="XML"):
        load_model("<mujoco><worldbody></mujoco>")


@pytest.mark.skipif(not hasattr(mujoco.mjtEnableBit, "mjENBL_SLEEP"), reason="bodies never sleep")
def test_a_model_whose_bodies_sleep_is_refused() -> None:
    sleepy = ARM.format(integrator="Euler").replace("<worldbody>", '<option><flag sleep="enable"/></option><worldbody>')
    with pytest.raises(ValueError, match="enables sleep"):
        make_physics(load_model(sleepy), 1, ())


def test_a_model_from_a_file_a_string_or_compiled(tmp_path: Path) -> None:
    text = ARM.format(integrator="Euler")
    (tmp_path / "arm.xml").write_text(text)
    compiled = load_model(text)
    assert load_model(compiled) is compiled
    for made in (load_model(tmp_path / "arm.xml"), load_model(str(tmp_path / "arm.xml")), compiled):
        assert (made.nq, made.nv, made.nu) == (9, 8, 2)


def test_the_number_of_threads_can_be_set_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    assert default_threads() == 3
    assert make_physics(model(), 1, ()).threads == 3
    for wrong in ("0", "two", ""):
        monkeypatch.setenv(THREADS_VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"{THREADS_VARIABLE}='{wrong}'; expected an integer of at least 1"):
            default_threads()
    monkeypatch.delenv(THREADS_VARIABLE)
    assert default_threads() >= 1


def test_an_error_of_mujoco_reaches_the_caller_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    physics = make_physics(model(), SKIP, (), threads=2, engine="threads")
    states = run(physics, controls())

    def fails(*arguments: Any) -> None:
        raise mujoco.FatalError("the arena is full")

    with monkeypatch.context() as patched:
        patched.setattr(mujoco, "mj_step", fails)
        with pytest.raises(mujoco.FatalError, match="arena"):
            physics.step(states[5], controls()[5])
    assert_equal([physics.step(states[5], controls()[5])], [states[6]])
