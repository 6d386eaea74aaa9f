"""The buffer of whole episodes, on rows whose episodes have unequal lengths."""

from __future__ import annotations

import torch

from palaestra.agents.losses.trajectories import discounts_in_episode, trajectory_numbers
from palaestra.agents.memory.episodes import EpisodeBuffer


def play(buffer: EpisodeBuffer, endings: list[str]) -> None:
    """Add steps: in each string, a letter a row: "." goes on, "t" terminates, "c" is cut, "r" only resets."""
    for number, letters in enumerate(endings):
        flags = {letter: torch.tensor([found == letter for found in letters]) for letter in "tcr"}
        reward = torch.full((len(letters),), float(number))
        buffer.add(reward=reward, terminated=flags["t"], truncated=flags["c"], valid=~flags["r"])


def test_every_row_contributes_its_first_episodes_and_waits() -> None:
    buffer = EpisodeBuffer(2, 2, torch.device("cpu"))
    # Row 0 needs two episodes for two steps; row 1 has enough after one, and plays on unused.
    play(buffer, ["t.", ".."])
    assert not buffer.full
    play(buffer, ["..", "ct"])
    assert buffer.full
    buffer.trim()
    assert buffer.fields["valid"].T.tolist() == [[True] * 4, [True] * 4]
    ended = buffer.fields["terminated"] | buffer.fields["truncated"]
    assert trajectory_numbers(ended, buffer.fields["valid"]).view(4, 2).T.tolist() == [[0, 1, 1, 1], [2, 2, 2, 2]]
    discounts = discounts_in_episode(ended, buffer.fields["valid"], 0.5)
    assert discounts.T.tolist() == [[1.0, 1.0, 0.5, 0.25], [1.0, 0.5, 0.25, 0.125]]

    buffer.clear()
    play(buffer, ["t.", "..", ".."])
    assert buffer.stage.tolist() == [1, 1]
    play(buffer, ["t.", "..", ".t"])
    buffer.trim()
    assert buffer.fields["valid"].T.tolist() == [[True] * 4 + [False] * 2, [True] * 6]


def test_an_episode_under_way_when_the_policy_changes_is_not_used() -> None:
    buffer = EpisodeBuffer(1, 2, torch.device("cpu"))
    play(buffer, ["t.", ".t"])
    assert buffer.full
    buffer.clear()
    assert buffer.stage.tolist() == [0, 1]
    play(buffer, ["..", "tt", ".."])
    assert not buffer.full
    play(buffer, ["c."])
    assert buffer.full
    buffer.trim()
    assert buffer.fields["valid"].T.tolist() == [[False, False, True, True], [True, True, False, False]]
    ended = buffer.fields["terminated"] | buffer.fields["truncated"]
    # In the order of the steps: row 1 plays first.
    assert trajectory_numbers(ended, buffer.fields["valid"]).tolist() == [1, 1, 0, 0]


def test_steps_that_only_reset_leave_a_row_at_its_start() -> None:
    buffer = EpisodeBuffer(1, 2, torch.device("cpu"))
    play(buffer, ["t.", "rt"])
    buffer.clear()
    assert buffer.stage.tolist() == [1, 1]
    play(buffer, [".r", "t.", "rt"])
    assert buffer.full
    buffer.trim()
    assert buffer.fields["valid"].T.tolist() == [[True, True, False], [False, True, True]]
    discounts = discounts_in_episode(buffer.fields["terminated"], buffer.fields["valid"], 0.5)
    assert discounts.T.tolist() == [[1.0, 0.5, 1.0], [1.0, 1.0, 0.5]]


def test_it_grows_and_is_restored_in_the_middle() -> None:
    buffer = EpisodeBuffer(1, 1, torch.device("cpu"))
    play(buffer, ["."] * 40)
    restored = EpisodeBuffer(1, 1, torch.device("cpu"))
    restored.load_state_dict(buffer.state_dict())
    for one in (buffer, restored):
        play(one, ["."] * 40 + ["t"])
        one.trim()
    for name, field in buffer.fields.items():
        assert len(field) == 81
        assert torch.equal(field, restored.fields[name])
    assert buffer.full
    buffer.restart()
    assert not buffer.full
    assert buffer.stage.tolist() == [1]
