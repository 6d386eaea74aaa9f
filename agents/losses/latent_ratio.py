"""The ratio of a policy that decides on latents, which something else turns into actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Generator, Tensor


class LatentRatio:
    """The difference of log-densities of the latent, whatever action it became.

    Where the decoder stays as it was, that is the log-ratio of actions as well: the decoder's Jacobian cancels.
    """

    def draw(self, policy: Any, generator: Generator) -> dict[str, Tensor]:
        """Return samples under "latent", and under "action" what they are before an agent decodes them: the same."""
        latent = policy.sample(generator)
        return {"action": latent, "latent": latent}

    def old_stats(self, policy: Any, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the log-densities `[batch]` of the latents under "log_prob"."""
        return {"log_prob": policy.log_prob(steps["latent"])}

    def log_ratio(self, policy: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return log pi(e|s) - log pi_old(e|s), `[batch]`."""
        log_ratio: Tensor = policy.log_prob(batch["latent"]) - batch["log_prob"]
        return log_ratio
