"""Replay on disk: rows in immutable segments, so that a checkpoint writes only what is new since the last one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch

from palaestra.agents.training.files import (
    TEMPORARY,
    CheckpointError,
    FileRecord,
    read_tensors,
    verify_file,
    write_file,
)

SEGMENT_BYTES = 8 * 2**20
"""Rows go into segments of about this size: the unfinished one is written anew with every checkpoint."""


class RowStream(Protocol):
    """Rows that are numbered from 0 in the order they were written and never change: a replay buffer.

    A number is never given twice: a buffer that is emptied goes on counting. What does change (priorities, sums, the
    sampler's generator) belongs in the state of a checkpoint, not in its streams.
    """

    @property
    def rows_written(self) -> int:
        """Number of rows ever written; the next row gets this number."""
        ...

    @property
    def rows_kept_from(self) -> int:
        """Number of the oldest row that is still held; rows `[rows_kept_from, rows_written)` can be read."""
        ...

    def read_rows(self, start: int, stop: int) -> Mapping[str, torch.Tensor]:
        """Return rows `[start, stop)` as named tensors `[stop - start, ...]`."""
        ...

    def begin_load(self, rows_written: int, rows_kept_from: int) -> None:
        """Forget all rows and take over these numbers; `write_rows` follows for every row that is kept."""
        ...

    def write_rows(self, start: int, rows: Mapping[str, torch.Tensor]) -> None:
        """Put rows `start, start + 1, ...` back where they were."""
        ...


@dataclass(frozen=True)
class Segment:
    """The file of rows `[start, stop)`."""

    start: int
    stop: int
    file: FileRecord


@dataclass(frozen=True)
class StreamRecord:
    """Where the rows of a stream lie: whole segments in the common folder, the tail with the checkpoint."""

    rows_written: int
    rows_kept_from: int
    segment_rows: int
    segments: tuple[Segment, ...]
    tail: Segment | None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StreamRecord:
        """Return the record that `dataclasses.asdict` wrote."""

        def segment(item: Mapping[str, Any]) -> Segment:
            return Segment(int(item["start"]), int(item["stop"]), FileRecord.from_json(item["file"]))

        return cls(
            rows_written=int(record["rows_written"]),
            rows_kept_from=int(record["rows_kept_from"]),
            segment_rows=int(record["segment_rows"]),
            segments=tuple(segment(item) for item in record["segments"]),
            tail=None if record["tail"] is None else segment(record["tail"]),
        )

    def verify(self, segments_folder: Path, tail_folder: Path) -> None:
        """Raise CheckpointError if a file is missing or changed, or the files do not hold every row that is kept."""
        held = self.rows_kept_from
        for segment in (*self.segments, *([self.tail] if self.tail else [])):
            path = verify_file(tail_folder if segment is self.tail else segments_folder, segment.file)
            if not segment.start <= held <= segment.stop:
                raise CheckpointError(
                    f"{path} holds rows {segment.start} to {segment.stop}; expected row {held} among them"
                )
            held = segment.stop
        if held != self.rows_written:
            raise CheckpointError(f"{tail_folder} holds rows up to {held}; expected {self.rows_written}")

    def read(self, segments_folder: Path, tail_folder: Path) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """Yield `(start, rows)` for all rows that are kept, in order."""
        for segment in (*self.segments, *([self.tail] if self.tail else [])):
            folder = tail_folder if segment is self.tail else segments_folder
            start = max(segment.start, self.rows_kept_from)
            rows = read_tensors(folder / segment.file.name)
            yield start, {name: values[start - segment.start :] for name, values in rows.items()}


@dataclass
class SegmentWriter:
    """Writes the streams of one checkpoint.

    Attributes:
        segments_folder: Where whole segments of all checkpoints lie.
        tail_folder: The folder of this checkpoint, for rows that fill no segment yet.
        created: Segments that did not exist before, to be removed if the checkpoint fails.
        bytes_written: Size of everything written.
    """

    segments_folder: Path
    tail_folder: Path
    created: list[Path] = dataclasses.field(default_factory=list)
    bytes_written: int = 0

    def write(self, name: str, stream: RowStream, known: StreamRecord | None) -> StreamRecord:
        """Write the rows of a stream that `known`, its record in the checkpoint before, does not hold yet."""
        written, kept_from = stream.rows_written, stream.rows_kept_from
        if not 0 <= kept_from <= written:
            raise ValueError(
                f"save: stream {name!r} keeps rows from {kept_from} of {written} written; expected 0 to {written}"
            )
        if known is not None and (known.rows_written > written or not known.segment_rows):
            known = None
        if kept_from == written:
            return StreamRecord(written, kept_from, known.segment_rows if known else 0, (), None)
        size = known.segment_rows if known else _rows_per_segment(stream.read_rows(kept_from, kept_from + 1))
        segments: list[Segment] = []
        for stop in range((kept_from // size + 1) * size, written + 1, size):
            start = max(stop - size, kept_from)
            held = [s for s in (known.segments if known else ()) if s.stop == stop and s.start <= start]
            segments.append(held[0] if held else self._write_segment(name, stream, start, stop))
        start = max(written // size * size, kept_from)
        tail = None
        if start < written:
            file = write_file(self.tail_folder / f"{name}.safetensors", _rows_as_bytes(name, stream, start, written))
            tail = Segment(start, written, file)
            self.bytes_written += file.size
        return StreamRecord(written, kept_from, size, tuple(segments), tail)

    def _write_segment(self, name: str, stream: RowStream, start: int, stop: int) -> Segment:
        temporary = self.segments_folder / f"{TEMPORARY}{name}"
        try:
            file = write_file(temporary, _rows_as_bytes(name, stream, start, stop))
            # The hash in the name keeps two histories apart: a run that goes on from an older checkpoint may write
            # other rows under the same numbers, while a newer checkpoint still needs the first ones.
            path = temporary.with_name(f"{name}-{start:012d}-{stop:012d}-{file.sha256[:16]}.safetensors")
            existed = path.exists()
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if not existed:
            self.created.append(path)
        self.bytes_written += file.size
        return Segment(start, stop, dataclasses.replace(file, name=path.name))


def _rows_as_bytes(name: str, stream: RowStream, start: int, stop: int) -> bytes:
    rows = {}
    for field, values in stream.read_rows(start, stop).items():
        if values.shape[:1] != (stop - start,):
            raise ValueError(
                f"save: stream {name!r} gave {field!r} of shape {tuple(values.shape)} for rows {start} to {stop}; "
                f"expected a leading axis of {stop - start}"
            )
        rows[field] = values.detach().to("cpu", copy=True).contiguous()
    return safetensors.torch.save(rows)


def _rows_per_segment(row: Mapping[str, torch.Tensor]) -> int:
    row_bytes = max(1, sum(values.numel() * values.element_size() for values in row.values()))
    return min(2**16, 1 << max(0, (SEGMENT_BYTES // row_bytes).bit_length() - 1))
