from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from palaestra.envs.key_stream import KeyStream
from palaestra.envs.noise import (
    CounterKey,
    NoiseBlock,
    Tape,
    TapeBlock,
    check_branch,
    child_branch,
    draw_tape,
    philox4x32,
    stream_code,
)

# Known answers of Random123 (philox4x32 with 10 rounds): counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(library, counter, key, output):
    def array(value: int):
        return np.array([value], np.int64) if library == "numpy" else torch.tensor([value])

    c, k = [array(value) for value in words(counter)], [array(value) for value in words(key)]
    found = philox4x32((c[0], c[1], c[2], c[3]), (k[0], k[1]))
    assert [int(word[0]) for word in found] == words(output)


def test_layout_of_a_draw():
    """One double from the words of one block: seed, block, step, episode, name and branch each in their place."""
    seed, episode, step, branch = 0x123456789ABCDEF, 7, 9, 3
    counter = (0, step, episode, stream_code("demand") << 16 | branch)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    c, k = [np.array([value]) for value in counter], [np.array([value]) for value in key]
    high, low, *_ = (int(word[0]) for word in philox4x32((c[0], c[1], c[2], c[3]), (k[0], k[1])))
    # 27 and 26 bits of the two words, as NumPy's own generators take them.
    expected = ((high >> 5) * 2**26 + (low >> 6)) / 2**53
    assert CounterKey([seed], episode, step, branch).uniform("demand")[0] == expected


SIZES = [(), (1,), (2,), (5,), (3, 2)]


@pytest.mark.parametrize("size", SIZES)
def test_torch_draws_as_numpy_does(size):
    seeds = np.array([0, 1, 2**63 - 1, 987654321987654321])
    moment = {"episode": np.array([0, 1, 2, 2**32 - 1]), "step": np.array([5, 0, 1, 70000]), "branch": 65535}
    ours = CounterKey(seeds, **moment)
    theirs = CounterKey(
        torch.as_tensor(seeds), torch.as_tensor(moment["episode"]), torch.as_tensor(moment["step"]), 65535
    )
    for other in (theirs, CounterKey(seeds.tolist(), **moment, xp=torch)):
        assert isinstance(other.normal("x"), torch.Tensor)
        np.testing.assert_array_equal(other.uniform("x", size).numpy(), ours.uniform("x", size))
        np.testing.assert_array_equal(other.integers("x", 7, size).numpy(), ours.integers("x", 7, size))
        np.testing.assert_allclose(other.normal("x", size).numpy(), ours.normal("x", size), rtol=1e-13, atol=1e-15)
        assert other.normal("x", size).dtype == torch.float64


@pytest.mark.parametrize("size", SIZES)
def test_a_row_does_not_depend_on_the_batch(size):
    """Bitwise, for batches of every size around the widths of vector instructions, and for many rows in chunks."""
    seeds = np.arange(20_000) * 1_000_003
    whole = {kind: getattr(CounterKey(seeds, 3, 4), kind)("x", size) for kind in ("uniform", "normal")}
    for count in (1, 2, 3, 5, 8, 13):
        for start in (0, 4095, 8191, 19_980):
            rows = slice(start, start + count)
            for kind, values in whole.items():
                part = getattr(CounterKey(seeds[rows], 3, 4), kind)("x", size)
                np.testing.assert_array_equal(part, values[rows])


def test_every_coordinate_of_the_key_matters():
    base = {"episode": 1, "step": 2, "branch": 3}
    first = CounterKey([5], **base).uniform("x")
    others = [CounterKey([5], **{**base, name: 9}).uniform("x") for name in base]
    others += [CounterKey([6], **base).uniform("x"), CounterKey([5 + 2**32], **base).uniform("x")]
    others += [CounterKey([5], **base).uniform("y")]
    assert len({float(value[0]) for value in (first, *others)}) == len(others) + 1
    assert CounterKey([5]).at(episode=1, step=2, branch=3).uniform("x") == first


