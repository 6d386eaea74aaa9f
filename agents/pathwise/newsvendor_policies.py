"""Generalised newsvendor rules: a forecast of the quantiles of demand over the lead time is the base-stock level.

Source: the benchmark policies for series of real sales in arXiv 2306.11246.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from palaestra.agents.losses.quantiles import quantile_huber_loss
from palaestra.agents.nn.networks import mlp
from palaestra.agents.pathwise.network_reader import NetworkReader

Newsvendor = Literal["quantile-newsvendor", "fixed-quantile", "transformed-newsvendor"]

LEVELS = tuple(level / 20.0 for level in range(1, 20))
"""Levels of the quantiles that are forecast."""

FORECASTER = (128, 128)
TRANSFORM = (32, 32)
"""Widths of the hidden layers of the forecaster and of what turns critical ratios into quantiles."""

FIRST_QUANTILE = 0.9
"""Where the one quantile for all is before it is learned."""


class QuantileNewsvendor(nn.Module):
    """Orders up to a quantile of the demand that is to come until the next order arrives.

    A network `[128, 128]` forecasts the quantiles .05, .1, ..., .95 of the demand of lead time + 1 periods from the
    demand of the past periods and the calendar. It is trained by the quantile (pinball) loss on what was demanded, and
    never by cost. Levels between two quantiles are interpolated, those outside extrapolated from the nearest two, both
    kept at 0 or above. Which quantile is ordered up to is

    - "quantile-newsvendor": the critical ratio `underage_cost / (underage_cost + holding_cost)`,
    - "fixed-quantile": one for all, learned by cost,
    - "transformed-newsvendor": a network `[32, 32]` of the critical ratio, learned by cost.

    Orders below 0 are asked for as such: where goods cannot be sent back, they are none.

    Args:
        reader: A network of one node whose world shows the demand of past periods.
        kind: Which quantile.

    Raises:
        TypeError: If the network has several nodes, or shows no past demand.
    """

    ratios: Tensor

    def __init__(self, reader: NetworkReader, kind: Newsvendor) -> None:
        super().__init__()
        network = reader.network
        if len(network.nodes) != 1 or not network.history.size:
            raise TypeError(
                f"hdpo: policy={kind!r} needs a world of one store that shows its past demand, such as "
                f"palaestra/RetailStore-v0; found {len(network.nodes)} nodes"
            )
        self.reader, self.kind = reader, kind
        self._seen = torch.tensor(np.concatenate((network.history[0], network.calendar)))
        self._longest = int(network.lead_times[0])
        ratio = network.underage_costs / (network.underage_costs + network.holding_costs)
        self.register_buffer("ratios", torch.tensor(ratio), persistent=False)
        # Leads differ between rows where the world shows them.
        inputs = len(self._seen) + network.lead_share.size
        self.forecaster = mlp((inputs, *FORECASTER, len(LEVELS)), "elu")
        if kind == "fixed-quantile":
            self.quantile = nn.Parameter(torch.tensor(math.log(FIRST_QUANTILE / (1.0 - FIRST_QUANTILE))))
        elif kind == "transformed-newsvendor":
            self.transform = mlp((1, *TRANSFORM, 1), "elu")

    @property
    def learns_from_cost(self) -> bool:
        """Whether cost has a gradient in any parameter."""
        return self.kind != "quantile-newsvendor"

    def forward(self, observation: Tensor) -> Tensor:
        """Return actions `[batch, 1]` between -1 and 1 of observations `[batch, observation]`."""
        with torch.no_grad():
            quantiles = self.quantiles(observation)
        level = interpolated(quantiles, self.share(observation)).relu()
        return self.reader.actions((level - self.reader.positions(observation)[:, 0])[:, None])

    def quantiles(self, observation: Tensor) -> Tensor:
        """Return the forecast of the quantiles of demand over lead time + 1 periods, in units, `[batch, levels]`."""
        network = self.reader.network
        seen = observation[:, self._seen]
        if network.lead_share.size:
            seen = torch.cat((seen, observation[:, torch.as_tensor(network.lead_share)]), 1)
        return (1.0 + self.forecaster(seen)) * (self.lead_times(observation) + 1.0)[:, None]

    def share(self, observation: Tensor) -> Tensor:
        """Return the quantile that is ordered up to, `[batch]`, between 0 and 1."""
        places = self.reader.network.critical_ratio
        ratio = observation[:, int(places[0])] if places.size else self.ratios.expand(len(observation))
        if self.kind == "quantile-newsvendor":
            return ratio
        if self.kind == "fixed-quantile":
            return self.quantile.sigmoid().expand(len(observation))
        return (self.transform(ratio[:, None])[:, 0] + torch.logit(ratio)).sigmoid()

    def lead_times(self, observation: Tensor) -> Tensor:
        """Return the lead times `[batch]`, whole numbers as floats."""
        places = self.reader.network.lead_share
        if not places.size:
            return torch.full_like(observation[:, 0], self._longest)
        return (observation[:, int(places[0])] * self._longest).round()

    def forecast_loss(self, observations: Sequence[Tensor]) -> Tensor:
        """Return the mean quantile loss of the forecasts of all periods whose demand was seen to the end.

        Args:
            observations: `[batch, observation]` of each period; what was demanded in one stands in the next.
        """
        latest = int(self.reader.network.history[0, -1])
        demanded = torch.stack([observation[:, latest] for observation in observations[1:]])
        total = torch.cat((torch.zeros_like(demanded[:1]), demanded.cumsum(0)))
        periods = len(demanded) - self._longest
        leads = self.lead_times(observations[0]).long()
        start = torch.arange(periods, device=demanded.device)[:, None]
        ahead = total.gather(0, start + leads + 1) - total[:periods]
        levels = torch.tensor(LEVELS, dtype=demanded.dtype, device=demanded.device)
        forecast = self.quantiles(torch.cat(tuple(observations[:periods])))
        return quantile_huber_loss(forecast, ahead.reshape(-1, 1), levels, 0.0) / len(LEVELS)


def interpolated(quantiles: Tensor, share: Tensor) -> Tensor:
    """Return the level of a share `[batch]` on the line through the two quantiles of `LEVELS` nearest to it.

    Args:
        quantiles: At `LEVELS`, `[batch, levels]`.
        share: Between 0 and 1, `[batch]`; its gradient is the slope of the line.
    """
    place = share * 20.0 - 1.0
    below = place.detach().floor().clamp(0, len(LEVELS) - 2).long()
    low, high = (quantiles.gather(1, (below + step)[:, None])[:, 0] for step in (0, 1))
    return low + (place - below) * (high - low)
