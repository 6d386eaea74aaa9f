"""What every test stands on: one thread, and no display."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from palaestra.agents.evaluation.rows import Row

# Set before anything imports NumPy, torch, pygame or matplotlib, which read these once; child processes inherit them.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.update(SDL_VIDEODRIVER="dummy", SDL_AUDIODRIVER="dummy", PYGAME_HIDE_SUPPORT_PROMPT="1", MPLBACKEND="Agg")
os.environ.pop("MUJOCO_GL", None)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Give every test one torch thread, whatever the test before it chose: results are bitwise for a fixed count."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture
def make_result_row() -> Callable[..., Row]:
    """Return a factory of result rows: two episodes around `value`, everything else by keyword."""
    from palaestra.agents.evaluation.provenance import config_hash
    from palaestra.agents.evaluation.rows import Row
    from palaestra.agents.evaluation.statistics import mean_interval

    def make(value: float = 0.0, *, spread: float = 1.0, **fields: Any) -> Row:
        returns = (value - spread, value + spread)
        agent_id, agent_config = fields.get("agent_id", "sac"), fields.get("agent_config", {"gamma": 0.99})
        defaults: dict[str, Any] = {
            "kind": "final",
            "claim": None,
            "claim_hash": None,
            "env_id": "Pendulum-v1",
            "env_kwargs": {},
            "env_packages": {"gymnasium": "1.4.0"},
            "backend": "gymnasium",
            "agent_id": agent_id,
            "agent_config": agent_config,
            "config_hash": config_hash(agent_id, agent_config),
            "seed": 0,
            "budget": 1000,
            "env_steps": 1000,
            "updates": 900,
            "wall_seconds": 12.5,
            "eval_seed": fields.get("seed", 0),
            "deterministic": True,
            "returns": returns,
            "lengths": (200, 200),
            "success": None,
            "estimand": "episode_return",
            "value": mean_interval(returns),
            "oracle_value": None,
            "expert_value": None,
            "gap": None,
            "exact_value": None,
            "exact_gap": None,
            "versions": {"python": "3.11.0"},
            "revision": "0123456789abcdef",
            "modified": False,
            "hardware": {"cpu": "a CPU", "cores": 2},
            "threads": 1,
            "idle_cpu": 0.25,
            "command": "palaestra benchmark sac-pendulum",
            "arm": agent_id,
            "timestamp": "2025-01-01T00:00:00+00:00",
        }
        return Row(**{**defaults, **fields})

    return make
