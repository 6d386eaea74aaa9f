"""From a checkpoint back to an agent."""

from __future__ import annotations

from pathlib import Path

from palaestra.agents.agent import Agent, EnvLike
from palaestra.agents.nn.spaces import space_from_json
from palaestra.agents.registry import agent_class
from palaestra.agents.training.checkpoint import Checkpoint, CheckpointError, CheckpointStore
from palaestra.agents.training.config import make_config
from palaestra.wrappers.vectorize import GIVEN, native_backend


def load(path: str | Path, env: EnvLike | None = None, *, step: int | None = None, device: str = "auto") -> Agent:
    """Return a saved agent, ready to predict; with an env also ready to continue training exactly where it stood.

    An agent whose policy fits other spaces too (`hdpo` with a policy for any supply network) starts anew in an env that
    has others, with what it has learned.

    Args:
        path: A directory written by `Agent.save`, or a run directory of `palaestra train`.
        env: Env to continue in; None restores the agent for prediction alone.
        step: Which of several checkpoints; the newest by default.
        device: Where to put the agent.

    Raises:
        CheckpointError: If the path holds no checkpoint, or one that is truncated, foreign or newer than this version.
        ValueError: If the env's spaces differ from those the agent was saved with, and its policy fits no others.
    """
    directory = Path(path)
    if (directory / "checkpoints").is_dir():
        directory = directory / "checkpoints"
    return from_checkpoint(CheckpointStore(directory).load(step), env, device=device)


def from_checkpoint(checkpoint: Checkpoint, env: EnvLike | None = None, *, device: str = "auto") -> Agent:
    """Return the agent of a loaded checkpoint; see `load`."""
    header = checkpoint.header
    try:
        kind = agent_class(header["agent"])
        config = make_config(kind.config_class, header["config"])
        observation_space, action_space = (
            space_from_json(header[name]) for name in ("observation_space", "action_space")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint of step {checkpoint.step}: its header does not describe an agent: {error}"
        ) from error
    agent = kind.__new__(kind)
    agent._set_up(observation_space, action_space, config, header["seed"], device)
    agent.recall(header)
    agent._build(header["num_envs"])
    state = dict(checkpoint.state["agent"])
    collector = state.pop("collector")
    agent.load_state_dict(state)
    checkpoint.fill({name: stream for name, stream in agent.streams().items() if name in checkpoint.stream_names})
    if env is not None:
        same_env = isinstance(env, str) and env == agent.env_id
        env_kwargs = agent.env_kwargs if same_env else None
        pending = agent.pending
        agent.set_env(env, env_kwargs, _backend(agent) if same_env else "auto")
        if (agent.observation_space, agent.action_space) == (observation_space, action_space):
            agent.pending = pending
            agent.collector.load_state_dict(collector)
    return agent


def _backend(agent: Agent) -> str:
    """Return the back end that a saved agent's env goes on with."""
    assert agent.env_id is not None
    # Checkpoints from before back ends had names, and envs given as objects, are of the id's own env.
    return native_backend(agent.env_id) if agent.backend == GIVEN else agent.backend
