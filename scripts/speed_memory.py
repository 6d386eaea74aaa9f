"""The parts of `palaestra speed memory`: bytes of a replay, bytes that a checkpoint of it writes, and growth.

A replay's raw size is that of its transitions as the networks see them, every array counted once: observation, action,
reward and next observation in float32, terminated and truncated in one byte each; 166 bytes for HalfCheetah. Memory is
the resident set of a process that does nothing else, before and after.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from palaestra.agents.memory.replay import ReplayBuffer
from palaestra.agents.registry import make_agent
from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.scripts.timing import OURS, Timing

OBSERVATION_DIM, ACTION_DIM = 17, 6
"""HalfCheetah's."""
RAW = "raw arrays"
PEER = "stable_baselines3.ReplayBuffer"
ROWS = 1_000_000
BLOCK = 10_000
MEGABYTE = 1e6
GROWING_WORLD = "palaestra/MultiGoal2D-v0"

Result = TypeVar("Result")


def replay(repeats: int, rows: int = ROWS) -> Timing:
    """Measure the memory of a full replay of HalfCheetah transitions against its raw size."""
    ours = [alone(replay_bytes, rows) / MEGABYTE for _ in range(repeats)]
    sides = {OURS: ours, RAW: [rows * raw_bytes_per_row() / MEGABYTE] * repeats}
    skipped = {}
    if find_spec("stable_baselines3") is None:
        skipped[PEER] = "pip install 'palaestra[sb3]'"
    else:
        sides[PEER] = [alone(peer_bytes, rows) / MEGABYTE for _ in range(repeats)]
    details = {"rows": rows, "raw_bytes_per_row": raw_bytes_per_row()}
    return Timing("replay", "MB", sides, 1, details, skipped=skipped)


def checkpoint(repeats: int, rows: int = ROWS, new_rows: int = BLOCK) -> Timing:
    """Measure what a checkpoint of a full replay writes when so many rows are new since the last one.

    Rows lie in immutable segments of about 8 MiB; those that fill none yet are written anew each time.
    """
    sides: dict[str, list[float]] = {OURS: [], "new rows": [], "all rows": []}
    for _ in range(repeats):
        first, second = alone(checkpoint_bytes, rows, new_rows)
        sides[OURS].append(second / MEGABYTE)
        sides["new rows"].append(new_rows * raw_bytes_per_row() / MEGABYTE)
        sides["all rows"].append(first / MEGABYTE)
    return Timing("checkpoint", "MB", sides, 1, {"rows": rows, "new_rows": new_rows})


def growth_off_policy(repeats: int, steps: int = ROWS) -> Timing:
    """Measure how much the memory of SAC grows over so many steps, after its replay is full."""
    return _growth("growth-off-policy", "sac", repeats, steps)


def growth_on_policy(repeats: int, steps: int = ROWS) -> Timing:
    """Measure how much the memory of PPO grows over so many steps, after its first rollouts."""
    return _growth("growth-on-policy", "ppo", repeats, steps)


def _growth(name: str, agent_id: str, repeats: int, steps: int) -> Timing:
    grown = [alone(growth_bytes, agent_id, steps) / MEGABYTE for _ in range(repeats)]
    return Timing(name, "MB", {OURS: grown}, 1, {"env": GROWING_WORLD, "agent": agent_id, "steps": steps})


def raw_bytes_per_row() -> int:
    """Return the bytes of one transition, every array counted once."""
    return sum(value[0].nbytes for value in transitions(np.random.default_rng(0), 1).values())


