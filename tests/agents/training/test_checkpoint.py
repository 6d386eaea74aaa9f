"""Checkpoints are complete or absent, verified when read, run no code, and write every row of replay once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import re
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.training import segments
from palaestra.agents.training.checkpoint import Checkpoint, CheckpointError, CheckpointStore
from palaestra.agents.training.tree import first_difference

FIXTURES = Path(__file__).parent / "fixtures"
HEADER = {"agent": "sac", "config": {"widths": (256, 256), "limit": float("inf")}, "env_id": "Pendulum-v1"}


class Ring:
    """A replay ring whose every row is a known function of its number and of the history it belongs to."""

    def __init__(self, capacity: int, history: int = 0) -> None:
        self.capacity, self.history = capacity, history
        self.rows_written = self.rows_kept_from = 0
        self.rows: dict[int, tuple[float, int]] = {}
        self.reads: list[tuple[int, int]] = []

    def add(self, count: int) -> None:
        for number in range(self.rows_written, self.rows_written + count):
            self.rows[number] = (number + 0.5 * self.history, number % 251)
        self.rows_written += count
        self.rows_kept_from = max(0, self.rows_written - self.capacity)
        self.rows = {number: row for number, row in self.rows.items() if number >= self.rows_kept_from}

    def read_rows(self, start: int, stop: int) -> Mapping[str, torch.Tensor]:
        assert self.rows_kept_from <= start < stop <= self.rows_written
        self.reads.append((start, stop))
        rows = [self.rows[number] for number in range(start, stop)]
        return {
            "reward": torch.tensor([row[0] for row in rows], dtype=torch.float64),
            "obs": torch.tensor([[row[1]] * 3 for row in rows], dtype=torch.uint8),
        }

    def begin_load(self, rows_written: int, rows_kept_from: int) -> None:
        self.rows_written, self.rows_kept_from, self.rows = rows_written, rows_kept_from, {}

    def write_rows(self, start: int, rows: Mapping[str, torch.Tensor]) -> None:
        for i, (reward, obs) in enumerate(zip(rows["reward"].tolist(), rows["obs"].tolist(), strict=True)):
            assert start + i not in self.rows
            self.rows[start + i] = (reward, obs[0])


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight rows to a segment: 11 bytes a row."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 100)


def state_at(step: int) -> dict[str, Any]:
    return {
        "weights": {"0.weight": torch.full((4, 3), float(step)), "half": torch.ones(2, dtype=torch.bfloat16)},
        "noise": np.random.default_rng(step).bit_generator.state,
        "counters": (step, [None, True, float("nan")]),
        7: np.arange(step % 5),
    }


def restored(checkpoint: Checkpoint, capacity: int, name: str = "replay") -> Ring:
    ring = Ring(capacity)
    checkpoint.fill({name: ring})
    return ring


def content(ring: Ring) -> tuple[int, int, dict[int, tuple[float, int]]]:
    return ring.rows_written, ring.rows_kept_from, dict(ring.rows)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_state_and_header_come_back_the_same(tmp_path: Path) -> None:
    saved = CheckpointStore(tmp_path / "deep" / "run").save(10_000, state_at(3), header=HEADER)
    loaded = CheckpointStore(tmp_path / "deep" / "run").load()
    assert first_difference(loaded.state, state_at(3)) is None
    assert loaded.header == HEADER
    assert loaded.step == 10_000
    assert loaded.path == saved.path == tmp_path / "deep" / "run" / "step-000000010000"
    assert names(saved.path) == {"manifest.json", "tensors.safetensors"}
    assert saved.bytes_written == sum(path.stat().st_size for path in saved.path.iterdir())
    assert json.loads((saved.path / "manifest.json").read_text())["content"]["header"]["agent"] == "sac"


def test_only_the_newest_are_kept_and_any_of_them_loads(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    for step in (0, 5, 7, 20):
        store.save(step, state_at(step), header=HEADER)
    assert store.steps() == [5, 7, 20]
    for step in (5, 7, 20):
        assert first_difference(store.load(step).state, state_at(step)) is None
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 6; expected one of \[5, 7, 20\]"):
        store.load(6)


@pytest.mark.parametrize("capacity", [1, 5, 8, 30, 10_000])
def test_replay_comes_back_from_every_checkpoint(tmp_path: Path, capacity: int) -> None:
    rng = random.Random(capacity)
    store, ring, expected = CheckpointStore(tmp_path, keep=3), Ring(capacity), {}
    for step in range(25):
        ring.add(rng.choice([0, 1, 3, 8, 9, 40]))
        store.save(step, {}, header={}, streams={"replay": ring})
        expected[step] = content(ring)
        for kept in store.steps():
            assert content(restored(CheckpointStore(tmp_path).load(kept), capacity)) == expected[kept]


def test_a_row_is_written_once_as_part_of_a_segment(tmp_path: Path) -> None:
    store, ring = CheckpointStore(tmp_path), Ring(1000)
    ring.add(20)
    first = store.save(0, {}, header={}, streams={"replay": ring})
    held = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "segments").iterdir()}
    assert (first.segments_written, first.segments_deleted, len(held)) == (2, 0, 2)
    ring.reads.clear()
    ring.add(6)
    second = store.save(1, {}, header={}, streams={"replay": ring})
    assert ring.reads == [(16, 24), (24, 26)]
    assert (second.segments_written, second.segments_deleted) == (1, 0)
    for path, identity in held.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == identity
    new = [path for path in (tmp_path / "segments").iterdir() if path not in held]
    assert second.bytes_written == sum(path.stat().st_size for path in [*new, *second.path.iterdir()])


def test_segments_go_only_when_no_checkpoint_needs_them(tmp_path: Path) -> None:
    store, ring = CheckpointStore(tmp_path, keep=2), Ring(16)
    deleted = []
    for step in range(6):
        ring.add(8)
        deleted.append(store.save(step, {}, header={}, streams={"replay": ring}).segments_deleted)
    # The ring holds two segments, and the older checkpoint one that is no longer in the ring.
    assert deleted == [0, 0, 0, 1, 1, 1]
    assert sorted(int(path.name.split("-")[1]) for path in (tmp_path / "segments").iterdir()) == [24, 32, 40]


def test_a_run_that_goes_on_from_a_loaded_checkpoint_writes_only_new_rows(tmp_path: Path) -> None:
    ring = Ring(1000)
    ring.add(50)
    CheckpointStore(tmp_path).save(0, {}, header={}, streams={"replay": ring})
    checkpoint = CheckpointStore(tmp_path).load()
    again = restored(checkpoint, 1000)
    again.add(10)
    saved = checkpoint.store.save(1, {}, header={}, streams={"replay": again})
    assert again.reads == [(48, 56), (56, 60)]
    assert saved.segments_written == 1
    ring.add(10)
    assert content(restored(CheckpointStore(tmp_path).load(), 1000)) == content(ring)


def test_another_history_from_an_older_checkpoint_mixes_nothing(tmp_path: Path) -> None:
    store, ring = CheckpointStore(tmp_path, keep=3), Ring(1000)
    ring.add(20)
    store.save(0, {}, header={}, streams={"replay": ring})
    ring.add(20)
    store.save(10, {}, header={}, streams={"replay": ring})
    newer = content(ring)
    checkpoint = CheckpointStore(tmp_path, keep=3).load(0)
    other = restored(checkpoint, 1000)
    other.history = 1
    other.add(12)
    assert content(restored(CheckpointStore(tmp_path).load(), 1000)) == newer
    checkpoint.store.save(5, {}, header={}, streams={"replay": other})
    assert store.steps() == [0, 5]
    assert content(restored(CheckpointStore(tmp_path).load(), 1000)) == content(other)
    assert {row[0] % 1 for number, row in other.rows.items() if number >= 20} == {0.5}


def test_loading_weights_alone_trusts_no_segment(tmp_path: Path) -> None:
    ring = Ring(1000)
    ring.add(20)
    CheckpointStore(tmp_path).save(0, {}, header={}, streams={"replay": ring})
    store, other = CheckpointStore(tmp_path), Ring(1000, history=1)
    store.load()
    other.add(20)
    store.save(1, {}, header={}, streams={"replay": other})
    assert content(restored(CheckpointStore(tmp_path).load(), 1000)) == content(other)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(4, state_at(1), header=HEADER)
    CheckpointStore(tmp_path).save(4, state_at(2), header=HEADER)
    assert store.steps() == [4]
    assert first_difference(store.load().state, state_at(2)) is None


def test_a_store_that_knows_nothing_of_later_checkpoints_refuses_to_drop_them(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(100, state_at(1), header=HEADER)
    with pytest.raises(CheckpointError, match="checkpoints of another run, up to step 100"):
        CheckpointStore(tmp_path).save(0, state_at(2), header=HEADER)
    assert CheckpointStore(tmp_path).steps() == [100]
    CheckpointStore(tmp_path, keep=1).save(0, state_at(2), header=HEADER)
    assert CheckpointStore(tmp_path).steps() == [0]


@contextmanager
def fault(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Call `act` in place of the `at`-th call that changes the disk or waits for it; yield the count of calls."""
    calls = [0]

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == at:
                act()
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "rename", "mkdir"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        yield calls


