"""The evaluation contract: one function measures any policy on any env, always in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from palaestra.agents.evaluation.episodes import Episodes, play_rows
from palaestra.agents.evaluation.players import Player, make_player
from palaestra.agents.evaluation.statistics import Interval, mean_interval, paired_interval
from palaestra.protocols import Enumerable, Oracle, Simulator, simulator_of
from palaestra.seeding import row_seeds
from palaestra.wrappers.vectorize import make_vec, native_backend

MAX_DEFAULT_ROWS = 32
LONG_RUN_ROWS = 64


@dataclass(frozen=True)
class Evaluation:
    """What evaluation measured; rewards are raw, and higher is better throughout.

    Attributes:
        env_id: Id of the env.
        env_kwargs: Its parameters.
        backend: "palaestra" for an own world's vector face, "gymnasium" for a synchronous vector of foreign envs.
        seed: Seed of the evaluation, from which the rows' seeds are derived.
        deterministic: Whether the policy acted by its mode.
        frame_stack: Frames stacked before the policy saw them.
        num_envs: Rows; each ran `len(returns) / num_envs` episodes.
        returns: Undiscounted return of every episode `[episodes]`, row by row.
        lengths: Steps of every episode `[episodes]`.
        success: Whether `info["success"]` (or `info["is_success"]`) held at the end of every episode `[episodes]`;
            None where the env reports none.
        estimand: What `value` estimates: "episode_return" or "long_run_reward" (reward per step).
        value: The estimate.
        interval: Its 95 % t-interval over episodes (or rows of the long run); None where there is only one.
        oracle_value: The best attainable value, or a bound on it, where the world knows one.
        oracle_kind: "optimum" or "bound".
        expert_value: What the world's optimal policy attained on the same noise, where there is one.
        difference: Expert minus policy, as a paired interval on the same noise; against `oracle_value` itself where
            the world has an oracle but no optimal policy.
        gap: `difference` divided by the magnitude of what it is taken against; None where that is 0.
        exact_value: Expected return of the policy by enumeration of the world; None where that is impossible.
        exact_gap: (optimum - `exact_value`) / |optimum|.
    """

    env_id: str
    env_kwargs: Mapping[str, Any]
    backend: str
    seed: int
    deterministic: bool
    frame_stack: int
    num_envs: int
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    success: NDArray[np.bool_] | None
    estimand: Literal["episode_return", "long_run_reward"]
    value: float
    interval: Interval | None
    oracle_value: float | None = None
    oracle_kind: Literal["optimum", "bound"] | None = None
    expert_value: float | None = None
    difference: Interval | None = None
    gap: Interval | None = None
    exact_value: float | None = None
    exact_gap: float | None = None

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return of the episodes."""
        return float(self.returns.mean())

    @property
    def success_rate(self) -> float | None:
        """Fraction of successful episodes, or None where the env reports no success."""
        return None if self.success is None else float(self.success.mean())

    def metrics(self) -> dict[str, float]:
        """Return the numbers that were measured, by name, without their intervals."""
        numbers = {
            "mean_return": self.mean_return,
            "mean_length": float(self.lengths.mean()),
            "success_rate": self.success_rate,
            self.estimand: None if self.estimand == "episode_return" else self.value,
            "oracle_value": self.oracle_value,
            "expert_value": self.expert_value,
            "gap": None if self.gap is None else self.gap.estimate,
            "exact_value": self.exact_value,
            "exact_gap": self.exact_gap,
        }
        return {name: number for name, number in numbers.items() if number is not None}


