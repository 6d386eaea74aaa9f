"""Where a number came from: package versions, git revision, hardware, idle CPU share and the command that made it."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import palaestra
from palaestra.wrappers.vectorize import find_spec

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "gymnasium",
    "mujoco",
    "minigrid",
    "envpool",
    "stable-baselines3",
    "sb3-contrib",
    "array-api-compat",
)


def plain(value: Any) -> Any:
    """Return a configuration as JSON can hold it: dataclasses as dicts, functions and classes by name.

    Infinite and undefined floats become strings, because JSON has none.

    Raises:
        TypeError: If a part has no such form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        parts = [plain(part) for part in value]
        return sorted(parts, key=repr) if isinstance(value, set | frozenset) else parts
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    raise TypeError(f"plain: {value!r} has no JSON form; expected numbers, strings, containers, functions or classes")


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_hash(agent_id: str, config: Any) -> str:
    """Return the digest of an agent id and its configuration (a dataclass or a mapping)."""
    return digest({"agent": agent_id, "config": config})


def package_versions() -> dict[str, str]:
    """Return the versions of Python, the suite and the packages results depend on, as far as they are installed."""
    versions = {"python": platform.python_version(), "palaestra": palaestra.__version__}
    installed = {name: version for name in PACKAGES if (version := _version(name)) is not None}
    return {**versions, **installed}


def env_packages(env_id: str) -> dict[str, str]:
    """Return the versions of the packages that a foreign env's dynamics come from; {} for a world of the suite.

    The dynamics of a world of the suite are fixed by the version in its id, those of a foreign env by its package.
    """
    spec = find_spec(env_id)
    place = spec.kwargs.get("simulator", spec.entry_point)
    module = place.partition(":")[0] if isinstance(place, str) else getattr(place, "__module__", "")
    if module.startswith("palaestra."):
        return {}
    names = {module.partition(".")[0]} | ({"mujoco"} if ".mujoco" in module else set())
    return {name: version for name in sorted(names) if (version := _version(name)) is not None}


def repository() -> Path | None:
    """Return the root of the git checkout that holds the running code, or None for an installed package."""
    package = Path(palaestra.__file__).resolve().parent
    top = _git(package, "rev-parse", "--show-toplevel")
    # An environment may lie inside some other project's checkout, whose revision says nothing about this code.
    return Path(top) if top is not None and Path(top).resolve() == package.parent else None


@cache
def git_state() -> tuple[str | None, bool]:
    """Return the revision of the running code, and whether its files differed from it (results aside).

    It is read once in a process, at the first call: later commits do not change the code that was loaded.
    """
    root = repository()
    revision = _git(root, "rev-parse", "HEAD") if root is not None else None
    if root is None or revision is None:
        return None, False
    return revision, bool(_git(root, "status", "--porcelain", "--", ".", ":!results"))


def committed_revision(path: Path) -> str | None:
    """Return the last commit that touched a file, or None where the file differs from it or was never committed."""
    folder = path.resolve().parent
    revision = _git(folder, "log", "-1", "--format=%H", "--", path.name)
    if not revision or _git(folder, "status", "--porcelain", "--", path.name):
        return None
    return revision


def hardware() -> dict[str, Any]:
    """Return the CPU's model, the number of cores this process may use, and the GPU's name where torch sees one."""
    described: dict[str, Any] = {"cpu": _cpu_model(), "cores": _cores(), "machine": platform.machine()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def threads() -> int:
    """Return the number of threads torch computes with, or 1 where torch is not loaded."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else 1


def command_line(arguments: Sequence[str] | None = None) -> str:
    """Return a command without the machine's folders in it.

    Args:
        arguments: Program and arguments; by default those of this process. The program keeps its name alone, an
            absolute path among the arguments its last part.
    """
    program, *rest = sys.argv if arguments is None else arguments
    words = [Path(program).name, *(Path(word).name if word.startswith(("/", "~")) else word for word in rest)]
    return shlex.join(words)


class CpuMeter:
    """Measures what share of the machine's CPU time was idle, or went to others, since the meter was made."""

    def __init__(self) -> None:
        """Read the counters."""
        self._start = _cpu_times()
        self._own = sum(os.times()[:4])

    def idle_share(self) -> float | None:
        """Return the idle share in [0, 1] of all cores, or None where the system does not tell."""
        now = _cpu_times()
        if self._start is None or now is None or now[1] == self._start[1]:
            return None
        return round((now[0] - self._start[0]) / (now[1] - self._start[1]), 4)

    def others_share(self) -> float | None:
        """Return the share in [0, 1] of all cores' time that other processes took, or None as above.

        Processes that this one started count as its own once they have ended.
        """
        now = _cpu_times()
        if self._start is None or now is None or now[1] == self._start[1]:
            return None
        total = now[1] - self._start[1]
        busy = total - (now[0] - self._start[0])
        own = (sum(os.times()[:4]) - self._own) * os.sysconf("SC_CLK_TCK")
        return round(min(max((busy - own) / total, 0.0), 1.0), 4)


def _cpu_times() -> tuple[int, int] | None:
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return None
    # user nice system idle iowait irq softirq steal; the guest columns behind them are contained in the first two.
    ticks = [int(word) for word in line.split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
