"""The grid world's faces: arguments, missions as text and tokens, back ends of MiniGrid's ids, snapshots, pictures."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
import pytest
import torch

from palaestra.envs.faces import SimulatorVectorEnv
from palaestra.envs.grid.babyai import LEVELS, BabyAI
from palaestra.envs.grid.cells import BALL, BOX, COLORS, EMPTY, KEY
from palaestra.envs.grid.crossing import Crossing
from palaestra.envs.grid.door_key import DoorKey
from palaestra.envs.grid.empty import Empty
from palaestra.envs.grid.key_corridor import KeyCorridor
from palaestra.envs.grid.missions import ANY_COLOR, BALL_KIND, BOX_KIND, DOOR_KIND, GO_TO, OPEN, PICK, errand, errands
from palaestra.envs.grid.multi_room import MultiRoom
from palaestra.envs.grid.unlock import ObstructedMaze
from palaestra.envs.grid.world import GridWorld
from palaestra.envs.grid.worlds import MINIGRID_IDS
from palaestra.envs.noise import CounterKey
from palaestra.envs.registration import build_simulator
from palaestra.envs.text.vocabulary import decode
from palaestra.wrappers.encode_text import EncodeText
from palaestra.wrappers.vectorize import backend_of, make_vec

FIELDS = ("cells", "place", "direction", "carried", "elapsed", "mission")


def world_of(env_id: str) -> Any:
    row = MINIGRID_IDS[env_id]
    return build_simulator(row.simulator, **row.kwargs)


def test_all_levels_of_one_instruction_are_there() -> None:
    """What BabyAI has beyond ours are several instructions, or putting things together."""
    theirs = {name for name in gym.registry if name.startswith("BabyAI-")}
    missing = {name.split("-")[1] for name in theirs - set(MINIGRID_IDS)}
    beginnings = ("GoToSeq", "OpenTwoDoors", "OpenRedBlueDoors", "OpenDoorsOrder", "PutNext", "MoveTwoAcross")
    assert all(name.startswith((*beginnings, "Synth", "MiniBoss", "Boss")) for name in missing)
    assert {name for name in MINIGRID_IDS if name.startswith("BabyAI-")} <= theirs
    assert {name for name in MINIGRID_IDS if name.startswith("MiniGrid-")} <= set(gym.registry)


@pytest.mark.parametrize("env_id", sorted(MINIGRID_IDS))
def test_levels_rows_and_steps_are_the_same_in_any_batch_and_library(env_id: str) -> None:
    world = world_of(env_id)
    seeds = np.arange(40)
    whole = world.initial(CounterKey(seeds))
    part, tensor = world.initial(CounterKey(seeds[11:14])), world.initial(CounterKey(torch.as_tensor(seeds[11:14])))
    for step in range(1, 12):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[11:14], err_msg=name)
            np.testing.assert_array_equal(getattr(tensor, name).numpy(), getattr(part, name), err_msg=name)
        ours, theirs = world.observe(part), world.observe(tensor)
        for name, array in ours.items():
            np.testing.assert_array_equal(theirs[name].numpy(), array, err_msg=name)
        actions = CounterKey(seeds, step=step).integers("action", 7)
        key = CounterKey(seeds, step=step)
        whole = world.step(whole, actions, key).state
        part = world.step(part, actions[11:14], key).state
        tensor = world.step(tensor, torch.as_tensor(actions[11:14]), key).state


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-5x5-v0", "BabyAI-PickupLoc-v0", "MiniGrid-UnlockPickup-v0"])
def test_missions_are_texts_and_their_tokens(env_id: str) -> None:
    row = MINIGRID_IDS[env_id]
    said = SimulatorVectorEnv(row.simulator, 3, mission="text", **row.kwargs)
    numbered = SimulatorVectorEnv(row.simulator, 3, **row.kwargs)
    single = gym.make(env_id, disable_env_checker=True)
    foreign = EncodeText(single)
    texts, tokens = said.reset(seed=4)[0]["mission"], numbered.reset(seed=4)[0]["mission"]
    assert numbered.single_observation_space == foreign.observation_space
    for text, row_tokens in zip(texts, tokens, strict=True):
        np.testing.assert_array_equal(
            foreign.observation({"mission": text, "image": None, "direction": 0})["mission"], row_tokens
        )
        assert decode(row_tokens) == text
    for _ in range(3):
        observations = said.step(np.full(3, 2))[0]
        assert observations["mission"] == texts
        assert said.observation_space.contains(observations)


def test_errands_are_numbered_as_they_are_listed() -> None:
    texts = errands(frozenset((GO_TO, PICK, OPEN)), False).texts
    one, several = np.array([False]), np.array([True])
    assert texts[errand(GO_TO, one, 0, BALL_KIND)[0]] == "go to the red ball"
    assert texts[errand(PICK, several, ANY_COLOR, BOX_KIND, 1)[0]] == "pick up a box on your left"
    assert texts[errand(OPEN, one, 5, DOOR_KIND, 4)[0]] == "open the grey door behind you"
    assert len(set(texts)) == len(texts)


def test_missions_name_what_they_are_about() -> None:
    """The target of a key corridor is the ball of the mission's colour; that of an errand fits the text."""
    world = KeyCorridor(4)
    state = world.initial(CounterKey(np.arange(64)))
    texts = [world.missions.texts[number] for number in state.mission]
    marked = state.cells[state.cells >= 128] & 127
    assert texts == [f"pick up the {COLORS[code - BALL]} ball" for code in marked.tolist()]
    assert len(set(texts)) == 6
    for level in ("GoTo", "PickupDist", "OpenDoorLoc"):
        errand_state = BabyAI(level).initial(CounterKey(np.arange(64)))
        targets = (errand_state.cells >= 128).reshape(64, -1).sum(axis=1)
        several = np.array([" a " in BabyAI(level).missions.texts[number] for number in errand_state.mission])
        assert (targets >= 1).all()
        if level != "PickupDist":
            np.testing.assert_array_equal(targets > 1, several)