def transitions(generator: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Return random transitions of HalfCheetah's shapes, `count` rows of every field."""
    return {
        "observation": generator.standard_normal((count, OBSERVATION_DIM), np.float32),
        "action": generator.uniform(-1.0, 1.0, (count, ACTION_DIM)).astype(np.float32),
        "reward": generator.standard_normal(count, np.float32),
        "next_observation": generator.standard_normal((count, OBSERVATION_DIM), np.float32),
        "terminated": np.zeros(count, bool),
        "truncated": generator.random(count) < 1e-3,
    }


def replay_bytes(rows: int) -> int:
    """Return how much this process grows by filling a replay of that capacity once and half over again."""
    # Kept to the end: memory that it gave back would be taken again unnoticed.
    warm_up = ReplayBuffer(BLOCK, torch.device("cpu"))
    _fill(warm_up, BLOCK)
    before = resident_bytes()
    buffer = ReplayBuffer(rows, torch.device("cpu"))
    _fill(buffer, rows + rows // 2)
    grown = resident_bytes() - before
    del warm_up
    return grown


def peer_bytes(rows: int) -> int:
    """Return how much this process grows by filling stable-baselines3's replay of that capacity once."""
    import gymnasium as gym
    from stable_baselines3.common.buffers import ReplayBuffer as PeerBuffer

    observation = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float64)
    action = gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)

    def fill(buffer: PeerBuffer, count: int) -> None:
        for block in _blocks(count):
            for row in range(len(block["reward"])):
                one = {name: values[row] for name, values in block.items()}
                buffer.add(
                    one["observation"], one["next_observation"], one["action"], one["reward"], one["terminated"], [{}]
                )

    fill(PeerBuffer(BLOCK, observation, action), BLOCK)
    before = resident_bytes()
    buffer = PeerBuffer(rows, observation, action)
    fill(buffer, rows)
    return resident_bytes() - before


def checkpoint_bytes(rows: int, new_rows: int, folder: str | None = None) -> tuple[int, int]:
    """Return the bytes that two checkpoints of a full replay write, the second after so many more rows.

    Counted on the disk: the sizes of the files that were not there before, by inode.

    Args:
        rows: Capacity of the replay.
        new_rows: Rows added between the two.
        folder: Where to write them; a temporary folder by default.
    """
    buffer = ReplayBuffer(rows, torch.device("cpu"))
    _fill(buffer, rows)
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        store = CheckpointStore(directory)
        store.save(1, {}, header={}, streams={"replay": buffer})
        first = _files(Path(directory))
        _fill(buffer, new_rows)
        store.save(2, {}, header={}, streams={"replay": buffer})
        second = _files(Path(directory))
    return sum(first.values()), sum(size for inode, size in second.items() if inode not in first)


def growth_bytes(agent_id: str, steps: int, warm_up: int | None = None) -> int:
    """Return how much this process grows while an agent trains for so many steps after a warm-up.

    It acts and stores in every step and updates now and then. The warm-up fills the replay and the windows of
    statistics, and lets the allocator settle.

    Args:
        agent_id: "sac" or "ppo".
        steps: Env steps to measure over.
        warm_up: Env steps before; a tenth as many by default.
    """
    torch.set_num_threads(1)
    warm_up = steps // 10 if warm_up is None else warm_up
    agent = make_growing_agent(agent_id, replay=warm_up // 2)
    agent.learn(warm_up)
    gc.collect()
    before = resident_bytes()
    agent.learn(steps, reset_num_timesteps=False)
    gc.collect()
    return resident_bytes() - before


def make_growing_agent(agent_id: str, replay: int) -> Any:
    """Return a small agent of the kind whose growth is measured, on eight rows of an own world."""
    common: dict[str, Any] = {"hidden": (32, 32), "num_envs": 8, "batch_size": 64}
    special: dict[str, dict[str, Any]] = {
        "sac": {"buffer_size": replay, "learning_starts": 800, "train_freq": 800},
        "ppo": {"n_steps": 128, "n_epochs": 1},
    }
    return make_agent(agent_id, GROWING_WORLD, preset_name=None, device="cpu", **common, **special[agent_id])


def resident_bytes() -> int:
    """Return the bytes of this process that lie in memory.

    Raises:
        OSError: On systems without /proc.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
    """Return the most bytes of this program that ever lay in memory at once.

    Not `ru_maxrss`: a new process begins with that of the one which started it.

    Raises:
        OSError: On systems without /proc.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def alone(measure: Callable[..., Result], *arguments: Any) -> Result:
    """Return what a function of a module measures in a new process that does nothing else.

    Args:
        measure: The function, of this module or of another of the scripts; its arguments and its result are plain
        values. arguments: Its arguments.

    Raises:
        RuntimeError: If it fails; the message ends with its traceback.
    """
    call = f"{measure.__name__}(*{arguments!r})"
    program = f"import json; from {measure.__module__} import *; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{call} failed with status {done.returncode}\n{done.stderr}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def _fill(buffer: ReplayBuffer, count: int) -> None:
    for block in _blocks(count):
        buffer.add(block)


def _blocks(count: int) -> Iterator[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        yield transitions(generator, min(BLOCK, count - start))


def _files(directory: Path) -> dict[int, int]:
    stats = [path.stat() for path in directory.rglob("*") if path.is_file()]
    return {stat.st_ino: stat.st_size for stat in stats}
