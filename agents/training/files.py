"""Durable files: on the disk before anyone sees them, described by size and SHA-256, verified when read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

TEMPORARY = ".tmp-"
"""How names begin that are not part of a checkpoint yet, or no longer."""
_PICKLE_STARTS = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
"""First bytes of zip archives (`torch.save`, stable-baselines3, joblib) and of pickles of the binary protocols."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class FileRecord:
    """What a file must be: its name within its folder, its size in bytes and the SHA-256 of its content."""

    name: str
    size: int
    sha256: str

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FileRecord:
        """Return the record that `dataclasses.asdict` wrote; ValueError if its name would lead out of its folder."""
        name = record["name"]
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"name={name!r}; expected a plain file name")
        return cls(name, int(record["size"]), str(record["sha256"]))


def write_file(path: Path, data: bytes) -> FileRecord:
    """Write a new file, wait until it is on the disk, and return its record."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(path.name, len(data), hashlib.sha256(data).hexdigest())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify_file(folder: Path, record: FileRecord) -> Path:
    """Return the path of a file after comparing its size and content with its record.

    Raises:
        CheckpointError: If it is missing, truncated, changed, or a pickle in disguise.
    """
    path = folder / record.name
    try:
        refuse_pickle(path)
        size = path.stat().st_size
        if size != record.size:
            raise CheckpointError(f"{path} has {size} bytes; expected {record.size}")
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if digest != record.sha256:
        raise CheckpointError(f"{path} was changed: its SHA-256 is {digest[:16]}...; expected {record.sha256[:16]}...")
    return path


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        CheckpointError: If the file cannot be read as safetensors.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def refuse_pickle(path: Path) -> None:
    """Raise CheckpointError if a file begins as pickles and zip archives do: reading those can run code."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLE_STARTS):
        raise CheckpointError(
            f"{path} is a pickle or a zip archive (as torch.save and stable-baselines3 write them), which can run code "
            "when it is read; Palaestra loads no pickles, only its own checkpoints of JSON and safetensors"
        )
