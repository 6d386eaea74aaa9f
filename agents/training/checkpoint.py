"""Checkpoints of a run: written atomically, verified when read, loaded without running any code.

    <directory>/step-000000010000/manifest.json         header, state and the record of every file, as JSON
    <directory>/step-000000010000/tensors.safetensors   the tensors of the state
    <directory>/step-000000010000/<stream>.safetensors  the last rows of a stream, which fill no segment yet
    <directory>/segments/<stream>-<start>-<stop>-<sha>.safetensors   rows shared by all checkpoints, never changed

A folder holds one history: checkpoints of higher steps than the one just saved belong to a future that was abandoned,
and go when the next one is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from palaestra.agents.training.files import (
    TEMPORARY,
    CheckpointError,
    FileRecord,
    read_tensors,
    refuse_pickle,
    sync_folder,
    verify_file,
    write_file,
)
from palaestra.agents.training.segments import RowStream, SegmentWriter, StreamRecord
from palaestra.agents.training.tree import Tree, pack, unpack

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointError",
    "CheckpointStore",
    "RowStream",
    "SavedCheckpoint",
    "pack",
    "unpack",
]

FORMAT_VERSION = 1
_FORMAT = "palaestra-checkpoint"
_REPLACED = ".replaced"
_MANIFEST = "manifest.json"
_MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
_STEP_FOLDER = re.compile(rf"step-(\d{{12,}})(?:{re.escape(_REPLACED)})?")
_STREAM_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class SavedCheckpoint:
    """What `CheckpointStore.save` wrote: the folder, the bytes of all files, and the segments new and gone."""

    path: Path
    bytes_written: int
    segments_written: int
    segments_deleted: int


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        step: Environment steps at which it was saved.
        header: What the caller wrote about it, the agent's id among it.
        state: The tree that was saved; tensors lie on the CPU.
        path: Its folder.
        store: Where it comes from; a run that goes on from it saves there, so that only newer rows are written.
    """

    step: int
    header: dict[str, Any]
    state: Tree
    path: Path
    store: CheckpointStore
    _streams: Mapping[str, StreamRecord]

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Names of the streams that were saved."""
        return tuple(self._streams)

    def fill(self, streams: Mapping[str, RowStream]) -> None:
        """Read the rows back into streams of the same names; `store` then writes only newer rows.

        Raises:
            CheckpointError: If the names differ from those saved, or a file has become unreadable.
        """
        if set(streams) != set(self._streams):
            raise CheckpointError(
                f"{self.path} holds the streams {sorted(self._streams)}; expected {sorted(streams)} as the agent has"
            )
        for name, stream in streams.items():
            record = self._streams[name]
            stream.begin_load(record.rows_written, record.rows_kept_from)
            for start, rows in record.read(self.store.segments_folder, self.path):
                stream.write_rows(start, rows)
        self.store.known_streams = dict(self._streams)


class CheckpointStore:
    """The checkpoints in one folder; one process writes to it at a time.

    Args:
        directory: Created by the first `save`; reading changes nothing in it.
        keep: How many checkpoints stay, at least 1. With 1, a save replaces whatever the folder held.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"CheckpointStore: keep={keep}; expected an integer of at least 1")
        self.directory = Path(directory)
        self.keep = keep
        self.known_streams: dict[str, StreamRecord] = {}
        """Streams as the checkpoint that this process saved or filled last holds them; only these are trusted."""
        self._continues = False

    @property
    def segments_folder(self) -> Path:
        """Where the segments of all checkpoints lie."""
        return self.directory / "segments"

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, valid or not, in ascending order."""
        if not self.directory.is_dir():
            return []
        matches = (_STEP_FOLDER.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted({int(match[1]) for match in matches if match})

    def save(
        self,
        step: int,
        state: Tree,
        *,
        header: Mapping[str, Any],
        streams: Mapping[str, RowStream] | None = None,
    ) -> SavedCheckpoint:
        """Write a checkpoint, then delete those that are no longer kept.

        It becomes visible at once and complete, or not at all. Saving a step again replaces it.

        Args:
            step: Environment steps taken so far, at least 0.
            state: A tree as `palaestra.agents.training.tree.pack` takes it.
            header: What identifies the checkpoint: a tree without arrays.
            streams: Replay by name (letters, digits and underscores).

        Raises:
            CheckpointError: If it cannot be written (disk full, read-only), or the folder holds later checkpoints of a
                run that was neither saved nor loaded by this store. Older checkpoints are untouched.
            TypeError: If `state` or `header` holds something that no checkpoint can hold.
        """
        streams = streams or {}
        self._check_request(step, streams)
        packed_state, tensors = pack(state)
        packed_header, header_tensors = pack(dict(header), "header")
        if header_tensors:
            raise TypeError(f"save: {next(iter(header_tensors))} is an array; expected a header without arrays")
        temporary = self.directory / f"{TEMPORARY}{step:012d}"
        writer = SegmentWriter(self.segments_folder, temporary)
        committed = False
        try:
            self._prepare(temporary)
            records = {
                name: writer.write(name, stream, self.known_streams.get(name)) for name, stream in streams.items()
            }
            file = write_file(temporary / "tensors.safetensors", safetensors.torch.save(tensors))
            content = {
                "step": step,
                "header": packed_header,
                "state": packed_state,
                "tensors": dataclasses.asdict(file),
                "streams": {name: dataclasses.asdict(record) for name, record in records.items()},
            }
            manifest = write_file(temporary / _MANIFEST, _manifest_text(content))
            sync_folder(temporary)
            sync_folder(self.segments_folder)
            target = self._replace(step, temporary)
            committed = True
            sync_folder(self.directory)
        except BaseException as error:
            if not committed:
                shutil.rmtree(temporary, ignore_errors=True)
                for path in writer.created:
                    with contextlib.suppress(OSError):
                        path.unlink()
            if not isinstance(error, OSError):
                raise
            outcome = "is whole, but may not outlive a power failure" if committed else "was not written"
            raise CheckpointError(
                f"{error.filename or self.directory}: the checkpoint of step {step} {outcome}: "
                f"{error.strerror or error}; steps {self.steps()} remain"
            ) from error
        self.known_streams, self._continues = records, True
        return SavedCheckpoint(
            path=target,
            bytes_written=writer.bytes_written + file.size + manifest.size,
            segments_written=len(writer.created),
            segments_deleted=self._delete_unneeded(step),
        )

    def load(self, step: int | None = None, fall_back: bool = False) -> Checkpoint:
        """Return a checkpoint after verifying the size and SHA-256 of every file it needs.

        Args:
            step: Which one; None for the newest.
            fall_back: Whether to take the newest older one that is valid, with a warning, where this one is not.

        Raises:
            CheckpointError: If there is none or it is damaged, foreign, a pickle, or of a newer format; the message
                names the file, what is wrong with it, and the newest older step that is valid.
        """
        steps = self.steps()
        if not steps:
            raise CheckpointError(self._why_empty())
        if step is not None and step not in steps:
            raise CheckpointError(f"{self.directory} holds no checkpoint of step {step}; expected one of {steps}")
        step = steps[-1] if step is None else step
        try:
            checkpoint = self._read(step)
        except CheckpointError as error:
            older = self._newest_valid([s for s in steps if s < step])
            if older is None:
                raise CheckpointError(f"{error}; no older checkpoint in {self.directory} is valid") from error
            if not fall_back:
                raise CheckpointError(f"{error}; step {older.step} still loads: load(step={older.step})") from error
            warnings.warn(f"{error}; step {older.step} is loaded in its place", stacklevel=2)
            checkpoint = older
        self._continues = True
        return checkpoint

    def _check_request(self, step: int, streams: Mapping[str, RowStream]) -> None:
        if step < 0:
            raise ValueError(f"save: step={step}; expected an integer of at least 0")
        for name in streams:
            if not _STREAM_NAME.fullmatch(name) or name == "tensors":
                raise ValueError(f"save: stream name {name!r}; expected letters, digits and underscores, not 'tensors'")
        later = [s for s in self.steps() if s > step]
        if later and self.keep > 1 and not self._continues:
            raise CheckpointError(
                f"{self.directory} holds checkpoints of another run, up to step {later[-1]}, which step {step} would "
                "replace; load one of them to go on from it, or choose another directory"
            )

    def _prepare(self, temporary: Path) -> None:
        if not self.segments_folder.is_dir():
            self.segments_folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.directory)
            sync_folder(self.directory.parent)
        for stale in self.directory.glob(f"{TEMPORARY}*"):
            shutil.rmtree(stale)
        for stale in self.segments_folder.glob(f"{TEMPORARY}*"):
            stale.unlink()
        for replaced in self.directory.glob(f"step-*{_REPLACED}"):
            successor = replaced.with_suffix("")
            if successor.exists():
                shutil.rmtree(replaced)
            else:
                os.rename(replaced, successor)
        temporary.mkdir()

    def _folder(self, step: int) -> Path:
        folder = self.directory / f"step-{step:012d}"
        replaced = folder.with_name(folder.name + _REPLACED)
        # A process may have died between moving the old one away and moving its successor in.
        return replaced if replaced.exists() and not folder.exists() else folder

    def _replace(self, step: int, temporary: Path) -> Path:
        target = self.directory / f"step-{step:012d}"
        replaced = target.with_name(target.name + _REPLACED)
        if target.exists():
            os.rename(target, replaced)
        os.rename(temporary, target)
        shutil.rmtree(replaced, ignore_errors=True)
        return target

    def _delete_unneeded(self, step: int) -> int:
        kept = [s for s in self.steps() if s <= step][-self.keep :]
        try:
            for old in set(self.steps()) - set(kept):
                # Renamed first, so that a process that dies here leaves no half-deleted checkpoint to be found.
                doomed = self.directory / f"{TEMPORARY}delete-{old:012d}"
                os.rename(self._folder(old), doomed)
                shutil.rmtree(doomed)
            records = [record for s in kept for record in _read_manifest(self._folder(s))[1].values()]
            needed = {segment.file.name for record in records for segment in record.segments}
            doomed_segments = [path for path in self.segments_folder.glob("*.safetensors") if path.name not in needed]
            for path in doomed_segments:
                path.unlink()
        except (OSError, CheckpointError) as error:
            warnings.warn(f"step {step} was saved, but older files could not be deleted: {error}", stacklevel=3)
            return 0
        return len(doomed_segments)

    def _read(self, step: int) -> Checkpoint:
        folder = self._folder(step)
        try:
            for path in folder.iterdir():
                refuse_pickle(path)
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}") from error
        content, records = _read_manifest(folder)
        for record in records.values():
            record.verify(self.segments_folder, folder)
        try:
            tensors = read_tensors(verify_file(folder, FileRecord.from_json(content["tensors"])))
            header, state = unpack(content["header"], {}), unpack(content["state"], tensors)
            saved_step = content["step"]
        except _MISSHAPEN as error:
            raise CheckpointError(
                f"{folder / _MANIFEST} cannot be understood: {type(error).__name__}: {error}"
            ) from error
        if saved_step != step:
            raise CheckpointError(
                f"{folder / _MANIFEST} is of step {saved_step}; expected {step}, as its folder is named"
            )
        return Checkpoint(step, header, state, folder, self, records)

    def _newest_valid(self, steps: list[int]) -> Checkpoint | None:
        for step in reversed(steps):
            try:
                return self._read(step)
            except CheckpointError:
                continue
        return None

    def _why_empty(self) -> str:
        if self.directory.is_file():
            refuse_pickle(self.directory)
            return f"{self.directory} is a file; expected a folder of checkpoints"
        if not self.directory.is_dir():
            return f"{self.directory} does not exist; expected a folder of checkpoints"
        for path in self.directory.iterdir():
            if path.is_file():
                refuse_pickle(path)
        return f"{self.directory} holds no checkpoint; expected folders named step-<12 digits>"


def _manifest_text(content: Mapping[str, Any]) -> bytes:
    manifest = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "sha256": _content_sha256(content),
        "content": content,
    }
    return json.dumps(manifest, allow_nan=False, indent=1).encode()


def _content_sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, allow_nan=False, separators=(",", ":")).encode()).hexdigest()


def _read_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, StreamRecord]]:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is truncated or no JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a Palaestra checkpoint")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"{path} has format_version={version!r}; expected an integer of at least 1")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version={version}, written by a newer Palaestra; this one reads up to {FORMAT_VERSION}"
        )
    try:
        content = manifest["content"]
        if _content_sha256(content) != manifest["sha256"]:
            raise CheckpointError(f"{path} was changed: its content does not have the SHA-256 that it names")
        return content, {name: StreamRecord.from_json(record) for name, record in content["streams"].items()}
    except _MISSHAPEN as error:
        raise CheckpointError(f"{path} cannot be understood: {type(error).__name__}: {error}") from error