@dataclass(frozen=True)
class _Protocol:
    """How one policy is measured: everything but the policy itself."""

    env_id: str
    env_kwargs: Mapping[str, Any]
    simulator: Simulator | None
    seed: int
    deterministic: bool
    frame_stack: int

    def episodes(self, policy: Any, num_envs: int, episodes_per_row: int, final_info: Sequence[str] = ()) -> Episodes:
        """Play the same number of episodes in every row."""
        env, player = self._start(policy, num_envs, self.env_kwargs)
        try:
            return play_rows(env, player, row_seeds(self.seed, "eval", num_envs), episodes_per_row, final_info)
        finally:
            env.close()

    def long_run(self, policy: Any, num_envs: int, periods: int, ignore: int) -> NDArray[np.float64]:
        """Return the mean reward per step `[num_envs]` of one unbroken run; the time limit is moved to its end."""
        env, player = self._start(policy, num_envs, {**self.env_kwargs, "horizon": periods})
        try:
            return _play_long_run(env, player, row_seeds(self.seed, "eval", num_envs), periods, ignore)
        finally:
            env.close()

    def _start(
        self, policy: Any, num_envs: int, env_kwargs: Mapping[str, Any]
    ) -> tuple[gym.vector.VectorEnv[Any, Any, Any], Player]:
        # What is measured is the id's own env, whatever back end the agent was trained on.
        env = make_vec(
            self.env_id,
            num_envs,
            env_kwargs=dict(env_kwargs),
            frame_stack=self.frame_stack,
            backend=native_backend(self.env_id),
        )
        try:
            return env, make_player(policy, env, self.simulator, self.deterministic, self.seed)
        except BaseException:
            env.close()
            raise


