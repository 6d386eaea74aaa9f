"""Candidates: what is kept, how it climbs, which one is drawn, and that a single one is left as it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from palaestra.agents.nn.candidates import Candidates, Ranked, Selector, candidate_values, picked, repeated

OBSERVATION = torch.arange(6.0).unsqueeze(-1)


def proposals(count: int = 8, seed: int = 0, dim: int = 2) -> Tensor:
    return torch.rand(6, count, dim, generator=torch.Generator().manual_seed(seed)) - 0.5


def bowl(observation: Tensor, action: Tensor) -> Tensor:
    """Concave, with the optimum at 0.2."""
    return -(action - 0.2).square().sum(-1)


def linear(observation: Tensor, action: Tensor) -> Tensor:
    return action @ torch.tensor([3.0, -1.0])


def test_single_candidate_that_does_not_climb_is_returned_bit_for_bit_and_never_judged():
    def never(observation: Tensor, action: Tensor) -> Tensor:
        raise AssertionError("a single candidate was judged")

    action = proposals(1)
    for temperature in (0.0, 1.0):
        choice = Selector(keep=1, temperature=temperature).choose(never, OBSERVATION, action, torch.Generator())
        assert torch.equal(choice.action, action[:, 0])
        assert not choice.proposal.any()
        assert not choice.moved.any()


def test_best_of_all_is_the_argmax():
    action = proposals()
    values = bowl(OBSERVATION, action.flatten(0, 1)).view(6, 8)
    choice = Selector().choose(bowl, OBSERVATION, action, None)
    assert torch.equal(choice.proposal, values.argmax(-1))
    assert torch.equal(choice.action, action[torch.arange(6), values.argmax(-1)])


def test_best_few_are_kept():
    action = proposals()
    values = bowl(OBSERVATION, action.flatten(0, 1)).view(6, 8)
    ranked = Selector(keep=3).rank(bowl, OBSERVATION, action)
    assert torch.equal(ranked.proposal, values.topk(3).indices)
    for row in range(6):
        assert torch.equal(ranked.action[row], action[row, ranked.proposal[row]])
    assert Selector(keep=20).rank(bowl, OBSERVATION, action).action.shape == action.shape


def test_linear_values_move_by_exactly_steps_times_rate_times_slope():
    action = 0.1 * proposals()
    ranked = Selector(keep=4, steps=5, step_size=0.01).rank(linear, OBSERVATION, action)
    start = action.gather(1, ranked.proposal.unsqueeze(-1).expand(-1, -1, 2))
    torch.testing.assert_close(ranked.action - start, torch.tensor([0.15, -0.05]).expand(6, 4, 2))
    assert ranked.moved.all()
    clipped = Selector(steps=5, step_size=10.0).rank(linear, OBSERVATION, action)
    torch.testing.assert_close(clipped.action, torch.tensor([1.0, -1.0]).expand(6, 8, 2))


def test_no_climb_falls_and_the_chosen_value_is_at_least_that_of_every_candidate_kept():
    """Also where steps are far too long: the start of the way counts."""
    action = proposals()
    before = Selector(keep=4).rank(bowl, OBSERVATION, action)
    for rate in (0.01, 0.4, 1.2, 50.0):
        after = Selector(keep=4, steps=6, step_size=rate).rank(bowl, OBSERVATION, action)
        assert (after.value >= before.value).all()
        choice = after.drawn(0.0, None)
        assert (bowl(OBSERVATION, choice.action) >= before.value.amax(-1) - 1e-6).all()
    stuck = Selector(keep=4, steps=3, step_size=50.0).rank(bowl, OBSERVATION, action.clamp(0.2, 0.2))
    assert not stuck.moved.any()


def test_other_action_takes_the_place_of_the_worst_one_kept():
    action, beside = proposals(), torch.full((6, 2), 0.2)
    ranked = Selector(keep=3).rank(bowl, OBSERVATION, action, beside=beside)
    without = Selector(keep=3).rank(bowl, OBSERVATION, action)
    assert torch.equal(ranked.action[:, :2], without.action[:, :2])
    assert torch.equal(ranked.action[:, 2], beside)
    assert (ranked.proposal[:, 2] == -1).all()
    assert (ranked.drawn(0.0, None).proposal == -1).all()
    alone = Selector(keep=1).rank(bowl, OBSERVATION, action, beside=beside)
    assert torch.equal(alone.action[:, 0], beside)


def test_softmax_draws_in_proportion_and_tends_to_the_best():
    value = torch.tensor([[0.0, math.log(3.0)]]).expand(20_000, -1)
    index = torch.arange(2).expand(20_000, -1)
    ranked = Ranked(torch.zeros(20_000, 2, 1), value, index, index > 5)
    drawn = ranked.drawn(1.0, torch.Generator().manual_seed(0)).proposal
    assert float(drawn.float().mean()) == pytest.approx(0.75, abs=0.01)
    hotter = ranked.drawn(2.0, torch.Generator().manual_seed(0)).proposal
    assert float(hotter.float().mean()) == pytest.approx(math.sqrt(3) / (1 + math.sqrt(3)), abs=0.015)
    cold = ranked.drawn(1e-3, torch.Generator().manual_seed(0))
    assert torch.equal(cold.proposal, ranked.drawn(0.0, torch.Generator()).proposal)
    assert torch.equal(cold.proposal, ranked.drawn(1.0, None).proposal)


def test_observations_are_repeated_for_every_candidate():
    nested = repeated({"a": OBSERVATION, "b": torch.ones(6, 2, 3)}, 4)
    assert isinstance(nested, dict)
    assert torch.equal(nested["a"][:, 0], torch.arange(6.0).repeat_interleave(4))
    assert nested["b"].shape == (24, 2, 3)
    action = proposals(4)
    values = candidate_values(lambda seen, act: seen[:, 0] + 10.0 * act[:, 0], OBSERVATION, action)
    torch.testing.assert_close(values, OBSERVATION + 10.0 * action[..., 0])


def test_candidates_with_densities_keep_their_verbs():
    action = proposals(3)
    candidates = Candidates(action, action.sum(-1))
    values = candidates.values(lambda seen, act: torch.stack([act[:, 0], act[:, 1]]), OBSERVATION)
    torch.testing.assert_close(values, action.permute(2, 0, 1))
    index = torch.tensor([0, 1, 2, 0, 1, 2])
    chosen, log_prob = candidates.pick(index)
    assert torch.equal(chosen, action[torch.arange(6), index])
    assert torch.equal(log_prob, picked(action, index).sum(-1))
