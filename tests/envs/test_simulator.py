from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gymnasium import spaces

from palaestra.envs.control.multi_goal_2d import MultiGoal2D
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import RandomActor, Simulator, map_arrays, take_rows, where_rows, with_rows

ROWS = 4000


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_random_actor_covers_each_space(library):
    seeds = np.arange(ROWS) if library == "numpy" else torch.arange(ROWS)
    key = CounterKey(seeds, step=1)

    def act(space, masks=None):
        return np.asarray(RandomActor(space, masks)(None, None, key))

    box = spaces.Box(np.array([-1.0, 10.0]), np.array([1.0, 30.0]), dtype=np.float64)
    actions = act(box)
    assert actions.shape == (ROWS, 2)
    np.testing.assert_allclose(actions.mean(axis=0), [0.0, 20.0], atol=0.5)
    np.testing.assert_allclose(actions.min(axis=0), box.low, atol=0.05)
    np.testing.assert_allclose(actions.max(axis=0), box.high, atol=0.05)
    counts = np.bincount(act(spaces.Discrete(3, start=2)))
    assert counts[:2].sum() == 0
    assert counts[2:].min() > ROWS / 3 - 150
    actions = act(spaces.MultiDiscrete([2, 3], start=[5, -1]))
    assert [sorted(set(column)) for column in actions.T.tolist()] == [[5, 6], [-1, 0, 1]]
    mask = np.zeros((ROWS, 4), bool)
    mask[:, [1, 3]] = True
    mask[: ROWS // 2, 3] = False
    mask = mask if library == "numpy" else torch.as_tensor(mask)
    actions = act(spaces.Discrete(4, start=1), lambda state: mask)
    assert set(actions[: ROWS // 2]) == {2}
    assert abs((actions[ROWS // 2 :] == 2).mean() - 0.5) < 0.05


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Box(0.0, np.inf, (1,)), spaces.Box(0, 5, (1,), np.int64)])
def test_random_actor_refuses_what_it_cannot_draw(space):
    with pytest.raises(TypeError, match="expected a bounded Box of floats"):
        RandomActor(space)(None, None, CounterKey([0]))


@dataclass(frozen=True)
class Pair:
    """Two arrays of different rank."""

    one: np.ndarray
    two: np.ndarray


def test_rows_are_taken_and_chosen_field_by_field():
    first, second = Pair(np.arange(3), np.zeros((3, 2))), Pair(-np.arange(3), np.ones((3, 2)))
    mixed = where_rows(np.array([True, False, True]), first, second)
    np.testing.assert_array_equal(mixed.one, [0, -1, 2])
    np.testing.assert_array_equal(mixed.two, [[0, 0], [1, 1], [0, 0]])
    changed = with_rows(first, np.array([2]), take_rows(second, np.array([1])))
    np.testing.assert_array_equal(changed.one, [0, 1, -1])
    np.testing.assert_array_equal(changed.two, [[0, 0], [0, 0], [1, 1]])
    np.testing.assert_array_equal(first.one, np.arange(3))
    tensors = [map_arrays(torch.as_tensor, pair) for pair in (first, take_rows(second, np.array([1])))]
    np.testing.assert_array_equal(with_rows(tensors[0], torch.tensor([2]), tensors[1]).one.numpy(), [0, 1, -1])
    np.testing.assert_array_equal(take_rows(mixed, np.array([2, 2, 1])).one, [2, 2, -1])
    np.testing.assert_array_equal(map_arrays(np.add, first, second).one, 0)


def test_a_step_is_its_two_halves():
    world = MultiGoal2D()
    state, key = world.initial(CounterKey([1, 2])), CounterKey([1, 2], step=1)
    action = np.full((2, 2), 0.5)
    post = world.decide(state, action)
    np.testing.assert_array_equal(world.step(state, action, key).reward, post.reward + world.realise(post, key).reward)


def test_what_a_world_lacks_is_named():
    class Bare(Simulator[Pair]):
        """Nothing but a start."""

        def initial(self, key):
            return Pair(np.zeros(key.batch), np.zeros((key.batch, 2)))

        def observe(self, state):
            return state.one

    world = Bare()
    state = world.initial(CounterKey([0]))
    for call in (
        lambda: world.step(state, np.zeros(1), CounterKey([0])),
        lambda: world.realise(state, CounterKey([0])),
        lambda: world.state_key(state),
        lambda: world.encode_action(state, ["go"]),
        lambda: world.decode_observation(None, state),
        lambda: world.initial_of_task(np.zeros(1), CounterKey([0])),
    ):
        with pytest.raises(TypeError, match="Bare"):
            call()
    with pytest.raises(ValueError, match="mode='rgb_array' is not drawn by Bare"):
        world.render(state)
    with pytest.raises(KeyError, match="unknown to Bare; expected one of"):
        world.expert()
    assert world.oracle() is None
    assert world.action_masks(state) is None
