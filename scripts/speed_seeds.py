"""The part of `palaestra speed` about many seeds at once: what updating several together costs, against one alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from palaestra.agents.registry import make_agent
from palaestra.agents.training.acceleration import Updates, accelerate
from palaestra.agents.training.replayed_seeds import ReplayedSeeds
from palaestra.scripts.speed_memory import transitions
from palaestra.scripts.timing import OURS, TURN_SECONDS, Timing, interleaved

ONE = "one seed"


def sac(
    repeats: int,
    seeds: int = 8,
    updates: int = 32,
    width: int = 256,
    batch: int = 256,
    turn_seconds: float = TURN_SECONDS,
) -> Timing:
    """Time rounds of SAC's updates of several seeds together, on HalfCheetah's spaces, against those of one seed.

    A rate of half that of one seed means that all of them together cost twice as much. On a GPU where there is one;
    on a CPU, where arithmetic is the limit, they cost what they would one after the other.
    """

    def filled(seed: int) -> Any:
        settings: dict[str, Any] = {"hidden": (width, width), "batch_size": batch, "buffer_size": 10_000}
        agent: Any = make_agent("sac", "HalfCheetah-v5", seed=seed, preset_name=None, **settings)
        agent.replay.add(
            {name: torch.as_tensor(value) for name, value in transitions(np.random.default_rng(seed), 10_000).items()}
        )
        return agent

    alone = filled(seeds)
    together: Any = ReplayedSeeds([filled(seed) for seed in range(seeds)])
    together_updates = Updates(together, accelerate(together.agents[0]).capture)

    def work(agent: Any, maker: Updates) -> float:
        agent.updates_owed = updates
        maker.make()
        if agent.device.type == "cuda":
            torch.cuda.synchronize()
        return updates

    sides = {OURS: lambda: work(together, together_updates), ONE: lambda: work(alone, alone.updates)}
    details = {"seeds": seeds, "width": width, "batch": batch, "device": str(alone.device)}
    threads = torch.get_num_threads()
    return interleaved("many-seeds", "updates/s", sides, repeats, threads, details, turn_seconds=turn_seconds)
