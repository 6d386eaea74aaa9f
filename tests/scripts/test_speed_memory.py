"""Memory: what a replay takes, what a checkpoint of it writes, and that nothing grows while training goes on."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from palaestra.agents.training.segments import SEGMENT_BYTES
from palaestra.scripts import speed_memory
from palaestra.scripts.timing import OURS


def test_the_raw_size_counts_every_array_once() -> None:
    floats, flags = 17 + 6 + 1 + 17, 2
    assert speed_memory.raw_bytes_per_row() == 4 * floats + flags == 166


def test_a_replay_takes_little_more_than_its_arrays() -> None:
    """A tenth of the size that is claimed, where a process's own fluctuations weigh ten times as much."""
    timing = speed_memory.replay(1, rows=100_000)
    raw = timing.sides[speed_memory.RAW][0]
    assert raw == pytest.approx(16.6)
    # Below the raw size only by what the process had taken for its blocks of rows before.
    assert 0.8 * raw < timing.sides[OURS][0] <= 1.1 * raw


def test_a_checkpoint_writes_new_rows_and_those_of_no_whole_segment_yet(tmp_path: Path) -> None:
    rows, new_rows, row = 70_000, 1_000, speed_memory.raw_bytes_per_row()
    first, second = speed_memory.checkpoint_bytes(rows, new_rows, str(tmp_path))
    overhead = 20_000
    assert rows * row < first < rows * row + overhead
    assert new_rows * row < second < new_rows * row + SEGMENT_BYTES + overhead
    assert second < first / 2
    # 32,768 rows make a segment: two are whole at first, and the third is still growing.
    assert second == pytest.approx((rows + new_rows - 2 * 32_768) * row, abs=overhead)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("agent_id", ["sac", "ppo"])
def test_python_objects_do_not_pile_up(agent_id: str) -> None:
    """Over 3,200 steps of eight rows; an object of 50 bytes kept in every step would be 160 kB."""
    agent = speed_memory.make_growing_agent(agent_id, replay=4_000)
    agent.learn(12_800)
    gc.collect()
    tracemalloc.start()
    try:
        # The first of two equal stretches pays for caches that are filled while memory is traced.
        agent.learn(6_400, reset_num_timesteps=False)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        agent.learn(25_600, reset_num_timesteps=False)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 40_000


@pytest.mark.slow
@pytest.mark.parametrize("measure", [speed_memory.growth_off_policy, speed_memory.growth_on_policy])
def test_the_process_does_not_grow(measure) -> None:
    """Over 200,000 steps; what the allocator still takes after the warm-up is known to end below half a megabyte."""
    assert measure(1, steps=200_000).sides[OURS][0] < 1.5


def test_a_measurement_that_fails_tells_why() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'dqn'"):
        speed_memory.alone(speed_memory.growth_bytes, "dqn", 10)
