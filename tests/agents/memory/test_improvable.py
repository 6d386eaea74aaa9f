"""The second actions of a replay buffer: where they begin, what they cost, and what is left of them on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from palaestra.agents.memory.improvable import ImprovableReplay
from palaestra.agents.training.checkpoint import CheckpointStore


def rows(first: int, count: int) -> dict[str, Any]:
    number = torch.arange(first, first + count, dtype=torch.float32)
    return {
        "observation": number.unsqueeze(-1),
        "action": 0.01 * number.unsqueeze(-1),
        "reward": number,
        "next_observation": number.unsqueeze(-1),
        "terminated": number < 0,
        "truncated": number < 0,
    }


def filled(added: int, capacity: int = 10) -> ImprovableReplay:
    replay = ImprovableReplay(capacity, 1, torch.device("cpu"))
    for first in range(0, added, 3):
        replay.add(rows(first, min(3, added - first)))
    return replay


def test_a_row_begins_with_the_action_that_was_executed() -> None:
    for added in (4, 10, 13, 25):
        replay = filled(added)
        kept = len(replay)
        assert torch.equal(replay.improved.actions[:kept], replay.fields["action"][:kept])


def test_more_rows_than_the_buffer_holds_keep_the_last() -> None:
    replay = ImprovableReplay(4, 1, torch.device("cpu"))
    replay.add(rows(0, 9))
    assert torch.equal(replay.improved.actions, replay.fields["action"])
    assert replay.improved.actions.sum().item() == torch.tensor([0.05, 0.06, 0.07, 0.08]).sum().item()


def test_better_actions_stay_until_their_rows_go_and_the_rows_never_change() -> None:
    replay = filled(8)
    index = torch.tensor([2, 7])
    replay.improved.write(index, torch.tensor([[0.9], [-0.9]]))
    assert replay.improved.at(index).flatten().tolist() == torch.tensor([0.9, -0.9]).tolist()
    assert torch.equal(replay.rows(index).action, torch.tensor([[0.02], [0.07]]))
    replay.add(rows(8, 5))
    assert replay.improved.at(index).flatten().tolist() == torch.tensor([0.12, -0.9]).tolist()


def test_what_was_improved_comes_back_with_its_rows(tmp_path: Path) -> None:
    replay, again = filled(13), ImprovableReplay(10, 1, torch.device("cpu"))
    replay.improved.write(torch.tensor([1, 5]), torch.tensor([[0.5], [-0.5]]))
    store = CheckpointStore(tmp_path)
    store.save(1, {"improved": replay.improved.state_dict()}, header={}, streams={"replay": replay})
    saved = store.load()
    again.improved.load_state_dict(saved.state["improved"])  # type: ignore[index]
    saved.fill({"replay": again})
    assert torch.equal(again.improved.actions, replay.improved.actions)
    assert torch.equal(again.fields["action"], replay.fields["action"])


def test_the_state_holds_the_actions_of_the_rows_kept_alone() -> None:
    assert filled(4).improved.state_dict()["actions"].shape == (4, 1)
    assert filled(14).improved.state_dict()["actions"].shape == (10, 1)


def test_a_state_without_its_rows_is_of_no_harm() -> None:
    again = ImprovableReplay(10, 1, torch.device("cpu"))
    again.improved.load_state_dict(filled(7).improved.state_dict())
    again.add(rows(50, 3))
    index = again.draw(20, torch.Generator().manual_seed(0))
    assert torch.equal(again.improved.at(index), again.rows(index).action)
