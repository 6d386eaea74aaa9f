"""A ratio for each step of a chain that denoises an action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Generator, Tensor

from palaestra.agents.nn.generative.fine_tuned import FineTunedPolicy

LOG_PROB_RANGE = (-5.0, 2.0)
"""Log-densities of coordinates are kept within it."""


class ChainRatio:
    """One Gaussian for every learnt step of a diffusion: the steps are actions of an inner decision process.

    Log-densities are kept within [-5, 2] for every coordinate and averaged over coordinates, as the authors do. In one
    dimension, inside that range, the ratio of a step is that of its density.

    Source: Ren et al. 2024, "Diffusion policy policy optimization", arXiv 2409.00588.
    """

    def draw(self, policy: FineTunedPolicy, generator: Generator) -> dict[str, Tensor]:
        """Return samples with the "chain" of learnt steps `[batch, steps + 1, action_dim]` that they end."""
        chain = policy.chain(generator)
        return {"action": chain[:, -1], "chain": chain}

    def old_stats(self, policy: FineTunedPolicy, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the log-densities `[batch, steps]` under "log_prob"."""
        return {"log_prob": self.log_probs(policy, steps)}

    def log_ratio(self, policy: FineTunedPolicy, batch: Mapping[str, Any]) -> Tensor:
        """Return the log-ratio of every learnt step, the noisiest first, `[batch, steps]`."""
        log_ratio: Tensor = self.log_probs(policy, batch) - batch["log_prob"]
        return log_ratio

    def log_probs(self, policy: FineTunedPolicy, batch: Mapping[str, Any]) -> Tensor:
        """Return the bounded log-densities `[batch, steps]`."""
        return policy.log_prob_per_dimension(batch["chain"]).clamp(*LOG_PROB_RANGE).mean(-1)