def test_distributions():
    key = CounterKey(np.arange(200), step=1)
    uniform, normal = key.uniform("u", (501,)).ravel(), key.normal("n", (501,)).ravel()
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    pairs = key.normal("n", (500,)).reshape(-1, 2)
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / np.sqrt(len(pairs))
    steps = np.stack([CounterKey(np.arange(2000), step=t).normal("n") for t in range(2)])
    assert abs(np.corrcoef(steps)[0, 1]) < 4 / np.sqrt(2000)
    counts = np.bincount(key.integers("i", 7, (501,)).ravel(), minlength=7)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_integers_are_the_high_part_of_a_product_with_a_64_bit_word():
    key = CounterKey([3, 4], step=1)
    seed = key.seed
    block = np.zeros(2, np.int64)
    step = np.ones(2, np.int64)
    stream = np.full(2, stream_code("x") << 16)
    found = philox4x32((block, step, block, stream), (seed & 0xFFFFFFFF, seed >> 32))
    for high in (1, 2, 3, 10, 2**31 - 1, 2**31):
        exact = [(int(h) << 32 | int(low)) * high >> 64 for h, low in zip(found[0], found[1], strict=True)]
        assert key.integers("x", high).tolist() == exact
    for bad in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match=f"high={bad}"):
            key.integers("x", bad)


def test_key_stream_serves_what_the_counter_key_draws():
    """Whatever the rows do, drawing ahead changes no bit."""
    rng = np.random.default_rng(0)
    for batch, chance in itertools.product((1, 3, 64, 700), (0.0, 0.6, 0.08)):
        stream = KeyStream(batch)
        stream.place(np.arange(batch) + 7, branch=5)
        for _ in range(150 if batch < 700 else 60):
            key = stream.transition()
            plain = CounterKey(stream.seed, stream.episode, stream.step + 1, stream.branch)
            assert key.batch == batch
            np.testing.assert_array_equal(key.normal("a", (2,)), plain.normal("a", (2,)))
            np.testing.assert_array_equal(key.integers("b", 5), plain.integers("b", 5))
            if rng.random() < 0.3:
                np.testing.assert_array_equal(key.uniform("seldom"), plain.uniform("seldom"))
            stream.advance()
            done = rng.random(batch) < chance
            if chance and rng.random() < 0.2:
                done[:] = True
            if done.any():
                start = CounterKey(stream.seed, stream.episode + 1, 0, stream.branch)
                np.testing.assert_array_equal(stream.start(1).uniform("c", (3,)), start.uniform("c", (3,)))
                stream.restart(done if rng.random() < 0.5 or not done.all() else None)


@pytest.mark.parametrize("batch", [1, 6, 300, 5000])
def test_starts_of_some_rows_are_those_of_the_rows(batch):
    """For small batches out of a block drawn ahead, for large ones drawn for these rows alone."""
    rng = np.random.default_rng(1)
    stream = KeyStream(batch)
    stream.place(np.arange(batch) + 7, episode=rng.integers(0, 3, batch), branch=2)
    for _ in range(40 if batch < 5000 else 6):
        rows = np.union1d(np.flatnonzero(rng.random(batch) < 0.3), rng.integers(batch))
        key = stream.start(1, rows)
        plain = CounterKey(stream.seed[rows], stream.episode[rows] + 1, 0, 2)
        assert key.batch == len(rows)
        np.testing.assert_array_equal(key.uniform("x", (3,)), plain.uniform("x", (3,)))
        np.testing.assert_array_equal(key.integers("y", 5), plain.integers("y", 5))
        stream.advance()
        stream.restart(rows)


def test_rows_that_have_reached_a_step_are_named():
    stream = KeyStream(3)
    stream.place([1, 2, 3], step=[0, 4, 2])
    assert stream.reached(5) is None
    np.testing.assert_array_equal(stream.reached(4), [False, True, False])
    stream.advance()
    np.testing.assert_array_equal(stream.step, [1, 5, 3])
    np.testing.assert_array_equal(stream.reached(5), [False, True, False])
    stream.restart(np.array([1]))
    np.testing.assert_array_equal(stream.step, [1, 0, 3])
    assert stream.reached(4) is None
    stream.advance()
    np.testing.assert_array_equal(stream.reached(4), [False, False, True])
    stream.restart()
    np.testing.assert_array_equal(stream.step, 0)
    assert stream.reached(1) is None
    np.testing.assert_array_equal(stream.episode, [1, 2, 1])


