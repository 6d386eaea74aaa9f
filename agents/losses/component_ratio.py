"""A ratio for each component of an action, as actions of several independent parts have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from palaestra.agents.nn.distributions import HALF_LOG_TWO_PI, DiagonalGaussian, MultiCategorical


class ComponentRatio:
    """A log-ratio for each component of an action: of a MultiDiscrete action, or of a Box; one of a Discrete action."""

    def draw(self, policy: Any, generator: Generator) -> dict[str, Tensor]:
        """Return samples of the policy."""
        return {"action": policy.sample(generator)}

    def old_stats(self, policy: Any, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the log-densities `[batch, components]` of the actions under "log_prob"."""
        return {"log_prob": component_log_probs(policy, steps["action"])}

    def log_ratio(self, policy: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return log pi(a_m|s) - log pi_old(a_m|s) of each component m, `[batch, components]`."""
        log_ratio: Tensor = component_log_probs(policy, batch["action"]) - batch["log_prob"]
        return log_ratio


def component_log_probs(policy: Any, action: Tensor) -> Tensor:
    """Return the log-densities `[batch, components]` of the components of actions, which are independent."""
    if isinstance(policy, MultiCategorical):
        columns = zip(policy.parts, action.unbind(-1), strict=True)
        return torch.stack([part.log_prob(chosen) for part, chosen in columns], -1)
    if isinstance(policy, DiagonalGaussian):
        standardised = (action - policy.mean) * torch.exp(-policy.log_std)
        return -0.5 * standardised.square() - policy.log_std - HALF_LOG_TWO_PI
    log_prob: Tensor = policy.log_prob(action)
    return log_prob.unsqueeze(-1)