def begin_run(directory: Path) -> tuple[CheckpointStore, Ring]:
    """Save two checkpoints, and let the ring move on so far that the third writes and deletes segments."""
    store, ring = CheckpointStore(directory), Ring(20)
    for step in (0, 1):
        ring.add(20)
        store.save(step, state_at(step), header=HEADER, streams={"replay": ring})
    ring.add(20)
    return store, ring


def calls_of_a_save(monkeypatch: pytest.MonkeyPatch, directory: Path) -> int:
    store, ring = begin_run(directory)
    with fault(monkeypatch, 0, lambda: None) as calls:
        store.save(2, state_at(2), header=HEADER, streams={"replay": ring})
    return calls[0]


def check_whole(directory: Path, ring: Ring) -> int:
    """Assert that the newest checkpoint is one of the two it may be, and return its step."""
    loaded = CheckpointStore(directory).load()
    assert loaded.step in (1, 2)
    assert first_difference(loaded.state, state_at(loaded.step)) is None
    expected = Ring(20)
    expected.add(20 * (loaded.step + 1))
    assert content(restored(loaded, 20)) == content(expected)
    return loaded.step


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_at_any_moment_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    outcomes = set()
    for at in range(1, calls_of_a_save(monkeypatch, tmp_path / "count") + 1):
        directory = tmp_path / str(at)
        store, ring = begin_run(directory)
        before = names(directory)
        with fault(monkeypatch, at, fail), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                store.save(2, state_at(2), header=HEADER, streams={"replay": ring})
            except CheckpointError as error:
                outcomes.add(re.sub(r"^.*: the", "the", str(error)))
        outcomes |= {re.sub(":.*", "", str(warning.message)) for warning in caught}
        if check_whole(directory, ring) == 1:
            assert names(directory) == before
        store.save(2, state_at(2), header=HEADER, streams={"replay": ring})
        assert check_whole(directory, ring) == 2
        assert store.steps() == [1, 2]
        assert not [name for name in names(directory) if ".tmp-" in name]
    reason = os.strerror(code)
    assert outcomes == {
        f"the checkpoint of step 2 was not written: {reason}; steps [0, 1] remain",
        f"the checkpoint of step 2 is whole, but may not outlive a power failure: {reason}; steps [0, 1, 2] remain",
        "step 2 was saved, but older files could not be deleted",
    }


