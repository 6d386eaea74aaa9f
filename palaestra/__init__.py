"""Palaestra: Gymnasium environments and the agents that train in them.

Importing the package registers its environments (`gym.make("palaestra/OneStoreBacklog-v0")`) and imports nothing heavy:
names that need torch are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from palaestra.envs.registration import register

if TYPE_CHECKING:
    from palaestra.agents.evaluation.evaluate import evaluate as evaluate
    from palaestra.agents.loading import load as load
    from palaestra.agents.registry import agent_ids as agent_ids
    from palaestra.agents.registry import make_agent as make_agent
    from palaestra.agents.registry import register_agent as register_agent
    from palaestra.wrappers.vectorize import make_vec as make_vec

__version__ = "0.1.0"

_LAZY = {
    "agent_ids": "palaestra.agents.registry",
    "evaluate": "palaestra.agents.evaluation.evaluate",
    "load": "palaestra.agents.loading",
    "make_agent": "palaestra.agents.registry",
    "make_vec": "palaestra.wrappers.vectorize",
    "register_agent": "palaestra.agents.registry",
}
__all__ = ["__version__", "register", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'palaestra' has no attribute {name!r}; expected one of {sorted(__all__)}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register()
