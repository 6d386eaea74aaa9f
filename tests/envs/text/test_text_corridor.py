"""TextCorridor as its docstring specifies it: one transition behind all faces, and tasks that stay what they are."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from palaestra.envs.faces import SimulatorEnv, SimulatorVectorEnv
from palaestra.envs.noise import CounterKey, Tape
from palaestra.envs.text.corridor_exact import CorridorState
from palaestra.envs.text.text_corridor import TextCorridor
from palaestra.envs.text.vocabulary import END, PAD, decode, encode, padded

WORLD: dict[str, Any] = {"rooms": 9, "shape": "tree", "loops": 2, "tasks": 3, "name_tokens": (1, 4)}


def test_the_transcript_reads_as_specified() -> None:
    world = TextCorridor(rooms=3, slip=0.0, name_tokens=2)
    env = SimulatorEnv(world, render_mode="ansi")
    env.reset(seed=0)
    first, second = (int(np.flatnonzero(world.action_masks(env._run.state)[0])[0]) for _ in range(2))
    start, goal = (int(world.map.label[0, place]) for place in (world.map.start[0], world.map.goal[0]))
    observation, _ = env.reset(seed=0)
    assert decode(observation["tokens"]).splitlines() == [
        f"task: reach room {goal}",
        "turn: 0 of 6",
        "last: nothing",
        f"see: room {start}",
        f"can: {world.grammar.texts[first]}",
    ]
    assert observation["length"] == np.count_nonzero(observation["tokens"])
    lines = decode(env.step(first)[0]["tokens"]).splitlines()
    assert lines[1:3] == ["turn: 1 of 6", "last: moved"]
    assert lines[4].startswith("can: move ")
    assert lines[4].count("|") == 1
    bad = next(action for action in range(6) if not env.action_masks()[action])
    lines = decode(env.step(bad)[0]["tokens"]).splitlines()
    assert lines[1:3] == ["turn: 2 of 6", "last: invalid: no such exit here"]
    assert env.render().startswith("\n".join(lines))
    assert "@ room" in env.render()
    assert second == first


def test_numbers_have_a_fixed_width_so_that_lines_stand_still() -> None:
    world = TextCorridor(rooms=12, tasks=4)
    states = world.enumerate_states()
    tokens = world.observe(states)["tokens"]
    column = [list(row).index(encode("see")[0]) for row in tokens[states.last != 2]]
    assert len(set(column)) == 1


@pytest.mark.parametrize("arguments", [WORLD, {"aliases": 3}, {"rooms": 64, "name_tokens": 16, "slip": 0.0}])
def test_tokens_are_the_encoded_text_and_modes_agree(arguments: dict[str, Any]) -> None:
    worlds = {mode: TextCorridor(obs_mode=mode, **arguments) for mode in ("tokens", "text", "both")}
    states = worlds["both"].enumerate_states()
    arrays = worlds["tokens"].observe(states)
    texts = worlds["text"].decode_observation(arrays, states)
    both = worlds["both"].decode_observation(arrays, states)
    space = worlds["both"].observation_space
    for row in range(0, len(texts), max(1, len(texts) // 200)):
        ids = encode(texts[row])
        assert len(ids) == arrays["length"][row]
        np.testing.assert_array_equal(padded(ids, arrays["tokens"].shape[1]), arrays["tokens"][row])
        assert both[row]["text"] == texts[row]
        assert space.contains(both[row])
        assert worlds["text"].observation_space.contains(texts[row])


def _spoken(world: TextCorridor, mode: str, actions: np.ndarray, rng: np.random.Generator) -> Any:
    texts = [world.grammar.render(action) for action in actions]
    if mode == "text":
        return tuple(f"it may be\nact: {text}" if rng.random() < 0.5 else text.upper() for text in texts)
    if mode == "tokens":
        thought = encode("go on\nact:")
        rows = [[*thought, *encode(text)] if rng.random() < 0.5 else [*encode(text), END, 99] for text in texts]
        return np.stack([padded(row, 32) for row in rows])
    return actions


def test_index_text_and_token_actions_walk_byte_equal_trajectories() -> None:
    rows, turns = 8, 200
    traces = {}
    for mode in ("index", "text", "tokens"):
        env = SimulatorVectorEnv(TextCorridor(action_mode=mode, invalid_penalty=0.1, **WORLD), rows)
        assert isinstance(env.simulator, TextCorridor)
        rng, speech = np.random.default_rng(0), np.random.default_rng(1)
        observation, info = env.reset(seed=5)
        trace = [observation["tokens"].tobytes(), *(value.tobytes() for value in info.values())]
        for _ in range(turns):
            actions = rng.integers(0, 6, rows)
            observation, reward, terminated, truncated, info = env.step(_spoken(env.simulator, mode, actions, speech))
            final = info.pop("final_info", {})
            info.pop("final_obs", None)
            arrays = [*observation.values(), reward, terminated, truncated, *info.values(), *final.values()]
            trace += [array.tobytes() for array in arrays]
        traces[mode] = trace
    assert traces["index"] == traces["text"] == traces["tokens"]


def test_slots_are_the_listed_actions_in_order() -> None:
    rows, turns = 8, 100
    by_index, by_slot = (
        SimulatorVectorEnv(TextCorridor(action_mode=mode, **WORLD), rows) for mode in ("index", "slots")
    )
    by_index.reset(seed=1)
    by_slot.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(turns):
        masks, listed = by_index.action_masks(), by_slot.action_masks()
        np.testing.assert_array_equal(masks.sum(axis=1), listed.sum(axis=1))
        slots = rng.integers(0, listed.sum(axis=1))
        names = np.array([np.flatnonzero(mask)[slot] for mask, slot in zip(masks, slots, strict=True)])
        one, other = by_index.step(names), by_slot.step(slots)
        np.testing.assert_array_equal(one[0]["tokens"], other[0]["tokens"])
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[4]["state_key"], other[4]["state_key"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty action"), ("dance", "unknown action"), ("move", "unknown action"), ("\x00é move", "unknown action")],
)
def test_a_rejected_text_costs_a_turn_and_nothing_else(text: str, reason: str) -> None:
    env = SimulatorEnv(TextCorridor(obs_mode="text", action_mode="text", invalid_penalty=0.25))
    _, before = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(text)
    assert f"last: invalid: {reason}\n" in observation
    assert (reward, terminated, truncated) == (-0.25, False, False)
    assert (info["turn"], info["is_action_valid"], before["is_action_valid"]) == (1, False, True)
    assert info["state_key"] == before["state_key"]


def test_a_text_is_accepted_if_and_only_if_it_parses_and_its_mask_bit_is_set() -> None:
    world = TextCorridor(action_mode="text", **WORLD)
    states = world.enumerate_states()
    masks = world.action_masks(states)
    noise = Tape({"slip": np.full(len(states.turn), 0.99)})
    for text in (*world.grammar.texts, "", "move nowhere", "act: act:"):
        parsed = world.grammar.parse(text)
        accepted = masks[:, parsed] if isinstance(parsed, int) else np.zeros(len(masks), bool)
        step = world.step(states, world.encode_action(states, [text] * len(masks)), noise)
        np.testing.assert_array_equal(world.information(step.state)["is_action_valid"], accepted)
        np.testing.assert_array_equal(step.state.place[~accepted], states.place[~accepted])


def test_a_text_action_that_is_no_string_is_refused() -> None:
    env = SimulatorEnv(TextCorridor(action_mode="text"))
    env.reset(seed=0)
    with pytest.raises(TypeError, match="expected a string"):
        env.step(3)


@pytest.mark.parametrize("arguments", [{}, WORLD], ids=["default", "loops"])
def test_a_row_of_a_batch_is_the_single_world_over_ten_thousand_steps(arguments: dict[str, Any]) -> None:
    rows, turns = 8, 1250
    batch = SimulatorVectorEnv(TextCorridor(**arguments), rows)
    singles = [SimulatorEnv(batch.simulator) for _ in range(rows)]
    observations, _ = batch.reset(seed=3)
    for row, env in enumerate(singles):
        np.testing.assert_array_equal(env.reset(seed=3 + row)[0]["tokens"], observations["tokens"][row])
    rng = np.random.default_rng(0)
    for _ in range(turns):
        actions = rng.integers(0, 6, rows)
        observations, reward, terminated, truncated, info = batch.step(actions)
        for row, env in enumerate(singles):
            observation, *outcome, own = env.step(int(actions[row]))
            assert outcome == [reward[row], terminated[row], truncated[row]]
            done = outcome[1] or outcome[2]
            shown = info["final_obs"]["tokens"][row] if done else observations["tokens"][row]
            assert observation["tokens"].tobytes() == shown.tobytes()
            assert own["state_key"] == (info["final_info"] if done else info)["state_key"][row]
            if done:
                observation, _ = env.reset()
                assert observation["tokens"].tobytes() == observations["tokens"][row].tobytes()


def test_the_limit_truncates_and_the_goal_terminates_never_both() -> None:
    env = SimulatorVectorEnv(TextCorridor(rooms=4, slip=0.5), 64)
    env.reset(seed=0)
    rng, ends = np.random.default_rng(0), np.zeros(2, int)
    for _ in range(300):
        _, reward, terminated, truncated, info = env.step(rng.integers(0, 6, 64))
        assert not (terminated & truncated).any()
        np.testing.assert_array_equal(reward, terminated.astype(float))
        if "final_info" in info:
            final, done = info["final_info"], terminated | truncated
            np.testing.assert_array_equal(final["success"][done], terminated[done])
            np.testing.assert_array_equal(final["score"][done] == 1.0, terminated[done])
            assert (final["turn"][truncated] == 8).all()
        ends += [terminated.sum(), truncated.sum()]
    assert (ends > 0).all()


def test_the_same_task_is_the_same_in_eight_envs_whatever_went_before() -> None:
    seen = []
    for number in range(8):
        env = gym.make("palaestra/TextCorridor-v0", tasks=5)
        env.reset(seed=number)
        for _ in range(number):
            env.step(0)
            env.reset(options={"task_seed": number % 5})
        observation, info = env.reset(options={"task_seed": 3, "member": 7})
        walk = [observation["tokens"].tobytes(), info["task_uid"]]
        rng = np.random.default_rng(0)
        for _ in range(15):
            observation, _, terminated, _, info = env.step(rng.choice(np.flatnonzero(info["action_mask"])))
            walk += [observation["tokens"].tobytes(), info["state_key"]]
            if terminated:
                break
        seen.append(walk)
    assert all(walk == seen[0] for walk in seen)


def test_members_of_a_group_share_the_task_and_not_the_noise() -> None:
    env = gym.make_vec("palaestra/TextCorridor-v0", 16, tasks=5, slip=0.9)
    observation, info = env.reset(options={"task_seed": 2, "member": list(range(16))})
    assert len(set(info["task_uid"])) == 1
    assert len(np.unique(observation["tokens"], axis=0)) == 1
    keys = set()
    for _ in range(8):
        info = env.step(np.array([np.flatnonzero(mask)[0] for mask in info["action_mask"]]))[4]
        keys.add(tuple(info["state_key"]))
    assert any(len(set(row)) > 1 for row in keys)
    seeded, _ = env.reset(seed=1, options={"task_seed": list(range(5)) * 3 + [0]})
    assert len(np.unique(seeded["tokens"], axis=0)) == 5


@pytest.mark.parametrize(
    "options", [{"task_seed": 5}, {"task_seed": -1}, {"task_seed": 0.5}, {"member": 0}, {"task": 0}, {"task_seed": [0]}]
)
def test_options_that_name_no_task_are_refused(options: dict[str, Any]) -> None:
    env = gym.make_vec("palaestra/TextCorridor-v0", 2, tasks=5)
    with pytest.raises(ValueError, match="TextCorridor: reset with options"):
        env.reset(options=options)


def test_a_task_depends_on_its_number_and_split_alone() -> None:
    few, many = TextCorridor(tasks=2, loops=1), TextCorridor(tasks=6, loops=1)
    uids, states = [], CorridorState(*(np.zeros(1, np.int64) for _ in range(3)))
    np.testing.assert_array_equal(few.map.named_door, many.map.named_door[:2])
    np.testing.assert_array_equal(few.map.label, many.map.label[:2])
    for split in ("train", "validation", "test"):
        uids.append(int(TextCorridor(task_split=split).information(states)["task_uid"][0]))
    assert len(set(uids)) == 3
    pool = CorridorState(np.arange(6) * 8, *(np.zeros(6, np.int64) for _ in range(2)))
    assert len(set(many.information(pool)["task_uid"].tolist())) == 6


@pytest.mark.parametrize(
    ("arguments", "edges", "most"),
    [
        ({"rooms": 10}, 9, 2),
        ({"rooms": 10, "shape": "tree"}, 9, 3),
        ({"rooms": 10, "loops": 4}, 13, 5),
        ({"rooms": 64, "shape": "tree", "loops": 20, "aliases": 5}, 83, 5),
        ({"rooms": 2}, 1, 1),
    ],
)
def test_maps_are_as_asked(arguments: dict[str, Any], edges: int, most: int) -> None:
    world = TextCorridor(tasks=4, **arguments)
    rooms, maps = world.rooms, world.map
    for task in range(4):
        beside = np.zeros((rooms, rooms), int)
        for room in range(rooms):
            behind = maps.doors[task, room, : maps.degree[task, room]]
            beside[room, behind] += 1
            named = maps.named_door[task, room]
            np.testing.assert_array_equal(np.sort(named[named >= 0]), np.sort(behind))
            np.testing.assert_array_equal(named[named >= 0], behind)
        assert beside.max() == 1
        assert (beside == beside.T).all()
        assert beside.trace() == 0
        assert beside.sum() == 2 * edges
        assert maps.degree[task].max() <= most
        # Distance by powers of the matrix of neighbours.
        reached, distance = (
            np.eye(rooms, dtype=int)[maps.goal[task]],
            np.where(np.arange(rooms) == maps.goal[task], 0, -1),
        )
        for moves in range(1, rooms):
            reached = np.minimum(reached + reached @ beside, 1)
            distance = np.where((reached > 0) & (distance < 0), moves, distance)
        np.testing.assert_array_equal(maps.distance[task], distance)
        assert distance[maps.start[task]] == distance.max() <= world.horizon / 2
        counts = np.unique(maps.label[task], return_counts=True)[1]
        assert sorted(counts)[-1] == max(1, arguments.get("aliases", 0))


def test_names_have_the_asked_number_of_tokens() -> None:
    for tokens in (1, 4, 16):
        assert {len(encode(text)) for text in TextCorridor(name_tokens=tokens).grammar.texts} == {tokens + 1}
    assert [len(encode(text)) for text in TextCorridor(name_tokens=(1, 4, 12)).grammar.texts] == [2, 5, 13, 2, 5, 13]


def test_keys_hash_what_they_should() -> None:
    world = TextCorridor(aliases=3)
    states = world.enumerate_states()
    info, tokens = world.information(states), world.observe(states)["tokens"].copy()
    place_of = {}
    for place, key in zip(states.place, info["state_key"], strict=True):
        assert place_of.setdefault(key, place) == place
    # With the clock blotted out, equal anchors are equal tokens.
    clock = slice(*(list(tokens[0]).index(encode(word)[0]) for word in ("turn", "last")))
    assert decode(tokens[0, clock]) == "turn: 00 of 16\n"
    tokens[:, clock] = PAD
    looks = np.unique(tokens, axis=0, return_inverse=True)[1]
    assert len(set(zip(looks, info["anchor"], strict=True))) == len(set(looks)) == len(set(info["anchor"]))
    assert len(set(info["anchor"])) < len(set(zip(states.place, states.last, strict=True)))


def test_info_is_the_users_own_memory() -> None:
    env = SimulatorVectorEnv(TextCorridor(), 4)
    _, info = env.reset(seed=0)
    for value in info.values():
        value[...] = 1
    assert (env.step(np.zeros(4, int))[4]["turn"] == 1).all()


def test_a_world_that_was_solved_can_be_pickled() -> None:
    world = TextCorridor(loops=1)
    oracle = world.oracle()
    copied = pickle.loads(pickle.dumps((world, world.experts())))[0]
    assert copied.oracle() == oracle


def test_torch_steps_as_numpy_does() -> None:
    torch = pytest.importorskip("torch")
    for mode in ("index", "tokens"):
        world = TextCorridor(action_mode=mode, reward_mode="shaped", invalid_penalty=0.1, **WORLD)
        rows = 64
        arrays, tensors = CounterKey(list(range(rows))), CounterKey(torch.arange(rows))
        state, other = world.initial(arrays), world.initial(tensors)
        rng = np.random.default_rng(0)
        for turn in range(1, world.horizon):
            actions = rng.integers(0, 6, rows)
            if mode == "tokens":
                actions = np.stack([padded(encode(world.grammar.texts[action]), 32) for action in actions])
            step = world.step(state, actions, arrays.at(step=turn))
            same = world.step(other, torch.from_numpy(actions), tensors.at(step=turn))
            np.testing.assert_allclose(same.reward.numpy(), step.reward, atol=1e-15)
            np.testing.assert_array_equal(same.terminated.numpy(), step.terminated)
            state, other = step.state, same.state
            for one, another in ((world.observe(state), world.observe(other)),):
                np.testing.assert_array_equal(one["tokens"], another["tokens"].numpy())
            for name, value in world.information(state).items():
                np.testing.assert_array_equal(world.information(other)[name].numpy(), value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rooms": 1},
        {"rooms": 65},
        {"rooms": 8.5},
        {"shape": "ring"},
        {"loops": -1},
        {"loops": 40},
        {"aliases": 1},
        {"aliases": 7},
        {"name_tokens": 17},
        {"name_tokens": ()},
        {"slip": 1.5},
        {"slip": float("nan")},
        {"reward_mode": "dense"},
        {"invalid_penalty": -1.0},
        {"obs_mode": "image"},
        {"action_mode": "voice"},
        {"tasks": 0},
        {"task_split": "dev"},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any]) -> None:
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"TextCorridor: {name}=") as error:
        TextCorridor(**arguments)
    assert repr(value) in str(error.value)
    assert "expected" in str(error.value)


@pytest.mark.parametrize("obs_mode", ["tokens", "text", "both"])
@pytest.mark.parametrize("action_mode", ["index", "slots", "text", "tokens"])
def test_experts_act_in_every_mode(obs_mode: Any, action_mode: Any) -> None:
    world = TextCorridor(obs_mode=obs_mode, action_mode=action_mode, slip=0.0)
    env = SimulatorVectorEnv(world, 4)
    for actor in (*world.experts().values(), world.reference_policies()["shortest_path"]):
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        for _ in range(7):
            actions = actor(env._run.state, observation, None)
            assert env.action_space.contains(actions)
            observation, reward, terminated, _, _ = env.step(actions)
        assert terminated.all()
        assert (reward == 1.0).all()


@pytest.mark.parametrize("action_mode", ["index", "slots", "text", "tokens"])
def test_the_random_policy_is_admissible_in_every_mode(action_mode: Any) -> None:
    world = TextCorridor(action_mode=action_mode)
    states = world.enumerate_states()
    key = CounterKey(list(range(len(states.turn))))
    actions = world.reference_policies()["random"](states, None, key)
    arrays = world.encode_action(states, actions) if action_mode == "text" else actions
    assert world.information(world.step(states, arrays, key).state)["is_action_valid"].all()
