"""Replay and rollout buffers against lists."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from palaestra.agents.memory.replay import ReplayBuffer
from palaestra.agents.memory.rollout import RolloutBuffer

CPU = torch.device("cpu")


def rows(numbers: range | list[int]) -> dict[str, object]:
    values = torch.tensor(list(numbers), dtype=torch.float32)
    flags = torch.zeros(len(values), dtype=torch.bool)
    return {
        "observation": {"a": values[:, None], "b": values.to(torch.uint8)},
        "action": values[:, None],
        "reward": values,
        "next_observation": {"a": values[:, None] + 1, "b": values.to(torch.uint8)},
        "terminated": flags,
        "truncated": flags,
    }


@pytest.mark.parametrize("chunk", [1, 3, 7, 10, 25])
def test_the_ring_keeps_the_latest(chunk: int) -> None:
    buffer = ReplayBuffer(10, CPU)
    for start in range(0, 50, chunk):
        buffer.add(rows(range(start, min(50, start + chunk))))
    assert (len(buffer), buffer.rows_written, buffer.rows_kept_from) == (10, 50, 40)
    assert buffer.read_rows(40, 50)["reward"].tolist() == list(range(40, 50))
    batch = buffer.sample(500, torch.Generator().manual_seed(0))
    assert set(batch.reward.tolist()) == set(range(40, 50))
    assert isinstance(batch.observation, dict)
    assert torch.equal(batch.observation["a"][:, 0], batch.reward)
    assert batch.observation["b"].dtype == torch.uint8


def test_sampling_is_uniform() -> None:
    buffer = ReplayBuffer(10, CPU)
    buffer.add(rows(range(10)))
    counts = Counter(buffer.sample(10_000, torch.Generator().manual_seed(1)).reward.tolist())
    assert max(abs(count - 1_000) for count in counts.values()) < 150


def test_rows_survive_a_round_trip() -> None:
    buffer, other = ReplayBuffer(10, CPU), ReplayBuffer(12, CPU)
    buffer.add(rows(range(23)))
    other.begin_load(buffer.rows_written, buffer.rows_kept_from)
    for start, stop in ((13, 18), (18, 23)):
        other.write_rows(start, buffer.read_rows(start, stop))
    other.add(rows([23]))
    assert other.read_rows(13, 24)["reward"].tolist() == list(range(13, 24))


def test_bad_buffers_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity=0"):
        ReplayBuffer(0, CPU)
    with pytest.raises(ValueError, match="empty"):
        ReplayBuffer(5, CPU).sample(1, None)
    with pytest.raises(ValueError, match="holds 8 rows; expected at most capacity=5"):
        ReplayBuffer(5, CPU).begin_load(8, 0)


def full_rollout(steps: int = 4, envs: int = 3) -> RolloutBuffer:
    buffer = RolloutBuffer(steps, CPU)
    for step in range(steps):
        number = torch.arange(envs, dtype=torch.float32) + 10 * step
        never = torch.zeros(envs, dtype=torch.bool)
        valid = torch.ones(envs, dtype=torch.bool)
        valid[0] = step != 2
        buffer.add(
            observation={"x": number},
            reward=number,
            terminated=never,
            truncated=never,
            valid=valid,
        )
    return buffer


def with_advantages() -> RolloutBuffer:
    buffer = full_rollout()
    buffer.compute_advantages(buffer.fields["reward"], torch.zeros(3), [], 0.9, 0.9)
    return buffer


def test_a_truncated_row_goes_on_from_its_final_observation() -> None:
    """With lambda 0 the advantage is r + gamma V' - V: V' of the next step, the final observation, or the last one."""
    buffer = RolloutBuffer(3, CPU)
    for step in range(3):
        flags = {name: torch.zeros(2, dtype=torch.bool) for name in ("terminated", "truncated")}
        flags["truncated"][1], flags["terminated"][0] = step == 1, step == 1
        buffer.add(reward=torch.ones(2), valid=torch.ones(2, dtype=torch.bool), **flags)
        if step == 1:
            buffer.add_final(torch.tensor([1]), torch.tensor([[7.0]]), None)
    copy = RolloutBuffer(3, CPU)
    copy.load_state_dict(buffer.state_dict())
    (final,) = copy.finals
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    copy.compute_advantages(value, torch.tensor([8.0, 9.0]), [10.0 * final["observation"][:, 0]], 0.5, 0.0)
    expected = torch.tensor([[1 + 1.5 - 1, 1 + 2 - 2], [1 - 3, 1 + 35 - 4], [1 + 4 - 5, 1 + 4.5 - 6]])
    torch.testing.assert_close(copy.fields["advantage"], expected)
    torch.testing.assert_close(copy.fields["target"], expected + value)


def test_minibatches_cover_every_valid_step_once() -> None:
    buffer = with_advantages()
    generator = torch.Generator().manual_seed(0)
    batches = list(buffer.minibatches(4, generator))
    seen = torch.cat([batch["value"] for batch in batches]).tolist()
    assert sorted(seen) == sorted({10.0 * s + e for s in range(4) for e in range(3)} - {20.0})
    assert [len(batch["value"]) for batch in batches] == [4, 4, 3]
    assert all(torch.equal(batch["observation"]["x"], batch["value"]) for batch in batches)
    (whole,) = buffer.sequence_minibatches(3, generator)
    assert whole["sequence"]["reward"].shape == (4, 3)
    assert len(whole["reward"]) == 11


def test_a_partly_filled_rollout_is_saved() -> None:
    buffer = full_rollout()
    half = RolloutBuffer(4, CPU)
    half.load_state_dict({"position": 2, "fields": {k: v[:2] for k, v in buffer.fields.items()}, "finals": []})
    assert not half.full
    state = half.state_dict()
    assert state["fields"]["reward"].tolist() == buffer.fields["reward"][:2].tolist()


def test_a_new_rollout_knows_nothing_of_the_last() -> None:
    """Advantages of the last rollout in a checkpoint would differ between a run and its resumed twin."""
    buffer = with_advantages()
    buffer.clear()
    assert buffer.state_dict() == RolloutBuffer(4, CPU).state_dict()
    assert not {"advantage", "target"} & buffer.fields.keys()