def test_key_stream_pickles_to_the_same_place():
    stream = KeyStream(3)
    stream.place([1, 2, 3], episode=[4, 5, 6], step=7, branch=8)
    stream.transition().normal("x")
    copied = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(copied.transition().normal("x"), stream.transition().normal("x"))
    np.testing.assert_array_equal(copied.start(1).normal("x"), stream.start(1).normal("x"))


def test_large_draws_are_not_kept_ahead_but_equal():
    seeds = np.broadcast_to(np.arange(4), (8, 4))
    steps = np.broadcast_to(np.arange(8).reshape(-1, 1), (8, 4))
    block = NoiseBlock(seeds, 0 * seeds, steps, 0 * seeds)
    size = (2**18,)
    np.testing.assert_array_equal(block.at(3).uniform("x", size), CounterKey(np.arange(4), 0, 3).uniform("x", size))


def test_tape_of_an_episode_equals_its_keys():
    seeds = [3, 1, 4]
    tape = draw_tape(seeds, 6, episode=2, branch=1)
    for step in range(7):
        plain = CounterKey(seeds, 2, step, 1)
        np.testing.assert_array_equal(tape.at(step).normal("x", (2,)), plain.normal("x", (2,)))
    on_torch = draw_tape(torch.tensor(seeds), 6, episode=2, branch=1)
    np.testing.assert_allclose(
        on_torch.at(4).normal("x").numpy(), CounterKey(seeds, 2, 4, 1).normal("x"), rtol=1e-13, atol=1e-15
    )
    with pytest.raises(ValueError, match="step=7"):
        tape.at(7)
    with pytest.raises(ValueError, match="steps=0"):
        draw_tape(seeds, 0)


def test_given_values_are_a_key_too():
    values = np.arange(12.0).reshape(2, 3, 2)
    tape = TapeBlock({"demand": values}, start={"slots": np.ones(3)})
    assert (tape.steps, tape.batch) == (2, 3)
    np.testing.assert_array_equal(tape.at(2).normal("demand", (2,)), values[1])
    np.testing.assert_array_equal(tape.at(0).uniform("slots"), np.ones(3))
    with pytest.raises(KeyError, match="'supply'"):
        tape.at(1).normal("supply")
    with pytest.raises(ValueError, match=r"expected \(3,\)"):
        tape.at(1).normal("demand")
    with pytest.raises(ValueError, match="step=3"):
        tape.at(3)
    with pytest.raises(ValueError, match="no values for the start"):
        TapeBlock({"demand": values}).at(0)
    with pytest.raises(ValueError, match="batches"):
        Tape({"a": np.ones(2), "b": np.ones(3)})
    with pytest.raises(ValueError, match="lengths"):
        TapeBlock({})


def test_branches():
    every = np.arange(65536)
    for parent in (0, 1, 3, 40_000):
        children = child_branch(parent, every)
        assert children[0] == parent
        assert len(np.unique(children)) == 65536
    # Choosing the number of the branch one is in is a fresh branch too.
    assert child_branch(3, 3) != 3
    np.testing.assert_array_equal(child_branch(0, every), every)
    for bad in (-1, 65536, 0.5, "a", [0, 70_000]):
        with pytest.raises(ValueError, match="expected integers from 0 to 65535"):
            check_branch(bad)


@pytest.mark.parametrize(
    "arguments",
    [([-1],), ([2**63],), ([0.5],), ([[1]],), ([1, 2], [1, 2, 3])],
    ids=["negative", "large", "real", "2d", "shape"],
)
def test_bad_keys_are_refused(arguments):
    with pytest.raises(ValueError, match="CounterKey"):
        CounterKey(*arguments)