def evaluate(
    policy: Any,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    episodes: int = 100,
    num_envs: int | None = None,
    seed: int = 0,
    deterministic: bool = True,
    frame_stack: int | None = None,
    against_oracle: bool = True,
    long_run_rows: int = LONG_RUN_ROWS,
    periods: int | None = None,
) -> Evaluation:
    """Measure a policy on an env of its own, on seeds that no training row ever sees.

    The rows' seeds are `row_seeds(seed, "eval", num_envs)`. Every row runs exactly `episodes / num_envs` episodes.
    Nothing of the agent changes: it is asked through `predict` alone (of the copy that acts for it in this world, where
    its policy fits worlds of other spaces too: `Agent.acting_in`), and stochastic acting draws from a generator of the
    evaluation's.

    Where the world has an oracle, its estimand is measured, on the same noise, for the policy and for the world's
    optimal policy. A long-run estimand is measured in one unbroken run of `periods` steps for each of
    `long_run_rows` rows. Where the world can be enumerated, the policy is also judged exactly.

    Args:
        policy: An agent (anything with its `predict`), an `Actor`, or the name of a policy of the world ("random",
            "optimal", ...; "random" exists for every env).
        env_id: Registered id, or "package.module:Id-v0".
        env_kwargs: Parameters of the env.
        episodes: Number of episodes, a multiple of `num_envs`.
        num_envs: Rows stepped together; by default the largest divisor of `episodes` not above 32.
        seed: Seed of the evaluation, at least 0.
        deterministic: Whether the policy acts by its mode.
        frame_stack: Frames to stack; by default `policy.config.frame_stack`, or 1.
        against_oracle: Whether to measure against the world's oracle; without it, `value` is the mean return.
        long_run_rows: Rows of a long-run measurement, at least 2.
        periods: Steps of a long-run measurement, above the number ignored; by default what the oracle's estimand says.

    Raises:
        ValueError: If a number is out of range, or a world ends in the middle of a long run.
        KeyError: If `policy` names none of the world's policies.
        TypeError: If `policy` is nothing that can act there.
    """
    rows = _rows(episodes, num_envs)
    protocol = _protocol(policy, env_id, env_kwargs, seed, deterministic, frame_stack)
    kwargs, simulator, stack = dict(protocol.env_kwargs), protocol.simulator, protocol.frame_stack
    played = protocol.episodes(policy, rows, episodes // rows)
    evaluation = Evaluation(
        env_id=env_id,
        env_kwargs=kwargs,
        backend="gymnasium" if simulator is None else "palaestra",
        seed=seed,
        deterministic=deterministic,
        frame_stack=stack,
        num_envs=rows,
        returns=played.returns,
        lengths=played.lengths,
        success=played.success,
        estimand="episode_return",
        value=float(played.returns.mean()),
        interval=_interval(played.returns),
    )
    oracle = simulator.oracle() if simulator is not None and against_oracle else None
    if simulator is None or oracle is None:
        return evaluation
    evaluation = replace(evaluation, oracle_value=oracle.value, oracle_kind=oracle.kind)
    if oracle.estimand.kind == "long_run_reward":
        evaluation = _measure_long_run(evaluation, policy, protocol, oracle, long_run_rows, periods)
    else:
        expert = (
            replace(protocol, frame_stack=1).episodes("optimal", rows, episodes // rows).returns
            if _has_optimal(simulator)
            else None
        )
        evaluation = _compare(evaluation, played.returns, expert, oracle)
    return _judge_exactly(evaluation, policy, simulator, oracle)


def evaluate_modes(policy: Any, env_id: str, **keywords: Any) -> dict[str, Evaluation]:
    """Measure a policy in both of its modes: "deterministic", and "stochastic" where that differs.

    Args:
        policy: As for `evaluate`; its attribute `stochastic_modes` says whether its modes differ.
        env_id: As for `evaluate`.
        keywords: The keyword arguments of `evaluate`, without `deterministic`.
    """
    modes = {"deterministic": evaluate(policy, env_id, deterministic=True, **keywords)}
    if getattr(policy, "stochastic_modes", False):
        modes["stochastic"] = evaluate(policy, env_id, deterministic=False, **keywords)
    return modes


def play_episodes(
    policy: Any,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    final_info: Sequence[str] = (),
) -> Episodes:
    """Return the very episodes that `evaluate` measures, with infos of their ends; for measures of one's own.

    Args:
        policy: As for `evaluate`, and so are the arguments that follow.
        env_id: Registered id.
        env_kwargs: Parameters of the env.
        episodes: Number of episodes.
        seed: Seed of the evaluation.
        deterministic: Whether the policy acts by its mode.
        final_info: Names of the infos to keep of every episode's end.

    Raises:
        KeyError: If the env does not report an info asked for.
    """
    rows = _rows(episodes, None)
    protocol = _protocol(policy, env_id, env_kwargs, seed, deterministic, None)
    return protocol.episodes(policy, rows, episodes // rows, final_info)


def _protocol(
    policy: Any,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None,
    seed: int,
    deterministic: bool,
    frame_stack: int | None,
) -> _Protocol:
    kwargs = dict(env_kwargs or {})
    stack = frame_stack if frame_stack is not None else int(getattr(getattr(policy, "config", None), "frame_stack", 1))
    return _Protocol(env_id, kwargs, simulator_for(env_id, kwargs), seed, deterministic, stack)


def _rows(episodes: int, num_envs: int | None) -> int:
    if episodes < 1:
        raise ValueError(f"evaluate: episodes={episodes}; expected at least 1")
    if num_envs is None:
        return max(rows for rows in range(1, min(episodes, MAX_DEFAULT_ROWS) + 1) if episodes % rows == 0)
    if num_envs < 1 or episodes % num_envs:
        raise ValueError(
            f"evaluate: episodes={episodes}, num_envs={num_envs}; expected episodes to be a multiple of it"
        )
    return num_envs


def simulator_for(env_id: str, env_kwargs: Mapping[str, Any]) -> Simulator | None:
    """Return the simulator of an env id with some parameters, or None where it has none."""
    env = make_vec(env_id, 1, env_kwargs=env_kwargs)
    try:
        return simulator_of(env)
    finally:
        env.close()


def _play_long_run(
    env: gym.vector.VectorEnv[Any, Any, Any], player: Player, seeds: list[int], periods: int, ignore: int
) -> NDArray[np.float64]:
    observation, info = env.reset(seed=seeds)  # type: ignore[arg-type]
    episode_start = np.ones(env.num_envs, np.bool_)
    total = np.zeros(env.num_envs)
    for period in range(periods):
        observation, reward, terminated, truncated, info = env.step(player.act(observation, info, episode_start))
        episode_start = np.zeros(env.num_envs, np.bool_)
        if np.any(terminated) or (np.any(truncated) and period < periods - 1):
            raise ValueError(
                f"evaluate: an episode ended at step {period + 1} of a long run of {periods}; expected none to"
            )
        if period >= ignore:
            total += np.asarray(reward, np.float64)
    return total / (periods - ignore)


def _measure_long_run(
    evaluation: Evaluation, policy: Any, protocol: _Protocol, oracle: Oracle, rows: int, periods: int | None
) -> Evaluation:
    ignore = oracle.estimand.ignore
    steps = oracle.estimand.periods if periods is None else periods
    if steps <= ignore or rows < 2:
        raise ValueError(
            f"evaluate: periods={steps}, long_run_rows={rows}; expected periods above the {ignore} ignored, and 2 rows"
        )
    attained = protocol.long_run(policy, rows, steps, ignore)
    expert = None
    if protocol.simulator is not None and _has_optimal(protocol.simulator):
        expert = replace(protocol, frame_stack=1).long_run("optimal", rows, steps, ignore)
    evaluation = replace(
        evaluation, estimand="long_run_reward", value=float(attained.mean()), interval=_interval(attained)
    )
    return _compare(evaluation, attained, expert, oracle)


def _has_optimal(simulator: Simulator) -> bool:
    try:
        simulator.expert("optimal")
    except KeyError:
        return False
    return True


def _compare(
    evaluation: Evaluation, attained: NDArray[np.float64], expert: NDArray[np.float64] | None, oracle: Oracle
) -> Evaluation:
    if attained.size < 2:
        return evaluation if expert is None else replace(evaluation, expert_value=float(expert.mean()))
    if expert is None:
        difference, scale = paired_interval(np.full_like(attained, oracle.value), attained), abs(oracle.value)
    else:
        difference, scale = paired_interval(expert, attained), abs(float(expert.mean()))
    return replace(
        evaluation,
        expert_value=None if expert is None else float(expert.mean()),
        difference=difference,
        gap=difference.scaled(1 / scale) if scale > 0 else None,
    )


def _interval(values: NDArray[np.float64]) -> Interval | None:
    return mean_interval(values) if values.size > 1 else None


def _judge_exactly(evaluation: Evaluation, policy: Any, simulator: Simulator, oracle: Oracle) -> Evaluation:
    if not isinstance(simulator, Enumerable) or evaluation.frame_stack > 1 or not hasattr(policy, "predict"):
        return evaluation
    probabilities = _action_probabilities(policy, simulator, evaluation.deterministic)
    if probabilities is None:
        return evaluation
    value = float(simulator.exact_return(probabilities))
    optimum = oracle.value if oracle.kind == "optimum" and oracle.estimand.kind == "episode_return" else None
    return replace(evaluation, exact_value=value, exact_gap=(optimum - value) / abs(optimum) if optimum else None)


def _action_probabilities(policy: Any, simulator: Any, deterministic: bool) -> NDArray[np.float64] | None:
    """Return `[num_states, num_actions]`, or None where the policy is no function of the observation alone."""
    states = simulator.enumerate_states()
    observation, masks = simulator.observe(states), simulator.action_masks(states)
    keywords = {} if masks is None else {"action_masks": masks}
    actions, memory = policy.predict(observation, deterministic=True, **keywords)
    if memory is not None:
        return None
    if not deterministic:
        if not hasattr(policy, "action_probabilities"):
            return None
        return np.asarray(policy.action_probabilities(observation, **keywords), np.float64)
    space = simulator.action_space
    return np.eye(int(space.n))[np.asarray(actions) - int(space.start)]
