"""Updates of off-policy agents against stable-baselines3's bare `train()`, and against their own matrix products."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from torch import Tensor

from palaestra.agents.nn.stacked import product
from palaestra.agents.registry import make_agent
from palaestra.scripts.timing import OURS, Timing, Work, interleaved

ROWS = 10_000
UPDATES = 20
"""Per call of a side; even, so that a policy updated every second time is updated equally often in each."""


def sac(repeats: int, threads: int = 2, width: int = 256, batch: int = 256) -> Timing:
    """Time SAC's update on HalfCheetah's spaces, sampling included.

    Its products are those of the policy on both observations, of the target critics, of the critics forwards and
    backwards, of the critics once more for the policy, backwards to the action alone, and of the policy backwards.
    """
    policy, critics = _sizes("HalfCheetah-v5", width, policy_outputs=2)
    products = [
        *2 * _forward(policy, batch),
        *_forward(critics, batch, 2),
        *_forward(critics, batch, 2),
        *_backward(critics, batch, 2),
        *_forward(critics, batch, 2),
        *_backward(critics, batch, 2, weights=False, inputs=True),
        *_backward(policy, batch),
    ]
    return _update("sac", stable_baselines3.SAC, "HalfCheetah-v5", repeats, threads, width, batch, products, 1)


def td3(repeats: int, threads: int = 2, width: int = 256, batch: int = 256) -> Timing:
    """Time TD3's update on HalfCheetah's spaces, sampling included; the policy moves with every second one.

    Its products in two updates are, twice, those of the target policy and critics and of the critics forwards and
    backwards; once, of the policy and of one critic for it, backwards to the action, and of the policy backwards.
    """
    policy, critics = _sizes("HalfCheetah-v5", width, policy_outputs=1)
    always = [
        *_forward(policy, batch),
        *_forward(critics, batch, 2),
        *_forward(critics, batch, 2),
        *_backward(critics, batch, 2),
    ]
    delayed = [
        *_forward(policy, batch),
        *_forward(critics, batch),
        *_backward(critics, batch, weights=False, inputs=True),
        *_backward(policy, batch),
    ]
    products = [*2 * always, *delayed]
    return _update("td3", stable_baselines3.TD3, "HalfCheetah-v5", repeats, threads, width, batch, products, 2)


def dqn(repeats: int, threads: int = 2, width: int = 256, batch: int = 256) -> Timing:
    """Time DQN's update on CartPole's spaces, sampling included.

    Its products are those of the target network, and of the network forwards and backwards.
    """
    network = [4, width, width, 2]
    products = [*2 * _forward(network, batch), *_backward(network, batch)]
    return _update("dqn", stable_baselines3.DQN, "CartPole-v1", repeats, threads, width, batch, products, 1)


Product = tuple[Tensor, Tensor]


def _forward(sizes: Sequence[int], batch: int, count: int = 1) -> list[Product]:
    """Return the products of equal networks on a batch, those of a layer stacked."""
    return [_factors(count, batch, below, above) for below, above in itertools.pairwise(sizes)]


def _backward(
    sizes: Sequence[int], batch: int, count: int = 1, weights: bool = True, inputs: bool = False
) -> list[Product]:
    """Return the products of their backward pass, for the weights if asked, and down to the inputs if asked."""
    products = []
    for level, (below, above) in enumerate(itertools.pairwise(sizes)):
        if weights:
            products.append(_factors(count, above, batch, below))
        if level > 0 or inputs:
            products.append(_factors(count, batch, above, below))
    return products


def _factors(count: int, rows: int, inner: int, columns: int) -> Product:
    return torch.randn(count, rows, inner), torch.randn(count, inner, columns)


def _sizes(env_id: str, width: int, policy_outputs: int) -> tuple[list[int], list[int]]:
    """Return the widths of policy and critic, the policy with a number of outputs per action dimension."""
    agent = make_agent("sac", env_id, preset_name=None, device="cpu")
    assert isinstance(agent.observation_space, spaces.Box)
    observed, acted = agent.observation_space.shape[0], agent.action_map.dim
    return [observed, width, width, policy_outputs * acted], [observed + acted, width, width, 1]


def _update(
    name: str,
    peer: Any,
    env_id: str,
    repeats: int,
    threads: int,
    width: int,
    batch: int,
    products: Sequence[Product],
    updates_of_products: int,
) -> Timing:
    hidden = (width, width)
    ours: Any = make_agent(
        name, env_id, preset_name=None, device="cpu", hidden=hidden, batch_size=batch, buffer_size=ROWS
    )
    theirs = peer(
        "MlpPolicy",
        env_id,
        device="cpu",
        buffer_size=ROWS,
        batch_size=batch,
        policy_kwargs={"net_arch": list(hidden)},
    )
    theirs.set_logger(configure(None, []))
    _fill(ours, theirs)

    def our_updates() -> float:
        ours.updates_owed = UPDATES
        ours.make_updates()
        return UPDATES

    def their_updates() -> float:
        theirs.train(UPDATES, batch)
        return UPDATES

    def products_alone() -> float:
        for _ in range(UPDATES // updates_of_products):
            for left, right in products:
                product(left, right)
        return UPDATES

    work: dict[str, Work] = {
        OURS: our_updates,
        f"stable_baselines3.{peer.__name__}.train": their_updates,
        "matrix products": products_alone,
    }
    details = {"env": env_id, "width": width, "batch": batch}
    return interleaved(f"{name}-update", "updates/s", work, repeats, threads, details)


def _fill(ours: Any, theirs: Any) -> None:
    """Fill both replay buffers with the same random transitions, none of which ends an episode."""
    generator = np.random.default_rng(0)
    buffer = theirs.replay_buffer
    observation, following = generator.normal(size=(2, *buffer.observations.shape)).astype(np.float32)
    reward = generator.normal(size=ROWS).astype(np.float32)
    if np.issubdtype(buffer.actions.dtype, np.integer):
        action = generator.integers(2, size=buffer.actions.shape)
    else:
        action = generator.uniform(-1.0, 1.0, buffer.actions.shape).astype(np.float32)
    buffer.observations[:], buffer.next_observations[:] = observation, following
    buffer.actions[:], buffer.rewards[:, 0], buffer.full = action, reward, True
    never = np.zeros(ROWS, bool)
    ours.replay.add(
        {
            "observation": observation[:, 0],
            "action": action[:, 0, 0] if np.issubdtype(action.dtype, np.integer) else action[:, 0],
            "reward": reward,
            "next_observation": following[:, 0],
            "terminated": never,
            "truncated": never,
        }
    )
