"""Ratio error: how far the approximate ratios that an agent learns by are from those of its policies' densities."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def ratio_error(
    policy: Any, env_id: str, *, env_kwargs: Mapping[str, Any], seed: int, rows: int = 512
) -> dict[str, float]:
    """Measure the error of the log-ratios with which an agent's next update ends.

    A copy of the agent goes on exactly as the agent would until it has learnt from a rollout. For actions of that
    rollout its log-ratio of new to old policy is compared with the exact one: of FPO's flow, the difference of the
    log-likelihoods of the discretised flow; of PolicyFlow's, the same given what the flow began with, as its ratio is.

    Args:
        policy: An agent whose `ratio` is a `FlowMatchingRatio` or a `VelocityRatio`.
        env_id: Id of its env.
        env_kwargs: Parameters of the env.
        seed: Seed of which actions are looked at.
        rows: Actions looked at, at most.

    Returns:
        What `compare_log_ratios` returns, and "undefined": the share of actions without an exact ratio, because no
        noise is carried to them by one of the two flows.

    Raises:
        TypeError: If the agent's ratio is another.
    """
    # The comparison itself is to cost no torch.
    import torch

    from palaestra.agents.losses.flow_ratios import FlowMatchingRatio, VelocityRatio

    provider = getattr(policy, "ratio", None)
    if not isinstance(provider, FlowMatchingRatio | VelocityRatio):
        raise TypeError(f"ratio_error: policy={policy!r}; expected an agent with a ratio of flows")
    batch, old, new = next_update(policy, env_id, env_kwargs)
    chosen = np.random.default_rng(seed).permutation(len(batch["action"]))[:rows]
    index = torch.as_tensor(np.sort(chosen), device=batch["action"].device)
    batch = {name: _rows(field, index) for name, field in batch.items()}
    with torch.no_grad():
        policies = [network.act(batch["observation"], None, None, None)[0] for network in (old, new)]
        kept = {**batch, **provider.old_stats(policies[0], batch)}
        approximate = provider.log_ratio(policies[1], kept)
        approximate = approximate if approximate.dim() == 1 else approximate.mean(-1)
        # In float32 the inversion of a flow would end before its tolerance.
        before, after = (_log_likelihood(network, batch) for network in (old, new))
    exact = (after - before).cpu().numpy()
    defined = np.isfinite(exact)
    compared = compare_log_ratios(approximate.cpu().double().numpy()[defined], exact[defined])
    return {**compared, "undefined": float(1.0 - defined.mean())}


def next_update(policy: Any, env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    """Return the steps of the rollout that an agent learns from next, and its network before and after that.

    The agent is left as it is.

    Args:
        policy: An agent that learns from rollouts.
        env_id: Id of its env.
        env_kwargs: Parameters of the env.
    """
    agent = type(policy)(env_id, policy.config, seed=policy.seed, device=policy.device, env_kwargs=env_kwargs)
    agent.load_state_dict(copy.deepcopy(policy.state_dict()))
    found: list[Any] = []
    improve = agent.improve

    def watched(rollout: Any) -> None:
        before = copy.deepcopy(agent.network)
        valid = rollout.fields["valid"].flatten()
        found.append({name: _rows(field, valid) for name, field in rollout.flat_tree().items()})
        improve(rollout)
        found.extend((before, agent.network))

    agent.improve = watched
    if agent.num_timesteps < agent.target_timesteps:
        agent.learn(None, callback=lambda _: not found)
    if not found:
        agent.learn(int(1e12), callback=lambda _: not found, reset_num_timesteps=False)
    return found[0], found[1], found[2]


def compare_log_ratios(approximate: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return how far approximate log-ratios `[n]` are from exact ones `[n]`.

    Returns:
        "rmse": root of the mean squared difference; "bias": mean of approximate minus exact; "relative": "rmse" over
        the root mean square of the exact ones, so that a ratio that is always 1 has 1; "correlation" between the two;
        "agreement": share of actions that both say have become likelier, or both less likely; "exact_rms" and
        "approximate_rms": how large they are.
    """
    difference = approximate - exact
    rmse, size = float(np.sqrt(np.mean(difference**2))), float(np.sqrt(np.mean(exact**2)))
    spread = float(approximate.std() * exact.std())
    together = float(np.mean((approximate - approximate.mean()) * (exact - exact.mean())))
    return {
        "rmse": rmse,
        "bias": float(difference.mean()),
        "relative": rmse / size if size > 0.0 else 0.0,
        "correlation": together / spread if spread > 0.0 else 0.0,
        "agreement": float(np.mean((approximate > 0.0) == (exact > 0.0))),
        "exact_rms": size,
        "approximate_rms": float(np.sqrt(np.mean(approximate**2))),
    }


def _rows(field: Any, index: Tensor) -> Any:
    return {key: value[index] for key, value in field.items()} if isinstance(field, Mapping) else field[index]


def _log_likelihood(network: Any, batch: Mapping[str, Any]) -> Tensor:
    """Return log-densities `[n]` of actions, given the latents where those are kept, in float64."""
    policy = copy.deepcopy(network.head).double()(batch["observation"])
    action = batch["action"].double()
    found: Tensor = (
        policy.log_prob_given(batch["latent"].double(), action) if "latent" in batch else policy.log_prob(action)
    )
    return found
