"""The log of a run: metrics as JSON lines, as CSV and as TensorBoard events, cut back when the run is resumed.

`metrics.jsonl` is the record: one object per call, `step` and `time` first, then the metrics by name. `progress.csv`
is the same table, made from it, and `tensorboard/` holds the same scalars. JSON has no not-a-number and no infinities:
they are written as the strings "nan", "inf" and "-inf", and `read_metrics` turns them back into floats.
"""

from __future__ import annotations

import csv
import io
import json
import math
import numbers
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
CSV_FILE = "progress.csv"
TENSORBOARD_FOLDER = "tensorboard"
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def is_time_column(name: str) -> bool:
    """Return whether a column measures the clock (`time`, `time/...`): the only ones that differ between equal runs."""
    return name == "time" or name.startswith("time/")


def read_metrics(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of a run's `metrics.jsonl`, oldest first; a last line that was torn off is left out.

    Raises:
        FileNotFoundError: If the folder holds no log.
        ValueError: If a whole line is not a JSON object; the message names the file and the line.
    """
    path = Path(directory) / METRICS_FILE
    return _parse_lines(path, path.read_bytes())


class RunLogger:
    """Appends to the log of one run; nothing is written or created before the first `log`.

    Every call of `log` is one write of whole lines, so that a killed process loses nothing but a line it was writing.

    Args:
        directory: The run's folder; a log that it holds already is continued.
        tensorboard: Whether to write TensorBoard events too.
    """

    def __init__(self, directory: str | os.PathLike[str], tensorboard: bool = True) -> None:
        self.directory = Path(directory)
        self.tensorboard = tensorboard
        self._lines: io.FileIO | None = None
        self._table: io.FileIO | None = None
        self._columns: list[str] = []
        self._last_step = -1
        self._writer: SummaryWriter | None = None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one row.

        Args:
            step: Environment steps taken so far.
            metrics: Numbers by name ("train/critic_loss"); whatever `float` accepts will do.

        Raises:
            ValueError: If a metric is called `step` or `time`.
            TypeError: If a metric is no number.
            OSError: If the disk is full or read-only; the row is then in no file.
        """
        row: dict[str, Any] = {"step": int(step), "time": time.time()}
        for name in sorted(metrics):
            if name in row:
                raise ValueError(f"log: metric {name!r} has a reserved name; expected any but 'step' and 'time'")
            row[name] = _number(name, metrics[name])
        if self._lines is None:
            self._open()
        self._append(row)
        if self.tensorboard:
            self._add_events(row)
        self._last_step = row["step"]

    def state_dict(self) -> dict[str, Any]:
        """Return how far the log goes, after waiting until that much is on the disk."""
        if self._lines is None:
            return {"bytes": self._existing_bytes(), "last_step": self._last_step}
        os.fsync(self._lines.fileno())
        if self._writer is not None:
            self._writer.flush()
        return {"bytes": self._lines.tell(), "last_step": self._last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the log back to where it was, so that the run goes on as if it had never been further.

        TensorBoard's files only grow: events after that point are marked as purged.

        A log that is shorter than it was is continued with a warning.
        """
        self.close()
        self._last_step = int(state["last_step"])
        path = self.directory / METRICS_FILE
        if not path.exists() and not state["bytes"]:
            return
        self._open(int(state["bytes"]))

    def close(self) -> None:
        """Close all files; a later `log` opens them again."""
        for file in (self._lines, self._table):
            if file is not None:
                file.close()
        if self._writer is not None:
            self._writer.close()
        self._lines = self._table = self._writer = None

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _existing_bytes(self) -> int:
        path = self.directory / METRICS_FILE
        return len(_whole_lines(path.read_bytes())) if path.exists() else 0

    def _open(self, keep_bytes: int | None = None) -> None:
        """Open both files for appending: the lines cut to whole ones (or to `keep_bytes`), the table made from them."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / METRICS_FILE
        held = path.read_bytes() if path.exists() else b""
        whole = _whole_lines(held[:keep_bytes])
        if keep_bytes is not None and len(whole) != keep_bytes:
            warnings.warn(
                f"{path} holds {len(whole)} bytes of whole lines; expected the {keep_bytes} it had at the checkpoint. "
                "The run goes on, with a gap in its log",
                stacklevel=3,
            )
        rows = _parse_lines(path, whole)
        lines = open(path, "ab", buffering=0)  # noqa: SIM115
        lines.truncate(len(whole))
        lines.seek(0, os.SEEK_END)
        self._lines = lines
        self._columns = ["step", "time"]
        for row in rows:
            self._columns += [name for name in row if name not in self._columns]
        self._write_table(rows)
        self._last_step = max(self._last_step, int(rows[-1]["step"]) if rows else -1)

    def _append(self, row: dict[str, Any]) -> None:
        assert self._lines is not None
        assert self._table is not None
        line = json.dumps({name: _as_json(value) for name, value in row.items()}, allow_nan=False) + "\n"
        before = self._lines.tell()
        try:
            _write_whole(self._lines, line.encode())
            new = [name for name in row if name not in self._columns]
            self._columns += new
            if new:
                self._write_table(read_metrics(self.directory))
            else:
                _write_whole(self._table, _csv_lines([_cells(row, self._columns)]))
        except OSError as error:
            # Half a line would swallow the next one. Closed, because opening makes the table anew from the lines.
            self._lines.truncate(before)
            self.close()
            raise OSError(error.errno, error.strerror, error.filename or str(self.directory / METRICS_FILE)) from error

    def _write_table(self, rows: list[dict[str, Any]]) -> None:
        path = self.directory / CSV_FILE
        temporary = path.with_name(f".tmp-{CSV_FILE}")
        temporary.write_bytes(_csv_lines([self._columns, *(_cells(row, self._columns) for row in rows)]))
        os.replace(temporary, path)
        if self._table is not None:
            self._table.close()
        self._table = open(path, "ab", buffering=0)  # noqa: SIM115

    def _add_events(self, row: Mapping[str, Any]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.directory / TENSORBOARD_FOLDER), purge_step=self._last_step + 1)
        for name, value in row.items():
            if name not in ("step", "time"):
                self._writer.add_scalar(name, value, row["step"])


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"log: metric {name!r} is {value!r} of type {type(value).__name__}; expected a number"
        ) from error


def _as_json(value: int | float) -> int | float | str:
    return value if math.isfinite(value) else repr(value)


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _parse_lines(path: Path, data: bytes) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_whole_lines(data).split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or "step" not in row:
            raise ValueError(f"{path}: line {number} is {line[:60]!r}; expected an object with a 'step'")
        rows.append(
            {name: _NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in row.items()}
        )
    return rows


def _cells(row: Mapping[str, Any], columns: list[str]) -> list[Any]:
    return [row.get(name, "") for name in columns]


def _csv_lines(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _write_whole(file: io.FileIO, data: bytes) -> None:
    written = file.write(data)
    while written < len(data):
        written += file.write(data[written:])
