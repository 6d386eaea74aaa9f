"""Ratio providers: what is drawn and kept when a policy acts, and the log-ratio of new to old made of it later.

Objectives of the PPO family ask for log pi(a|s) - log pi_old(a|s) alone. Where that comes from is a provider's affair:
a difference of densities, of one density per step of a chain, or of losses on noise that was drawn while acting.
Whatever a provider needs of the time of acting it draws then and finds again in every batch; nothing is drawn anew.

Every provider keeps two laws: unchanged parameters give log-ratios of exactly 0, so that the gradient of a surrogate is
that of mean(A log_ratio); and `log_ratio` is differentiable in the parameters that the policy was computed from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Generator, Tensor


class RatioProvider(Protocol):
    """How a policy's actions are drawn for training, and how its log-ratios are computed."""

    def draw(self, policy: Any, generator: Generator) -> dict[str, Tensor]:
        """Return sampled actions under "action", and whatever of their making the ratio needs, `[batch, ...]` each."""
        ...

    def old_stats(self, policy: Any, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what is known of drawn steps under the policy that acts, before it changes: `[batch, ...]` each.

        Args:
            policy: What the network says of the steps' observations.
            steps: Fields `[batch, ...]`, among them what `draw` returned.
        """
        ...

    def log_ratio(self, policy: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the log-ratio of new to old, `[batch]`, or `[batch, parts]` of actions made in several parts.

        Args:
            policy: What the network, as it is now, says of the batch's observations.
            batch: Fields `[batch, ...]`, among them what `draw` and `old_stats` returned.
        """
        ...


class DensityRatio:
    """The difference of log-densities, of any policy that has them."""

    def draw(self, policy: Any, generator: Generator) -> dict[str, Tensor]:
        """Return samples of the policy."""
        return {"action": policy.sample(generator)}

    def old_stats(self, policy: Any, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the log-densities `[batch]` of the actions under "log_prob"."""
        return {"log_prob": policy.log_prob(steps["action"])}

    def log_ratio(self, policy: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return log pi(a|s) - log pi_old(a|s), `[batch]`."""
        log_ratio: Tensor = policy.log_prob(batch["action"]) - batch["log_prob"]
        return log_ratio
