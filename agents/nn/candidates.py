"""Candidate actions: several proposed for each state, judged by critics, perhaps moved uphill, one of them picked.

What proposes them and how they are chosen is the policy. One `Selector` serves acting, evaluation and TD target, so
that a change of the critics reaches all three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.nn.hill_climbing import hill_climb
from palaestra.agents.nn.networks import Observation

Judge = Callable[[Observation, Tensor], Tensor]
"""Returns values `[rows]` of observations `[rows, ...]` and actions `[rows, action_dim]`."""


@dataclass(frozen=True)
class Candidates:
    """Actions proposed for each row of a batch; with one alone, every selection is that action.

    Attributes:
        action: `[batch, count, action_dim]`.
        log_prob: Log-density of each under what proposed it `[batch, count]`.
    """

    action: Tensor
    log_prob: Tensor

    def pick(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions `[batch, action_dim]` and log-densities `[batch]` of one candidate a row, `[batch]`."""
        return picked(self.action, index), picked(self.log_prob, index)

    def values(self, critics: Callable[[Observation, Tensor], Tensor], observation: Observation) -> Tensor:
        """Return the values `[critics, batch, count]` of all candidates.

        Args:
            critics: Returns values `[critics, rows]` of observations and actions `[rows, ...]`.
            observation: `[batch, ...]`.
        """
        return candidate_values(critics, observation, self.action)


def candidate_values(
    critics: Callable[[Observation, Tensor], Tensor], observation: Observation, action: Tensor
) -> Tensor:
    """Return the values `[critics, batch, count]` of several actions for each row.

    Args:
        critics: Returns values `[critics, rows]` of observations and actions `[rows, ...]`.
        observation: `[batch, ...]`.
        action: `[batch, count, action_dim]`.
    """
    values = critics(repeated(observation, action.shape[1]), action.flatten(0, 1))
    return values.unflatten(-1, action.shape[:2])


@dataclass(frozen=True)
class Ranked:
    """Candidates with their values.

    Attributes:
        action: `[batch, count, action_dim]`.
        value: `[batch, count]`.
        proposal: Which of the proposals each was at first `[batch, count]`; -1 where it was none of them.
        moved: Whether it is elsewhere by now, bools `[batch, count]`.
    """

    action: Tensor
    value: Tensor
    proposal: Tensor
    moved: Tensor

    def drawn(self, temperature: float, generator: Generator | None) -> Choice:
        """Return one candidate a row, drawn with probabilities in proportion to exp(value / temperature).

        The best one without a generator and at a temperature of 0, to which the draws tend.
        """
        if temperature == 0.0 or generator is None:
            index = self.value.argmax(-1)
        else:
            index = Categorical(self.value / temperature).sample(generator)
        return Choice(*(picked(values, index) for values in (self.action, self.proposal, self.moved)))


@dataclass(frozen=True)
class Choice:
    """One candidate a row.

    Attributes:
        action: `[batch, action_dim]`.
        proposal: Which of the proposals it was at first `[batch]`; -1 where it was none of them.
        moved: Whether it is elsewhere by now, bools `[batch]`.
    """

    action: Tensor
    proposal: Tensor
    moved: Tensor


@dataclass(frozen=True)
class Selector:
    """How one of several candidates is chosen: the best few are kept, they climb, and one of them is drawn.

    Attributes:
        keep: Candidates of the highest values that stay; None for all.
        steps: Gradient steps on the values that these then take, at least 0.
        step_size: What the gradients are multiplied by.
        temperature: Of the softmax of values that one is drawn from; 0 takes the best.
    """

    keep: int | None = None
    steps: int = 0
    step_size: float = 0.0
    temperature: float = 0.0

    def choose(self, judge: Judge, observation: Observation, action: Tensor, generator: Generator | None) -> Choice:
        """Return one candidate a row; a single one that does not climb is returned as it is, unjudged.

        Args:
            judge: Says what actions are worth; holds the critics' parameters fixed.
            observation: `[batch, ...]`.
            action: Proposals `[batch, count, action_dim]`.
            generator: Draws where the temperature is above 0; without one the best is taken.
        """
        if action.shape[1] == 1 and self.steps == 0:
            alone = torch.zeros(len(action), dtype=torch.int64, device=action.device)
            return Choice(action[:, 0], alone, alone > 0)
        return self.rank(judge, observation, action).drawn(self.temperature, generator)

    @torch.no_grad()
    def rank(self, judge: Judge, observation: Observation, action: Tensor, beside: Tensor | None = None) -> Ranked:
        """Return the candidates that stay, after their climb, each at the best place of its way.

        Args:
            judge: As for `choose`.
            observation: `[batch, ...]`.
            action: Proposals `[batch, count, action_dim]`.
            beside: An action of each row that takes the place of the worst one that stays `[batch, action_dim]`.
        """
        value = candidate_values(judge, observation, action)
        count = action.shape[1] if self.keep is None else min(self.keep, action.shape[1])
        proposal = torch.arange(action.shape[1], device=action.device).expand(len(action), -1)
        if count < action.shape[1] or beside is not None:
            value, proposal = value.topk(count)
            action = action.gather(1, proposal.unsqueeze(-1).expand(-1, -1, action.shape[-1]))
        if beside is not None:
            beside = beside.unsqueeze(1)
            action = torch.cat([action[:, :-1], beside], 1)
            value = torch.cat([value[:, :-1], candidate_values(judge, observation, beside)], 1)
            proposal = torch.cat([proposal[:, :-1], torch.full_like(proposal[:, :1], -1)], 1)
        start = action
        if self.steps > 0:
            several = repeated(observation, count)
            climbed, reached = hill_climb(
                lambda place: judge(several, place), action.flatten(0, 1), self.steps, self.step_size
            )
            action, value = climbed.view_as(action), reached.view_as(value)
        return Ranked(action, value, proposal, (action != start).any(-1))


def picked(values: Tensor, index: Tensor) -> Tensor:
    """Return one entry of each row: `[batch, ...]` of values `[batch, count, ...]` and indices `[batch]`."""
    index = index.view(-1, *(1 for _ in values.shape[1:])).expand(-1, 1, *values.shape[2:])
    return values.gather(1, index).squeeze(1)


def repeated(observation: Observation, count: int) -> Observation:
    """Return every row `count` times in turn."""
    if isinstance(observation, dict):
        return {key: _rows_repeated(value, count) for key, value in observation.items()}
    return _rows_repeated(observation, count)


def _rows_repeated(value: Tensor, count: int) -> Tensor:
    return value.unsqueeze(1).expand(-1, count, *value.shape[1:]).flatten(0, 1)
