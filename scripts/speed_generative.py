"""The price of generative policies: acting against a Gaussian actor, and updates against SAC's."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from palaestra.agents.nn.actors import SquashedGaussianActor
from palaestra.agents.nn.generative.diffusion import DiffusionHead
from palaestra.agents.nn.generative.flow import FlowHead
from palaestra.agents.nn.generative.generative_actor import GenerativeHead, generate
from palaestra.agents.registry import make_agent
from palaestra.agents.training.off_policy import OffPolicyAgent
from palaestra.scripts.timing import OURS, Timing, Work, interleaved

SPACE = gym.spaces.Box(-np.inf, np.inf, (17,), np.float32)
ACTION_DIM = 6
"""Spaces like HalfCheetah's."""
GAUSSIAN = "Gaussian actor"
ROWS = 10_000


def flow(repeats: int, threads: int = 2, rows: int = 1024, width: int = 256) -> Timing:
    """Time 10 Euler steps of a flow for many envs at once."""
    return _acting("flow", FlowHead(SPACE, ACTION_DIM, (width, width), steps=10), 10, repeats, threads, rows, width)


def flow_single(repeats: int, threads: int = 1, rows: int = 1, width: int = 256) -> Timing:
    """Time the same for one env."""
    return _acting(
        "flow-single", FlowHead(SPACE, ACTION_DIM, (width, width), steps=10), 10, repeats, threads, rows, width
    )


def diffusion(repeats: int, threads: int = 2, rows: int = 1024, width: int = 256) -> Timing:
    """Time the 20 levels of DACER and QVPO for many envs at once."""
    head = DiffusionHead(SPACE, ACTION_DIM, (width, width), levels=20)
    return _acting("diffusion", head, 20, repeats, threads, rows, width)


def diffusion_single(repeats: int, threads: int = 1, rows: int = 1, width: int = 256) -> Timing:
    """Time the same for one env."""
    head = DiffusionHead(SPACE, ACTION_DIM, (width, width), levels=20)
    return _acting("diffusion-single", head, 20, repeats, threads, rows, width)


def _acting(
    name: str, head: GenerativeHead, evaluations: int, repeats: int, threads: int, rows: int, width: int
) -> Timing:
    """Time acting, noise included, for a batch of observations; both sides have layers of the same widths."""
    generator = torch.Generator().manual_seed(0)
    gaussian = SquashedGaussianActor(SPACE, 2 * ACTION_DIM, (width, width))
    observation = torch.randn(rows, 17, generator=generator)

    def generative() -> Tensor:
        return generate(head, observation, generator)

    def one_pass() -> Tensor:
        return gaussian(observation).sample(generator)

    work: dict[str, Work] = {OURS: _repeated(generative, rows), GAUSSIAN: _repeated(one_pass, rows)}
    details = {"rows": rows, "width": width, "network evaluations for an action": evaluations}
    return interleaved(name, "actions/s", work, repeats, threads, details)


def _repeated(act: Any, rows: int) -> Work:
    @torch.no_grad()
    def work() -> float:
        for _ in range(5):
            act()
        return 5.0 * rows

    return work


def qsm(repeats: int) -> Timing:
    """Time QSM's update."""
    return _update("qsm", repeats)


def dacer(repeats: int) -> Timing:
    """Time DACER's update, the estimate of the entropy every 10,000 updates apart."""
    return _update("dacer", repeats)


def dipo(repeats: int) -> Timing:
    """Time DIPO's update, of 100 levels and 20 steps uphill."""
    return _update("dipo", repeats)


def qvpo(repeats: int) -> Timing:
    """Time QVPO's update, of 64 own actions in every state."""
    return _update("qvpo", repeats)


def _update(name: str, repeats: int, threads: int = 2, width: int = 256, batch: int = 256, **config: Any) -> Timing:
    """Time an agent's update against SAC's, sampling included, with the same networks on HalfCheetah's spaces."""
    common: dict[str, Any] = {"hidden": (width, width), "activation": "relu", "batch_size": batch, "buffer_size": ROWS}
    agents = {
        side: make_agent(agent_id, _Stage(), preset_name=None, device="cpu", **common, **own)
        for side, agent_id, own in ((OURS, name, config), ("SAC", "sac", {}))
    }
    work: dict[str, Work] = {side: _updates(agent) for side, agent in agents.items()}
    return interleaved(f"{name}-update", "updates/s", work, repeats, threads, {"width": width, "batch": batch})


def _updates(agent: Any) -> Work:
    assert isinstance(agent, OffPolicyAgent)
    generator = np.random.default_rng(0)
    observation, following = generator.normal(size=(2, ROWS, 17)).astype(np.float32)
    never = np.zeros(ROWS, bool)
    agent.replay.add(
        {
            "observation": observation,
            "action": generator.uniform(-1.0, 1.0, (ROWS, ACTION_DIM)).astype(np.float32),
            "reward": generator.normal(size=ROWS).astype(np.float32),
            "next_observation": following,
            "terminated": never,
            "truncated": never,
        }
    )

    def work() -> float:
        # An even number, so that a policy updated every second time is updated equally often in each.
        agent.updates_owed = 2
        agent.make_updates()
        return 2.0

    return work


class _Stage(gym.Env[np.ndarray, np.ndarray]):
    """Spaces to make an agent for; it is never stepped."""

    observation_space = SPACE
    action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
