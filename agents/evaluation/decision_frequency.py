"""How an agent fares when it may look less often: the frequency-averaged score.

Patel and Siegelmann, "Overcoming Slow Decision Frequencies in Continuous Control: Model-Based Sequence Reinforcement
Learning for Model-Free Control", ICLR 2025. Every episode is played open loop for L steps at a time: an agent that
decides on sequences plays them, any other repeats its action. The score is the area below the mean return over L, in
units of the longest L times a return that is good on the env.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid

from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.open_loop import OpenLoop

LENGTHS = (1, *range(2, 31, 2))
"""Steps for each decision that the paper sweeps."""


@dataclass(frozen=True)
class ReturnScale:
    """What a return is measured by: (return + shift) / maximum.

    Attributes:
        maximum: A return that is good on the env, after the shift, above 0.
        shift: Added to returns that are negative otherwise.
    """

    maximum: float
    shift: float = 0.0


RETURN_SCALES: Mapping[str, ReturnScale] = MappingProxyType(
    {
        "Ant": ReturnScale(6500.0),
        "HalfCheetah": ReturnScale(17000.0),
        "Hopper": ReturnScale(3600.0),
        "Humanoid": ReturnScale(10500.0),
        "InvertedDoublePendulum": ReturnScale(9400.0),
        "InvertedPendulum": ReturnScale(1000.0),
        "LunarLander": ReturnScale(300.0),
        "LunarLanderContinuous": ReturnScale(300.0),
        "Pendulum": ReturnScale(1350.0, 1550.0),
        "Reacher": ReturnScale(60.0, 65.0),
        "Swimmer": ReturnScale(350.0),
        "Walker2d": ReturnScale(5000.0),
    }
)
"""The paper's scales by name of the env, without its namespace and version."""


@dataclass(frozen=True)
class DecisionFrequencies:
    """Returns at every decision frequency.

    Attributes:
        env_id: Id of the env.
        env_kwargs: Its parameters.
        seed: Seed of the evaluation; the episodes of all lengths have the same starts.
        lengths: Steps for each decision, ascending.
        returns: Undiscounted returns `[lengths, episodes]`.
        scale: What they are measured by; None where no scale of the env is known.
    """

    env_id: str
    env_kwargs: Mapping[str, Any]
    seed: int
    lengths: tuple[int, ...]
    returns: NDArray[np.float64]
    scale: ReturnScale | None

    @property
    def mean_returns(self) -> NDArray[np.float64]:
        """Mean return at every length `[lengths]`."""
        means: NDArray[np.float64] = self.returns.mean(axis=1)
        return means

    @property
    def score(self) -> float | None:
        """The frequency-averaged score; None without a scale."""
        if self.scale is None:
            return None
        return frequency_averaged_score(self.lengths, self.mean_returns, self.scale)

    def metrics(self) -> dict[str, float]:
        """Return the numbers that were measured by name, the score among them where there is one."""
        curve = {
            f"return_every_{length}": float(value)
            for length, value in zip(self.lengths, self.mean_returns, strict=True)
        }
        score = self.score
        return curve if score is None else {"frequency_averaged_score": score, **curve}


def decision_frequencies(
    policy: Any,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    episodes: int = 10,
    seed: int = 0,
    lengths: Sequence[int] = LENGTHS,
    scale: ReturnScale | None = None,
) -> DecisionFrequencies:
    """Measure an agent at many decision frequencies, by the mode of its policy.

    Args:
        policy: An agent: anything with the `predict` of the suite's agents or of stable-baselines3's. One with
            `predict_sequence` acts by its sequences.
        env_id: Registered id.
        env_kwargs: Parameters of the env.
        episodes: Episodes at each length.
        seed: Seed of the evaluation.
        lengths: Steps for each decision, ascending, at least two.
        scale: What returns are measured by; by default the paper's for the env's name, where it has one.

    Raises:
        TypeError: If `policy` is no agent.
        ValueError: If lengths are no ascending integers of at least 1.
    """
    _check_lengths(lengths)
    kwargs = dict(env_kwargs or {})
    returns = [
        evaluate(
            OpenLoop(policy, length), env_id, env_kwargs=kwargs, episodes=episodes, seed=seed, against_oracle=False
        ).returns
        for length in lengths
    ]
    return DecisionFrequencies(
        env_id, kwargs, seed, tuple(lengths), np.stack(returns), return_scale(env_id) if scale is None else scale
    )


def frequency_averaged_score(lengths: Sequence[int], mean_returns: ArrayLike, scale: ReturnScale) -> float:
    """Return the area below (mean return + shift) over the lengths, by longest length times maximum.

    A policy that reaches the maximum at every length of 1 to 30 has 29/30.

    Args:
        lengths: Steps for each decision, ascending.
        mean_returns: Mean return at each of them `[lengths]`.
        scale: What returns are measured by.

    Raises:
        ValueError: If lengths are no ascending integers of at least 1.
    """
    _check_lengths(lengths)
    area = trapezoid(np.asarray(mean_returns, np.float64) + scale.shift, np.asarray(lengths, np.float64))
    return float(area / (lengths[-1] * scale.maximum))


def return_scale(env_id: str) -> ReturnScale | None:
    """Return the paper's scale for an env id, whatever its namespace and version; None where it has none."""
    return RETURN_SCALES.get(env_id.rpartition("/")[2].rpartition(":")[2].rpartition("-v")[0])


def _check_lengths(lengths: Sequence[int]) -> None:
    if len(lengths) < 2 or lengths[0] < 1 or any(b <= a for a, b in pairwise(lengths)):
        raise ValueError(f"lengths={tuple(lengths)}; expected at least two ascending integers of at least 1")
