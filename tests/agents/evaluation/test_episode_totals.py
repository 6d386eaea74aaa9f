"""Episode totals: the sums of what a world reports, against the return and against a hand-played episode."""

from __future__ import annotations

import pytest

from palaestra.agents.evaluation.episode_totals import episode_totals
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.measures import measure_all


def test_the_objective_s_total_is_the_return() -> None:
    for objective, entry in (("watch", "0"), ("like", "1"), ("hate", "5")):
        kwargs = {"objective": objective}
        totals = episode_totals("affinity", "palaestra/RecFeed-v0", env_kwargs=kwargs, seed=3, episodes=50)
        played = evaluate("affinity", "palaestra/RecFeed-v0", env_kwargs=kwargs, seed=3, episodes=50)
        assert totals[entry] == pytest.approx(float(played.returns.mean()))
        assert totals["length"] == pytest.approx(float(played.lengths.mean()))
        assert totals[f"{entry}_by_step"] == pytest.approx(float(played.returns.sum() / played.lengths.sum()))
    assert set(totals) == {"length"} | {f"{k}{suffix}" for k in range(6) for suffix in ("", "_by_step")}


def test_it_is_a_measure_that_claims_can_name() -> None:
    options = {"episode-totals": {"episodes": 20}}
    numbers = measure_all(options, "target", "palaestra/RecGuide-v0", {}, 0)
    # The target, and the end of the path.
    assert numbers["episode-totals/length"] == 2.0
    assert 0.0 < numbers["episode-totals/2"] < 1.0


def test_an_info_that_is_no_vector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"info\['rank'\] of shape \(\); expected a vector"):
        episode_totals("target", "palaestra/RecGuide-v0", env_kwargs={}, seed=0, episodes=4, info="rank")
    with pytest.raises(KeyError):
        episode_totals("random", "palaestra/Kuhn-v0", env_kwargs={}, seed=0, episodes=4)
