"""`palaestra speed`: time the suite against its peers, interleaved in one run, imports and evaluation excluded."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from palaestra.scripts.options import console
from palaestra.scripts.speed_report import COLUMNS, row_cells
from palaestra.scripts.timing import (
    IDLE_ENOUGH,
    OURS,
    Load,
    SpeedRow,
    Timing,
    append_row,
    missing,
    number_text,
    under_load,
)

SB3 = {"stable_baselines3": "pip install 'palaestra[sb3]'"}
SB3_CONTRIB = SB3 | {"sb3_contrib": SB3["stable_baselines3"]}
MUJOCO = {"mujoco": "pip install 'palaestra[mujoco]'"}
NUMPY_THREADS = "OPENBLAS_NUM_THREADS"
"""Read once, when NumPy is loaded."""


@dataclass(frozen=True)
class Part:
    """One thing that is timed.

    Attributes:
        name: Its name within the suite.
        about: What it is, in one line.
        function: Where the function stands that times it, "module:name" within `palaestra.scripts`; it takes the
            number of repeats and returns a `Timing`.
        targets: The ratio to reach by peer; under `OURS` the number that is to be reached, a rate at least, any other
            number at most.
        needs: Packages without which nothing can be compared, and how to install them.
    """

    name: str
    about: str
    function: str
    targets: Mapping[str, float] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)

    def run(self, repeats: int) -> Timing:
        """Time it.

        Raises:
            ValueError: If a target is of no side that is timed or would be if it were installed.
        """
        module, _, name = self.function.partition(":")
        time_it: Callable[[int], Timing] = getattr(import_module(f"palaestra.scripts.{module}"), name)
        timing = replace(time_it(repeats), name=self.name)
        for side in self.targets:
            if side not in timing.sides and side not in timing.skipped:
                raise ValueError(f"{self.name}: target of {side!r}; expected one of {', '.join(timing.sides)}")
        return timing


SUITES: dict[str, tuple[Part, ...]] = {
    "core": (
        Part("sac-update", "SAC's update on HalfCheetah's spaces", "speed_updates:sac", needs=SB3 | MUJOCO),
        Part("ppo-update", "PPO's minibatches on OneStoreBacklog", "speed_core:ppo_update", needs=SB3),
        Part("ppo-solve", "PPO's time to 1 % of OneStoreBacklog's optimum", "speed_core:ppo_solve", needs=SB3),
    ),
    "worlds": (
        Part(
            "half-cheetah",
            "HalfCheetah-v5, 64 rows",
            "speed_worlds:half_cheetah",
            {"SyncVectorEnv": 1.8, "AsyncVectorEnv": 3.5, "envpool": 1.0},
            MUJOCO,
        ),
        Part(
            "cart-pole",
            "CartPole-v1, 1,024 rows",
            "speed_worlds:cart_pole",
            {"SyncVectorEnv": 50.0, "CartPoleVectorEnv": 0.6},
        ),
        Part("pendulum", "Pendulum-v1, 1,024 rows", "speed_worlds:pendulum", {"SyncVectorEnv": 50.0}),
        Part(
            "door-key",
            "MiniGrid-DoorKey-8x8, 1,024 rows, against the single env",
            "speed_worlds:door_key",
            {"gym.make": 80.0, "envpool": 1.5},
        ),
        Part("single-cart-pole", "one CartPole", "speed_worlds:single_cart_pole", {OURS: 60_000.0}),
    ),
    "updates": (
        Part(
            "sac",
            "SAC's update, width and batch 256",
            "speed_updates:sac",
            {"stable_baselines3.SAC.train": 1.3, "matrix products": 0.65},
            SB3 | MUJOCO,
        ),
        Part(
            "td3",
            "TD3's update, width and batch 256",
            "speed_updates:td3",
            {"stable_baselines3.TD3.train": 1.3, "matrix products": 0.65},
            SB3 | MUJOCO,
        ),
        Part(
            "dqn",
            "DQN's update, width and batch 256",
            "speed_updates:dqn",
            {"stable_baselines3.DQN.train": 1.3, "matrix products": 0.65},
            SB3,
        ),
        Part(
            "ppo-autograd",
            "PPO's minibatches on OneStoreBacklog, by autograd",
            "speed_core:ppo_update_autograd",
            {"stable_baselines3.PPO.train": 1.5},
            SB3,
        ),
        Part(
            "ppo-by-hand",
            "the same with the gradient derived by hand",
            "speed_core:ppo_update",
            {"stable_baselines3.PPO.train": 3.0},
            SB3,
        ),
        Part(
            "many-seeds",
            "SAC's updates of 8 seeds together against those of one (on a GPU, half as fast at least)",
            "speed_seeds:sac",
            needs=MUJOCO,
        ),
    ),
    "solve": (
        Part("cart-pole", "CartPole-v1 to 475", "speed_solve:CART_POLE", {"stable_baselines3.PPO": 2.0}, SB3_CONTRIB),
        Part(
            "pendulum",
            "Pendulum-v1 to -200",
            "speed_solve:PENDULUM",
            {"stable_baselines3.PPO": 1.5, "stable_baselines3.SAC": 1.5},
            SB3,
        ),
        Part(
            "door-key",
            "MiniGrid-DoorKey-5x5 to .9",
            "speed_solve:DOOR_KEY",
            {"stable_baselines3.PPO": 10.0, "stable_baselines3.PPO, without normalisation": 10.0},
            SB3,
        ),
        Part(
            "acrobot",
            "Acrobot-v1 to -100",
            "speed_solve:ACROBOT",
            {"stable_baselines3.A2C": 3.0, "stable_baselines3.PPO": 3.0},
            SB3,
        ),
    ),
    "inventory": (
        Part(
            "store-training",
            "period-samples of HDPO on OneStoreLost, 8,192 paths",
            "speed_inventory:train_store",
            {"plain PyTorch": 2.0},
        ),
        Part(
            "serial-training",
            "period-samples of HDPO on Serial, 8,192 paths",
            "speed_inventory:train_serial",
            {"plain PyTorch": 2.0},
        ),
        Part(
            "store-steps",
            "OneStoreLost, 1,024 rows",
            "speed_inventory:step_store",
            {OURS: 4e6, "SyncVectorEnv": 50.0},
        ),
        Part(
            "store-memory", "peak memory of an update of 8,192 paths and 50 periods", "speed_inventory:memory_of_store"
        ),
    ),
    "memory": (
        Part(
            "replay", "replay of 1e6 HalfCheetah transitions", "speed_memory:replay", {"raw arrays": round(1 / 1.1, 3)}
        ),
        Part("checkpoint", "bytes a checkpoint of it writes for 10,000 new rows", "speed_memory:checkpoint"),
        Part("growth-off-policy", "growth of SAC over 1e6 steps", "speed_memory:growth_off_policy", {OURS: 1.0}),
        Part("growth-on-policy", "growth of PPO over 1e6 steps", "speed_memory:growth_on_policy", {OURS: 1.0}),
    ),
    "generative": (
        Part(
            "flow",
            "acting by 10 steps of a flow, 1,024 rows, width 256",
            "speed_generative:flow",
            {"Gaussian actor": round(1 / 12, 4)},
        ),
        Part("flow-single", "the same for one row", "speed_generative:flow_single"),
        Part("diffusion", "acting by 20 levels of a diffusion, 1,024 rows", "speed_generative:diffusion"),
        Part("diffusion-single", "the same for one row", "speed_generative:diffusion_single"),
        Part("qsm-update", "QSM's update against SAC's, width and batch 256", "speed_generative:qsm"),
        Part("dacer-update", "DACER's, with 20 levels", "speed_generative:dacer"),
        Part("dipo-update", "DIPO's, with 100 levels and 20 steps uphill", "speed_generative:dipo"),
        Part("qvpo-update", "QVPO's, with 64 own actions a state", "speed_generative:qvpo"),
    ),
}
"""All parts by suite."""


@dataclass(frozen=True)
class SpeedOptions:
    """Compare the suite's speed with its peers'.

    All sides take turns in the same process, first in one order, then in the other, so that a machine whose speed
    drifts drifts for all; the ratio of each turn is what counts. Run it on an otherwise idle machine: its idle share
    before and during each part is printed and stored, with a warning where it was not idle.
    """

    suite: Annotated[
        Literal["core", "worlds", "updates", "solve", "inventory", "memory", "generative"], tyro.conf.Positional
    ] = "core"
    """What to time: core, a few of all; worlds, steps of vector envs; updates, gradient steps of agents; solve,
    wall time of training to equal quality; inventory, training through supply worlds; memory, bytes of replay and
    checkpoints, and growth; generative, flows and diffusions against Gaussian policies."""
    only: str | None = None
    """Time one of its parts alone."""
    repeats: int = 5
    """Turns of each side, or seeds for solve; at least 3."""
    results: Path | None = None
    """Folder of results, to whose speed/ the rows are appended; by default they are only printed."""
    list: bool = False
    """List the suites and their parts, and time nothing."""


def main(arguments: list[str]) -> int:
    """Run the parts of a suite, print the ratios and append the rows."""
    options = tyro.cli(SpeedOptions, prog="palaestra speed", args=arguments)
    if options.list:
        list_parts()
        return 0
    try:
        parts = chosen_parts(options)
    except ValueError as error:
        print(f"palaestra speed: {error}", file=sys.stderr)
        return 2
    if NUMPY_THREADS not in os.environ:
        # torch is given its threads part by part; NumPy's products, which only ours uses, would take all cores.
        limited = {**os.environ, NUMPY_THREADS: "1"}
        return subprocess.call([sys.executable, "-m", "palaestra.cli", "speed", *arguments], env=limited)
    return time_parts(parts, options)


def time_parts(parts: Sequence[Part], options: SpeedOptions) -> int:
    """Time the parts, print the ratios and append the rows; return 1 if none of them could be timed."""
    table = Table(*COLUMNS, box=None)
    timed = 0
    for part in parts:
        absent = missing(part.needs)
        for package, install in absent.items():
            print(f"{part.name} is skipped: {package} is not installed ({install})", flush=True)
        if absent:
            continue
        timing, load = under_load(lambda part=part: part.run(options.repeats))  # type: ignore[misc]
        for side, install in timing.skipped.items():
            print(f"{part.name}, without {side}: it is not installed ({install})", flush=True)
        if not load.idle_enough:
            print(f"warning: {part.name}: {load_warning(load)}", file=sys.stderr, flush=True)
        row = SpeedRow.now(options.suite, timing, part.targets, load)
        if options.results is not None:
            append_row(options.results, row)
        for cells in row_cells(row):
            table.add_row(*cells)
        timed += 1
    if timed:
        console().print(table)
    return 0 if timed else 1


def chosen_parts(options: SpeedOptions) -> list[Part]:
    """Return the parts to time.

    Raises:
        ValueError: If there are too few repeats, or the suite has no part of the name; near ones are suggested.
    """
    if options.repeats < 3:
        raise ValueError(f"repeats={options.repeats}; expected at least 3")
    parts = {part.name: part for part in SUITES[options.suite]}
    if options.only is None:
        return [*parts.values()]
    if options.only not in parts:
        near = difflib.get_close_matches(options.only, parts, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(parts)}"
        raise ValueError(f"only={options.only!r} is no part of {options.suite}; {hint}")
    return [parts[options.only]]


def list_parts() -> None:
    """Print the suites and their parts, with what is to be reached."""
    table = Table("suite", "part", "what", "target", box=None)
    for suite, parts in SUITES.items():
        for part in parts:
            table.add_row(suite, part.name, part.about, "; ".join(target_texts(part.targets)))
    console().print(table)


def target_texts(targets: Mapping[str, float]) -> list[str]:
    """Return what is to be reached, one text a target."""
    return [
        number_text(target) if side == OURS else f"{number_text(target)} × {side}" for side, target in targets.items()
    ]


def load_warning(load: Load) -> str:
    """Return what stood in the way of a fair timing."""
    before = "?" if load.idle_before is None else f"{load.idle_before:.0%}"
    others = "?" if load.others_during is None else f"{load.others_during:.0%}"
    return (
        f"the machine was {before} idle before, and other processes took {others} of it meanwhile; the ratios mean "
        f"little unless it is at least {IDLE_ENOUGH:.0%} idle"
    )
