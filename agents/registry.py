"""Agent ids, and how an agent is made from one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym
import yaml

from palaestra.agents.training.config import make_config

if TYPE_CHECKING:
    from palaestra.agents.agent import Agent, EnvLike

AgentClass = TypeVar("AgentClass", bound="type[Agent]")

_BUILT_IN = {
    "bac": "palaestra.agents.policy_gradient.bpg",
    "bpg": "palaestra.agents.policy_gradient.bpg",
    "bro": "palaestra.agents.actor_critic.bro",
    "crossq": "palaestra.agents.actor_critic.crossq",
    "dacer": "palaestra.agents.actor_critic.dacer",
    "ddpg": "palaestra.agents.actor_critic.ddpg",
    "dipo": "palaestra.agents.actor_critic.dipo",
    "dppo": "palaestra.agents.policy_gradient.dppo",
    "dqn": "palaestra.agents.value_based.dqn",
    "dsac": "palaestra.agents.actor_critic.dsac",
    "dsac-t": "palaestra.agents.actor_critic.dsac_t",
    "expo": "palaestra.agents.actor_critic.expo",
    "fast-td3": "palaestra.agents.actor_critic.fast_td3",
    "fpo": "palaestra.agents.policy_gradient.fpo",
    "gorl": "palaestra.agents.policy_gradient.gorl",
    "harpg": "palaestra.agents.policy_gradient.harpg",
    "hdpo": "palaestra.agents.pathwise.hdpo",
    "hnpg": "palaestra.agents.policy_gradient.hnpg",
    "mdpo": "palaestra.agents.policy_gradient.mdpo",
    "mdpo-off": "palaestra.agents.actor_critic.mdpo_off",
    "n-harpg": "palaestra.agents.policy_gradient.harpg",
    "n-pg-igt": "palaestra.agents.policy_gradient.harpg",
    "pa-rl": "palaestra.agents.actor_critic.pa_rl",
    "pdppo": "palaestra.agents.policy_gradient.pdppo",
    "prorl": "palaestra.agents.policy_gradient.prorl",
    "tscac": "palaestra.agents.constrained.tscac",
    "pmoe": "palaestra.agents.actor_critic.pmoe",
    "pmoe-ppo": "palaestra.agents.policy_gradient.pmoe_ppo",
    "policyflow": "palaestra.agents.policy_gradient.policyflow",
    "ppo": "palaestra.agents.policy_gradient.ppo",
    "props": "palaestra.agents.policy_gradient.props",
    "qr-dqn": "palaestra.agents.value_based.qr_dqn",
    "qsm": "palaestra.agents.actor_critic.qsm",
    "qvpo": "palaestra.agents.actor_critic.qvpo",
    "reinforce": "palaestra.agents.policy_gradient.reinforce",
    "sac": "palaestra.agents.actor_critic.sac",
    "simba-sac": "palaestra.agents.actor_critic.sac",
    "srl": "palaestra.agents.actor_critic.srl",
    "td3": "palaestra.agents.actor_critic.td3",
    "trpo": "palaestra.agents.policy_gradient.trpo",
    "ts-ddr": "palaestra.agents.pathwise.ts_ddr",
}
_AGENTS: dict[str, type[Agent]] = {}


def register_agent(agent_id: str) -> Callable[[AgentClass], AgentClass]:
    """Register the decorated agent class under an id.

    Raises:
        ValueError: If another class holds the id already.
    """

    def register(agent: AgentClass) -> AgentClass:
        known = _AGENTS.get(agent_id)
        if known is not None and (known.__module__, known.__qualname__) != (agent.__module__, agent.__qualname__):
            raise ValueError(
                f"register_agent: id {agent_id!r} belongs to {known.__module__}.{known.__qualname__}; "
                "expected a free id"
            )
        agent.agent_id = agent_id
        _AGENTS[agent_id] = agent
        return agent

    return register


def agent_ids() -> list[str]:
    """Return the ids of all known agents, sorted."""
    return sorted(_BUILT_IN.keys() | _AGENTS.keys())


def agent_class(agent_id: str) -> type[Agent]:
    """Return the class behind an id, or behind "package.module:Class" of an imported module.

    Raises:
        ValueError: If the id is unknown; near ones are suggested.
    """
    if agent_id in _BUILT_IN:
        importlib.import_module(_BUILT_IN[agent_id])
    if agent_id in _AGENTS:
        return _AGENTS[agent_id]
    near = difflib.get_close_matches(agent_id, agent_ids(), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(agent_ids())}"
    raise ValueError(
        f"unknown agent id {agent_id!r}; {hint} (an agent of your own: import the module that registers it first, "
        "or give --agent package.module:Class)"
    )


def import_agent(name: str) -> str:
    """Return the agent id for a name given by the user: an id, or "package.module:Class", which is imported.

    Raises:
        ValueError: If the module or class cannot be imported or is not an agent.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        return name
    from palaestra.agents.agent import Agent

    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"agent {name!r} cannot be imported ({error}); expected 'package.module:Class'") from error
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise ValueError(f"agent {name!r} is {found!r}; expected a subclass of palaestra.agents.agent.Agent")
    if "agent_id" not in vars(found):  # One that is inherited is another agent's.
        register_agent(name)(found)
    return found.agent_id


def agents_for(space: gym.Space[Any]) -> list[str]:
    """Return the ids of the agents whose action spaces include the given one."""
    return [agent_id for agent_id in agent_ids() if isinstance(space, agent_class(agent_id).action_spaces)]


def preset(agent_id: str, env_id: str | None) -> dict[str, Any]:
    """Return the tuned fields for an agent on an env id, empty where there are none."""
    resource = resources.files("palaestra.agents.presets") / f"{agent_id}.yaml"
    if env_id is None or not resource.is_file():
        return {}
    table = yaml.safe_load(resource.read_text()) or {}
    return dict(table.get(env_id.partition(":")[2] or env_id, {}))


def make_agent(
    agent_id: str,
    env: EnvLike,
    *,
    seed: int = 0,
    device: str = "auto",
    preset_name: str | None = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
    backend: str = "auto",
    **config: Any,
) -> Agent:
    """Return a new agent for an env.

    Args:
        agent_id: One of `agent_ids()`, or "package.module:Class".
        env: An env id, a `gym.Env` or a `gym.vector.VectorEnv`.
        seed: Seed of everything random in the run.
        device: "cpu", "cuda" or "auto".
        preset_name: "auto" starts from the tuned fields for the env id, where there are any; None from the defaults.
        env_kwargs: Arguments of the env, where it is given by id.
        backend: What steps the rows of an env given by id; see `palaestra.make_vec`.
        **config: Fields of the agent's configuration.

    Raises:
        ValueError: If the agent or env id is unknown, or a field is out of range.
        TypeError: If a field is unknown or of a wrong type, or the spaces do not fit.
    """
    kind = agent_class(import_agent(agent_id))
    if preset_name not in ("auto", None):
        raise ValueError(f"make_agent: preset_name={preset_name!r}; expected 'auto' or None")
    tuned = preset(kind.agent_id, env) if preset_name == "auto" and isinstance(env, str) else {}
    settings = make_config(kind.config_class, {**tuned, **config})
    return kind(env, settings, seed=seed, device=device, env_kwargs=env_kwargs, backend=backend)