def test_make_vec_takes_the_batched_world_and_an_agent_sees_the_same_spaces() -> None:
    own, foreign = (
        make_vec("MiniGrid-KeyCorridorS3R1-v0", 4),
        make_vec("MiniGrid-KeyCorridorS3R1-v0", 4, backend="sync"),
    )
    assert (backend_of(own), backend_of(foreign)) == ("own", "sync")
    assert own.single_observation_space == foreign.single_observation_space
    limited = make_vec("MiniGrid-DoorKey-8x8-v0", 2, env_kwargs={"size": 6, "max_steps": 9})
    assert (limited.simulator.width, limited.simulator.horizon) == (6, 9)  # type: ignore[attr-defined]
    limited.reset(seed=0)
    for _ in range(8):
        assert not limited.step(np.array([6, 6]))[3].any()
    assert limited.step(np.array([6, 6]))[3].all()


def test_a_snapshot_goes_on_as_it_would_have() -> None:
    env, other = (SimulatorVectorEnv(ObstructedMaze(key_in_box=True, max_steps=30), 32) for _ in range(2))
    env.reset(seed=1)
    actions = np.random.default_rng(0).integers(0, 7, (90, 32))
    for action in actions[:20]:
        env.step(action)
    other.restore(env.snapshot())
    for action in actions[20:]:
        ours, theirs = env.step(action), other.step(action)
        for name in ours[0]:
            np.testing.assert_array_equal(ours[0][name], theirs[0][name])
        for first, second in zip(ours[1:4], theirs[1:4], strict=True):
            np.testing.assert_array_equal(first, second)


def test_state_keys_tell_states_apart_and_leave_the_clock_out() -> None:
    world = DoorKey(6)
    state = world.initial(CounterKey(np.arange(200)))
    keys = world.state_key(state)
    assert keys.dtype == np.int64
    seen = np.concatenate([state.cells.reshape(200, -1), state.place[:, None], state.direction[:, None]], axis=1)
    assert len(np.unique(keys)) == len(np.unique(seen, axis=0))
    later = world.step(state, np.full(200, 6), CounterKey([0])).state
    assert (later.elapsed == 1).all()
    np.testing.assert_array_equal(world.state_key(later), keys)
    turned = world.step(state, np.full(200, 0), CounterKey([0])).state
    assert not np.isin(world.state_key(turned), keys).all()