def test_a_process_killed_at_any_moment_leaves_whole_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = []
    for at in range(1, calls_of_a_save(monkeypatch, tmp_path / "count") + 1):
        directory = tmp_path / str(at)
        store, ring = begin_run(directory)
        child = os.fork()
        if child == 0:
            with fault(monkeypatch, at, lambda: os._exit(9)):
                store.save(2, state_at(2), header=HEADER, streams={"replay": ring})
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        newest.append(check_whole(directory, ring))
        resumed = CheckpointStore(directory).load(1)
        again = restored(resumed, 20)
        again.add(20)
        resumed.store.save(2, state_at(2), header=HEADER, streams={"replay": again})
        assert check_whole(directory, ring) == 2
        assert not [name for name in names(directory) if ".tmp-" in name]
    assert newest == sorted(newest)
    assert set(newest) == {1, 2}


def test_a_process_killed_while_replacing_a_step_leaves_one_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(1, 12):
        directory = tmp_path / str(at)
        store = CheckpointStore(directory)
        store.save(0, state_at(0), header=HEADER)
        child = os.fork()
        if child == 0:
            with fault(monkeypatch, at, lambda: os._exit(9)):
                store.save(0, state_at(1), header=HEADER)
            os._exit(0)
        os.waitpid(child, 0)
        assert CheckpointStore(directory).steps() == [0]
        state = CheckpointStore(directory).load().state
        assert None in (first_difference(state, state_at(0)), first_difference(state, state_at(1)))
        CheckpointStore(directory).save(1, state_at(1), header=HEADER)
        assert CheckpointStore(directory).steps() == [0, 1]


