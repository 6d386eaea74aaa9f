"""A feed of short clips: watch time against likes, follows and the like, and a viewer who tires and leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import namespace_of
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory.columns import row_sums
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.recommendation.feed_clips import EVENTS, FeedClips
from palaestra.envs.recommendation.interests import Catalogue, logistic, normalised
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

Signal = Literal["watch", "like", "comment", "follow", "share", "hate"]
SIGNALS: tuple[str, ...] = get_args(Signal)
"""Entries of `info["signals"]`, in this order; "hate" counts as -1, so that more is better in all."""

_BASE_FATIGUE, _BOREDOM, _ANGER = 0.015, 0.05, 0.15
_LEAVE_LOGIT, _LEAVE_BY_FATIGUE = -4.5, 4.0
_TENS_OF_SECONDS = 0.1


@dataclass(frozen=True)
class FeedState:
    """A visit to the feed.

    Attributes:
        interest: Unit vector, float64 `[batch, dimensions]`.
        fatigue: At least 0, float64 `[batch]`.
        clips: Clips shown so far, int64 `[batch]`.
        last_clip: The one shown last (0 at the start), int64 `[batch]`; this and the next are shown in pictures,
            without effect.
        last_signals: What it brought, float64 `[batch, 6]`.
        totals: What all clips of the visit brought, float64 `[batch, 6]`; reported, without effect.
    """

    interest: Array
    fatigue: Array
    clips: Array
    last_clip: Array
    last_signals: Array
    totals: Array


@dataclass(frozen=True)
class BestClip:
    """Shows the clip with the highest score of a kind: "affinity", "length", or "watch", the expected watch time."""

    world: RecFeed
    score: Literal["affinity", "length", "watch"]

    def __call__(self, state: FeedState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, ...]`."""
        world = self.world
        affinity = world.catalogue.affinities(state.interest)
        if self.score == "length":
            affinity = 0.0 * affinity + world.clips.seconds.like(affinity)
        elif self.score == "watch":
            affinity = world.expected_watch(affinity, state.fatigue)
        return world.action_of(namespace_of(affinity).argmax(affinity, axis=-1))