def test_steps_leave_their_state_as_it_is() -> None:
    world = BabyAI("GoToLocal")
    state = world.initial(CounterKey(np.arange(50)))
    kept = {name: getattr(state, name).copy() for name in FIELDS}
    for action in range(7):
        world.step(state, np.full(50, action), CounterKey([0]))
    world.observe(state)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(state, name), kept[name])


def test_a_key_comes_out_of_its_box() -> None:
    world = ObstructedMaze(key_in_box=True)
    state = world.initial(CounterKey(np.arange(300)))
    box = ((state.cells >= BOX) & (state.cells < BOX + 42)).reshape(300, -1)
    place = np.argmax(box, axis=1)
    content = (state.cells.reshape(300, -1)[np.arange(300), place] - BOX) % 7
    assert (content > 0).all()
    left = place - world.height
    free = state.cells.reshape(300, -1)[np.arange(300), left] == EMPTY
    beside = type(state)(
        state.cells, np.where(free, left, state.place), 0 * state.direction, state.carried, state.elapsed, state.mission
    )
    opened = world.step(beside, np.full(300, 5), CounterKey([0])).state.cells.reshape(300, -1)[np.arange(300), place]
    assert free.sum() > 100
    np.testing.assert_array_equal(opened[free], KEY + content[free] - 1)


def test_pictures_show_grid_agent_hand_and_mission() -> None:
    world = DoorKey(5)
    state = world.initial(CounterKey([0]))
    text = world.render(state, 0, "ansi")
    lines = text.splitlines()
    assert lines[0] == "WG" * 5
    assert lines[-2:] == ["carries nothing", "use the key to open the door and then get to the goal"]
    assert sum(text.count(mark) for mark in (">>", "vv", "<<", "^^")) == 1
    assert {"LY", "KY", "GG"} <= {lines[y][2 * x : 2 * x + 2] for x in range(5) for y in range(5)}
    picture = world.render(state)
    assert (picture.shape, picture.dtype) == ((120, 120, 3), np.uint8)
    turned = world.step(state, np.array([0]), CounterKey([0])).state
    assert not np.array_equal(world.render(turned), picture)
    holding = type(state)(state.cells, state.place, state.direction, np.array([KEY + 4]), state.elapsed, state.mission)
    assert "carries a yellow key" in world.render(holding, 0, "ansi")
    with pytest.raises(ValueError, match="render: mode='human'"):
        world.render(state, 0, "human")
    for level in ("GoTo", "KeyInBox", "GoToObjDoor"):
        busy = BabyAI(level)
        start = busy.initial(CounterKey([3]))
        assert busy.render(start).shape == (24 * busy.height, 24 * busy.width, 3)
        assert busy.missions.texts[int(start.mission[0])] in busy.render(start, 0, "ansi")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DoorKey(4), "DoorKey: size=4; expected an integer of at least 5"),
        (lambda: DoorKey(observation="none"), "DoorKey: observation='none'; expected 'partial' or 'full'"),
        (lambda: DoorKey(mission="speech"), "DoorKey: mission='speech'; expected 'tokens' or 'text'"),
        (lambda: DoorKey(max_steps=0), "DoorKey: max_steps=0; expected an integer of at least 1"),
        (lambda: Empty(3), "Empty: size=3"),
        (lambda: Crossing(8), "Crossing: size=8; expected an odd number"),
        (lambda: Crossing(9, 7), "Crossing: crossings=7; expected at most size - 3 = 6"),
        (lambda: Crossing(obstacle="fire"), "Crossing: obstacle='fire'; expected 'lava' or 'wall'"),
        (lambda: MultiRoom(0), "MultiRoom: rooms=0"),
        (lambda: MultiRoom(max_room_size=13), "MultiRoom: max_room_size=13; expected at most 12"),
        (lambda: KeyCorridor(2), "KeyCorridor: room_size=2"),
        (lambda: BabyAI("GoHome"), "BabyAI: level='GoHome'; expected one of"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_levels_carry_their_names() -> None:
    for name, level in LEVELS.items():
        world = BabyAI(name)
        assert isinstance(world, GridWorld)
        assert world.level is level
        assert world.horizon > 0