def test_an_interrupt_while_saving_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ring = begin_run(tmp_path)
    before = names(tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with fault(monkeypatch, 3, interrupt), pytest.raises(KeyboardInterrupt):
        store.save(2, state_at(2), header=HEADER, streams={"replay": ring})
    assert names(tmp_path) == before


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(0, state_at(0), header=HEADER)
    before = names(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to let any file grow beyond this, as it would on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=rf"{tmp_path}.*step 1 was not written: File too large; steps \[0\] remain"
        ):
            store.save(1, {"weights": torch.zeros(100_000)}, header=HEADER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == before
    assert first_difference(store.load().state, state_at(0)) is None


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file.*the checkpoint of step 0 was not written: Not a directory"):
        CheckpointStore(tmp_path / "file" / "run").save(0, {}, header={})


class RunsCode:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _edit(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def _write(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def _torch_save(path: Path) -> None:
    torch.save({"x": RunsCode(path.parent.parent / "mark")}, path)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(RunsCode(path.parent.parent / "mark")))


NEWEST = "step-000000000001"
DAMAGE = [
    (f"{NEWEST}/tensors.safetensors", _truncate, r"has \d+ bytes; expected \d+"),
    (f"{NEWEST}/tensors.safetensors", _flip, "was changed: its SHA-256 is"),
    (f"{NEWEST}/tensors.safetensors", Path.unlink, "No such file or directory"),
    (f"{NEWEST}/tensors.safetensors", _torch_save, "is a pickle or a zip archive .* loads no pickles"),
    (f"{NEWEST}/tensors.safetensors", _pickle, "is a pickle or a zip archive .* loads no pickles"),
    (f"{NEWEST}/policy.pth", _torch_save, "is a pickle or a zip archive .* loads no pickles"),
    (f"{NEWEST}/manifest.json", _pickle, "is a pickle or a zip archive .* loads no pickles"),
    (f"{NEWEST}/manifest.json", _truncate, "is truncated or no JSON"),
    (f"{NEWEST}/manifest.json", Path.unlink, "No such file or directory"),
    (f"{NEWEST}/manifest.json", _edit('"step": 1', '"step": 2'), "was changed: its content does not have the SHA-256"),
    (
        f"{NEWEST}/manifest.json",
        _edit('"format_version": 1', '"format_version": 99'),
        "format_version=99, written by a newer",
    ),
    (f"{NEWEST}/manifest.json", _edit('"format_version": 1', '"format_version": 0'), "format_version=0; expected"),
    (f"{NEWEST}/manifest.json", _write(b'{"epoch": 3}'), "is not the manifest of a Palaestra checkpoint"),
    (f"{NEWEST}/manifest.json", _write(b"[" * 100_000), "is truncated or no JSON"),
    (f"{NEWEST}/manifest.json", _write(b"\xff\xfe\x00"), "is truncated or no JSON"),
    (f"{NEWEST}/replay.safetensors", _truncate, r"has \d+ bytes; expected \d+"),
    (f"{NEWEST}/replay.safetensors", Path.unlink, "No such file or directory"),
    ("segments/replay-000000000016-*", _flip, "was changed: its SHA-256 is"),
    ("segments/replay-000000000016-*", Path.unlink, "No such file or directory"),
]


@pytest.mark.parametrize(
    ("file", "damage", "message"), DAMAGE, ids=lambda part: str(getattr(part, "__name__", part))[:40]
)
def test_damage_is_named_and_the_older_checkpoint_still_loads(
    tmp_path: Path, file: str, damage: Callable[[Path], None], message: str
) -> None:
    store, ring = CheckpointStore(tmp_path), Ring(1000)
    for step, rows in ((0, 13), (1, 14)):
        ring.add(rows)
        store.save(step, state_at(step), header=HEADER, streams={"replay": ring})
    folder, name = (tmp_path / file).parent, Path(file).name
    path = next(folder.glob(name), folder / name)
    damage(path)
    with pytest.raises(
        CheckpointError, match=rf"{re.escape(str(path))}.*{message}.*; step 0 still loads: load\(step=0\)"
    ):
        store.load()
    expected = Ring(1000)
    expected.add(13)
    assert content(restored(CheckpointStore(tmp_path).load(step=0), 1000)) == content(expected)
    with pytest.warns(UserWarning, match=rf"{message}.*; step 0 is loaded in its place"):
        assert CheckpointStore(tmp_path).load(fall_back=True).step == 0
    assert not (tmp_path / "mark").exists()


def test_files_outside_the_folder_are_never_followed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run")
    path = store.save(0, state_at(0), header=HEADER).path
    shutil.copy(path / "tensors.safetensors", tmp_path / "outside.safetensors")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["content"]["tensors"]["name"] = "../../outside.safetensors"
    text = json.dumps(manifest["content"], separators=(",", ":"))
    manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"name='../../outside.safetensors'; expected a plain file name"):
        store.load()


def test_a_checkpoint_alone_and_damaged_says_that_none_is_left(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    _truncate(store.save(0, state_at(0), header=HEADER).path / "tensors.safetensors")
    for fall_back in (False, True):
        with pytest.raises(CheckpointError, match=r"no older checkpoint in .* is valid"):
            store.load(fall_back=fall_back)


def test_a_renamed_folder_is_an_error(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(3, {}, header={}).path
    path.rename(tmp_path / "step-000000000009")
    with pytest.raises(CheckpointError, match="is of step 3; expected 9"):
        CheckpointStore(tmp_path).load()


def test_what_is_no_folder_of_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        CheckpointStore(tmp_path / "absent").load()
    with pytest.raises(CheckpointError, match="holds no checkpoint; expected folders named step-"):
        CheckpointStore(tmp_path).load()
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="is a file; expected a folder"):
        CheckpointStore(tmp_path / "notes.txt").load()
    torch.save({"x": RunsCode(tmp_path / "mark")}, tmp_path / "model.zip")
    for directory in (tmp_path, tmp_path / "model.zip"):
        with pytest.raises(CheckpointError, match=r"model\.zip is a pickle or a zip archive .* loads no pickles"):
            CheckpointStore(directory).load()
    assert not (tmp_path / "mark").exists()


def test_a_stable_baselines3_zip_is_refused(tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo.zip")
    with pytest.raises(CheckpointError, match=r"stable-baselines3 write them.*loads no pickles"):
        CheckpointStore(tmp_path / "ppo.zip").load()


def test_reading_changes_nothing(tmp_path: Path) -> None:
    ring = Ring(1000)
    ring.add(30)
    CheckpointStore(tmp_path).save(0, state_at(0), header=HEADER, streams={"replay": ring})
    (tmp_path / ".tmp-000000000001").mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    restored(CheckpointStore(tmp_path).load(), 1000)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_streams_must_be_those_that_were_saved(tmp_path: Path) -> None:
    ring = Ring(10)
    ring.add(3)
    CheckpointStore(tmp_path).save(0, {}, header={}, streams={"replay": ring, "empty": Ring(10)})
    checkpoint = CheckpointStore(tmp_path).load()
    assert set(checkpoint.stream_names) == {"replay", "empty"}
    with pytest.raises(CheckpointError, match=r"holds the streams \['empty', 'replay'\]; expected \['replay'\]"):
        checkpoint.fill({"replay": ring})
    other, empty = Ring(10), Ring(10)
    checkpoint.fill({"replay": other, "empty": empty})
    assert content(other) == content(ring)
    assert content(empty) == (0, 0, {})


def test_bad_requests_write_nothing(tmp_path: Path) -> None:
    store, ring = CheckpointStore(tmp_path), Ring(10)
    ring.add(3)
    with pytest.raises(ValueError, match="step=-1; expected an integer of at least 0"):
        store.save(-1, {}, header={})
    for name in ("../up", "a-b", "", "tensors"):
        with pytest.raises(ValueError, match="stream name"):
            store.save(0, {}, header={}, streams={name: ring})
    with pytest.raises(TypeError, match=r"pack: state\['model'\] is a torch.nn.modules.linear.Linear"):
        store.save(0, {"model": torch.nn.Linear(1, 1)}, header={})
    with pytest.raises(TypeError, match="header/weights is an array; expected a header without arrays"):
        store.save(0, {}, header={"weights": np.zeros(1)})
    with pytest.raises(ValueError, match="keep=0; expected an integer of at least 1"):
        CheckpointStore(tmp_path, keep=0)
    ring.read_rows = lambda start, stop: {"reward": torch.zeros(1)}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"gave 'reward' of shape \(1,\) for rows 0 to 3"):
        store.save(0, {}, header={}, streams={"replay": ring})
    assert names(tmp_path) == set()


def fixture_content() -> tuple[dict[str, Any], Ring]:
    """What the fixture of format 1 was made of: `save(5, state, header=..., streams={"replay": ring})` twice."""
    ring = Ring(20)
    ring.add(30)
    state = {
        "model": {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.tensor([1.5], dtype=torch.bfloat16)},
        "noise": {"state": 2**127 + 1, "words": np.arange(4, dtype=np.uint64)},
        "counters": [1, (2.5, None), float("inf"), -0.0, np.float32(0.1)],
        3: "text",
    }
    return state, ring


def test_the_fixture_of_format_1_loads() -> None:
    state, ring = fixture_content()
    checkpoint = CheckpointStore(FIXTURES / "checkpoint-v1").load()
    assert checkpoint.step == 5
    assert checkpoint.header == HEADER
    assert first_difference(checkpoint.state, state) is None
    assert content(restored(checkpoint, 20)) == content(ring)