@dataclass(frozen=True)
class SoftmaxClips:
    """Shows clip i with probability proportional to exp(affinity_i / temperature): a recommender that logs."""

    world: RecFeed
    temperature: float

    def log_probabilities(self, state: FeedState) -> Array:
        """Return the log-probabilities of the clips, `[batch, clips]`."""
        logits = self.world.catalogue.affinities(state.interest) / self.temperature
        xp = namespace_of(logits)
        return logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))

    def __call__(self, state: FeedState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, ...]`."""
        log_probabilities = self.log_probabilities(state)
        xp = namespace_of(log_probabilities)
        # The smallest exponential clock, whose rates are the probabilities, rings first.
        clocks = -xp.log(1.0 - key.uniform("policy", (log_probabilities.shape[1],)))
        return self.world.action_of(xp.argmin(clocks * xp.exp(-log_probabilities), axis=-1))


class RecFeed(Simulator[FeedState]):
    """Choose the next clip of a feed of short videos, for a viewer whose interest drifts, who tires and who leaves.

    **One step**: (1) clip i is shown; with a = <interest, its embedding> and the fatigue f, the viewer watches a share
    of it that is beta distributed with the mean `sigmoid(.3 + 1.5 a + .8 clickbait - .35 z - 1.5 f)`, z being the
    standardised logarithm of its length, (2) likes, comments on, follows, shares or hates it, each with a probability
    whose logit is linear in a, z, clickbait and features of the clip (`feed_clips`): long clips bring watch time and
    few likes, clickbait watch time, comments and hate; (3) the interest moves by `drift` times the share watched
    towards the clip and is normalised; (4) fatigue grows by .015, by .05 of the share not watched, and by .15 of a
    hate; (5) the viewer leaves with probability `sigmoid(4 f - 4.5)`.

    **State**: interest, fatigue, number of clips (and what was last seen, for pictures). **Observation**: float32
    `[dimensions + 2]`: interest, fatigue, and the number of clips over `horizon`. **Action**: Discrete(`num_clips`);
    clips are in the order of their length. With `action_mode="length"` float32 `[1]` in [-1, 1], the place of a clip
    in that order. **Masks**: none.

    **Reward**: the signal that `objective` names: "watch" is the time watched in units of 10 s, the others are 1 when
    they happen ("hate": -1). **Start**: a uniformly random interest, no fatigue. **End**: terminated when the viewer
    leaves; truncated after `horizon` clips.

    **Info** after a step: `signals` `[6]`: watch, like, comment, follow, share, hate, all of them with more for better;
    `clip`, int64. At any time: `totals`, the signals added up over the visit.

    **Noise**: draw "interest" (normal) at the start; "watch", "events" and "leave" (uniform).

    **Oracle**: of the mean return of a visit, for the objective "watch": a bound, by the clip that would be watched
    longest if it matched the interest perfectly, and a fatigue that grows by its least. For others none.

    **Experts**: none. **Reference policies**: "random"; "length", the longest clip; "affinity", the best match;
    "greedy", the longest expected watch time; "logging", softmax over matches, with known probabilities.

    **Version history**: v0, first release.

    Args:
        num_clips: Clips to choose from, at least 2.
        dimensions: Of interests and embeddings, at least 2.
        instance_seed: Draws the clips, with NumPy's legacy generator, whose stream never changes.
        horizon: Clips to truncation.
        drift: How far a clip watched to its end moves the interest, at least 0.
        objective: The signal that is the reward.
        action_mode: "clips" or "length".

    Raises:
        ValueError: If an argument is outside its range.

    Source: the setting of "Two-Stage Constrained Actor-Critic for Short Video Recommendation", arXiv 2302.01680, whose
    data are of real viewers; clips, viewers and numbers are synthetic and our own.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("interest", "watch", "events", "leave")

    def __init__(
        self,
        num_clips: int = 150,
        dimensions: int = 8,
        instance_seed: int = 0,
        horizon: int = 100,
        drift: float = 0.05,
        objective: Signal = "watch",
        action_mode: Literal["clips", "length"] = "clips",
    ) -> None:
        world = "RecFeed"
        self.num_clips = check_count(world, "num_clips", num_clips, 2)
        self.dimensions = check_count(world, "dimensions", dimensions, 2)
        self.horizon = check_count(world, "horizon", horizon)
        self.drift = check_amount(world, "drift", drift)
        if objective not in SIGNALS:
            raise ValueError(f"{world}: objective={objective!r}; expected one of {SIGNALS}")
        if action_mode not in ("clips", "length"):
            raise ValueError(f"{world}: action_mode={action_mode!r}; expected 'clips' or 'length'")
        self.objective, self.action_mode = objective, action_mode
        seed = check_count(world, "instance_seed", instance_seed, 0)
        self.clips = FeedClips(seed, self.num_clips, self.dimensions)
        self.catalogue = Catalogue(self.clips.embeddings)
        low = np.array([-1.0] * self.dimensions + [0.0, 0.0], np.float32)
        most = self.horizon * (_BASE_FATIGUE + _BOREDOM + _ANGER)
        high = np.array([1.0] * self.dimensions + [1.01 * most, 1.0], np.float32)
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.action_space: gym.spaces.Space[np.ndarray] = (
            gym.spaces.Discrete(self.num_clips)  # type: ignore[assignment]
            if action_mode == "clips"
            else gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        )
        self._hate_is_bad = Constant(np.array([1.0, 1.0, 1.0, 1.0, -1.0]))

    def initial(self, key: Key) -> FeedState:
        """Return a viewer who has just opened the feed."""
        interest = normalised(key.normal("interest", (self.dimensions,)))
        xp = namespace_of(interest)
        clips = xp.zeros_like(interest[:, 0], dtype=xp.int64)
        signals = xp.concat([0.0 * interest[:, :1]] * len(SIGNALS), axis=-1)
        return FeedState(interest, 0.0 * interest[:, 0], clips, clips, signals, signals)

    def clip_of(self, action: Array) -> Array:
        """Return the numbers `[batch]` of the clips that actions choose."""
        if self.action_mode == "clips":
            return action
        xp = namespace_of(action)
        place = xp.floor(0.5 * (action[:, 0] + 1.0) * self.num_clips)
        return xp.astype(xp.clip(place, 0, self.num_clips - 1), xp.int64)

    def action_of(self, clip: Array) -> Array:
        """Return the actions that choose clips `[batch]`."""
        if self.action_mode == "clips":
            return clip
        xp = namespace_of(clip)
        return ((2.0 * xp.astype(clip, xp.float64) + 1.0) / self.num_clips - 1.0)[:, None]

    def step(self, state: FeedState, action: Array, key: Key) -> Transition[FeedState]:
        """Return what the viewer makes of a clip."""
        clip, clips = self.clip_of(action), self.clips
        embedding = self.catalogue.of(clip, state.interest)
        affinity = row_sums(state.interest * embedding)
        xp = namespace_of(affinity)
        watch_logit = clips.watch_logit(affinity, state.fatigue, clip)
        # U^(1/theta) is beta distributed with the parameters (theta, 1), whose mean is theta / (1 + theta).
        share = key.uniform("watch") ** xp.exp(-watch_logit)
        watched = _TENS_OF_SECONDS * clips.seconds.like(affinity)[clip] * share
        chances = logistic(clips.event_logits(affinity, clip))
        happened = xp.astype(key.uniform("events", (len(EVENTS),)) < chances, affinity.dtype)
        signals = xp.concat([watched[:, None], happened * self._hate_is_bad.like(happened)], axis=-1)
        interest = normalised(state.interest + self.drift * share[:, None] * embedding)
        fatigue = state.fatigue + _BASE_FATIGUE + _BOREDOM * (1.0 - share) + _ANGER * happened[:, -1]
        leaves = key.uniform("leave") < self.leave_probability(fatigue)
        following = FeedState(interest, fatigue, state.clips + 1, clip, signals, state.totals + signals)
        reward = signals[:, SIGNALS.index(self.objective)]
        return Transition(following, reward, leaves, {"signals": signals, "clip": clip})

    def observe(self, state: FeedState) -> Array:
        """Return interest, fatigue and the share of the horizon that is over, `[batch, dimensions + 2]`."""
        xp = namespace_of(state.interest)
        clips = xp.astype(state.clips, state.fatigue.dtype) / self.horizon
        return xp.concat([state.interest, state.fatigue[:, None], clips[:, None]], axis=-1)

    def information(self, state: FeedState) -> Mapping[str, Array]:
        """Return the signals added up over the visit."""
        return {"totals": state.totals}

    def leave_probability(self, fatigue: Array) -> Array:
        """Return the probability that a viewer of the given fatigue leaves."""
        return logistic(_LEAVE_LOGIT + _LEAVE_BY_FATIGUE * fatigue)

    def expected_watch(self, affinity: Array, fatigue: Array) -> Array:
        """Return the mean watch time of all clips `[batch, clips]`, in units of 10 s.

        Args:
            affinity: Of the viewer to each clip `[batch, clips]`.
            fatigue: `[batch]`.
        """
        seconds = self.clips.seconds.like(affinity)
        return _TENS_OF_SECONDS * seconds * logistic(self.clips.watch_logit(affinity, fatigue[:, None]))

    @cached_property
    def watch_bound(self) -> float:
        """Return what no policy's mean watch time of a visit exceeds, in units of 10 s."""
        periods = np.arange(self.horizon)
        # Fatigue grows by its base at least, whatever is shown.
        least = _BASE_FATIGUE * periods
        stays = np.concatenate([[1.0], np.cumprod(1.0 - self.leave_probability(_BASE_FATIGUE * (periods[:-1] + 1)))])
        most = self.expected_watch(np.ones((self.horizon, self.num_clips)), least).max(axis=1)
        return float(stays @ most)

    def oracle(self) -> Oracle | None:
        """Return a bound on the mean watch time of a visit, where that is the objective."""
        if self.objective != "watch":
            return None
        source = "every clip a perfect match, and fatigue by its least growth"
        return Oracle(self.watch_bound, Estimand("episode_return", unit="tens of seconds"), "bound", source)

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", three rules and the softmax policy that logs are made by."""
        return {
            "random": RandomActor(self.action_space),
            "length": BestClip(self, "length"),
            "affinity": BestClip(self, "affinity"),
            "greedy": BestClip(self, "watch"),
            "logging": SoftmaxClips(self, 0.5),
        }

    def render(self, state: FeedState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return interest among the clips, what the last clip brought, and fatigue; or one line of text ("ansi")."""
        clip, fatigue = int(state.last_clip[row]), float(state.fatigue[row])
        signals = [float(value) for value in state.last_signals[row]]
        if mode == "ansi":
            brought = " ".join(name for name, value in zip(SIGNALS[1:], signals[1:], strict=True) if value) or "-"
            seconds = float(self.clips.seconds.values[clip])
            return (
                f"clips {int(state.clips[row])} | last {clip} of {seconds:.0f} s: {10.0 * signals[0]:.0f} s, {brought}"
                f" | fatigue {fatigue:.2f}"
            )
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        side, width = 200, 320
        canvas = rendering.Canvas(width, side)
        self.catalogue.draw(canvas, side, state.interest[row])
        if int(state.clips[row]):
            x, y = self.catalogue.place(side, self.clips.embeddings[clip])
            canvas.disc(x, y, 4.0, rendering.ORANGE)
        for index, (name, value) in enumerate(zip(SIGNALS, signals, strict=True)):
            top = 10 + 24 * index
            color = rendering.PALE if value == 0.0 else rendering.RED if value < 0.0 else rendering.GREEN
            canvas.rectangle(side + 10, top, side + 10 + (8.0 * value if name == "watch" else 16.0), top + 16, color)
            canvas.text(side + 90, top + 5, name, scale=1)
        canvas.rectangle(side + 10, 160, side + 10 + 60.0 * min(fatigue, 1.6), 176, rendering.RED)
        canvas.text(side + 10, 182, "fatigue", scale=1)
        return canvas.pixels
