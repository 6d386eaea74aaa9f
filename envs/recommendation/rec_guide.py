"""Guided recommendation: a short path of items that moves a user's interest towards a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from palaestra.envs import rendering
from palaestra.envs.arrays import namespace_of
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory.columns import row_sums
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.recommendation.interests import Catalogue, logistic, normalised, unit_vectors
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

SIGNALS = ("interest", "rank", "click")
"""Entries of `info["signals"]`, in this order."""


@dataclass(frozen=True)
class GuideState:
    """A user on the way.

    Attributes:
        interest: Unit vector, float64 `[batch, dimensions]`.
        target: Item that the user should come to like, int64 `[batch]`.
        shown: Items recommended so far, bools `[batch, items]`.
        steps: How many, int64 `[batch]`.
        last_item: The one recommended last (-1 at the start), int64 `[batch]`; shown in pictures, without effect.
        totals: What all steps of the path brought, float64 `[batch, 3]`; reported, without effect.
    """

    interest: Array
    target: Array
    shown: Array
    steps: Array
    last_item: Array
    totals: Array


@dataclass(frozen=True)
class Target:
    """Recommends the target, and then ends the path."""

    world: RecGuide

    def __call__(self, state: GuideState, observation: Array, key: Key) -> Array:
        """Return actions `[batch]`."""
        end = self.world.num_items + 0 * state.target
        return namespace_of(end).where(state.steps == 0, state.target, end)


class StepByStep:
    """Of the items nearest to the target takes that of the greatest expected reward of its own; ends where none is > 0.

    Args:
        world: The world.
        candidates: How many of the nearest items it considers.
    """

    def __init__(self, world: RecGuide, candidates: int = 20) -> None:
        self.world = world
        items = world.catalogue.embeddings.values
        products = items @ items.T
        self._products = Constant(products)
        self._nearest = Constant(np.argsort(-products, axis=1, kind="stable")[:, :candidates])

    def __call__(self, state: GuideState, observation: Array, key: Key) -> Array:
        """Return actions `[batch]`."""
        world, xp = self.world, namespace_of(state.interest)
        affinities = world.catalogue.affinities(state.interest)
        before, place = world.log_probability(affinities, state.target), world.rank(affinities, state.target)
        products, nearest = self._products.like(affinities), self._nearest.like(state.target)[state.target]
        best = world.num_items + 0 * state.target
        most = 0.0 * before
        for column in range(nearest.shape[1]):
            item = nearest[:, column]
            affinity = world.entry(affinities, item)
            length = (1.0 + 2.0 * world.pull * affinity + world.pull**2) ** 0.5
            moved = (affinities + world.pull * products[item]) / length[:, None]
            interest = world.log_probability(moved, state.target) - before
            places = xp.astype(place - world.rank(moved, state.target), interest.dtype) / world.num_items
            brings = world.interest_weight * interest + world.rank_weight * places + world.click_weight
            gain = xp.where(world.was_shown(state, item), 0.0 * brings, logistic(affinity) * brings)
            best, most = xp.where(gain > most, item, best), xp.maximum(gain, most)
        return best


class RecGuide(Simulator[GuideState]):
    """Recommend up to ten items, one after the other, that lead a user towards a target item; ending early is a choice.

    A user with interest u prefers items with the probabilities P(i | u) = softmax(sharpness <u, e_i>). **One step**:
    item i is recommended; the user accepts it with probability `sigmoid(<u, e_i>)`, and then u moves to
    u + `pull` e_i, normalised. Three signals say what the step brought:

    - interest: log P(target | u') - log P(target | u);
    - rank: places that the target has gained among all items by P;
    - click: the probability of acceptance.

    An item that was recommended before is ignored: it is not accepted, and its click is 0.

    **State**: interest, target, items recommended, their number. **Observation**: float32 `[2 dimensions + 2]`:
    interest, embedding of the target, P(target | u), and the number of steps over `horizon`. **Action**:
    Discrete(`num_items` + 1): an item, or, the last of them, the end of the path, which brings nothing.
    **Masks**: items not yet recommended, and the end; a masked item may be recommended, with the effect above.

    **Reward**: `interest_weight` interest + `rank_weight` rank / `num_items` + `click_weight` click. **Start**: a user
    and a target, uniform over `num_tasks` pairs that `instance_seed` draws; `reset(options={"task_seed": q})` chooses
    pair q. **End**: terminated by the end of the path; truncated after `horizon` items.

    **Info** after a step: `signals` `[3]`; `item` and `accepted` (bools: an item was
    recommended, and it was accepted). At any time: `rank`, of the target among all items,
    from 1, int64; `probability`, P(target | u); `totals`, the signals added up over the path.

    **Noise**: draws "task" (integer) at the start; "accept" (uniform).

    **Oracle**: of the mean return of a path: a bound, that of users who end at their target's most favourable interest,
    in first place, after `horizon` clicks of the greatest probability.

    **Experts**: none. **Reference policies**: "random"; "target", the target itself and the end; "step-by-step", of the
    items nearest to the target that of the greatest expected reward of the step.

    **Version history**: v0, first release.

    Args:
        num_items: Items to recommend, at least 2.
        dimensions: Of interests and embeddings, at least 2.
        num_tasks: Pairs of a user and a target.
        instance_seed: Draws items and pairs, with NumPy's legacy generator, whose stream never changes.
        horizon: Items to truncation.
        pull: How far an accepted item moves the interest, at least 0.
        sharpness: Of preferences, above 0.
        interest_weight: Weight of the interest signal in the reward, at least 0; this and the next two.
        rank_weight: Weight of the rank signal, over `num_items`.
        click_weight: Weight of the click signal.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the setting of "Effective Reinforcement Learning for Proactive Recommendation via Rectified Policy Gradient
    Estimation", arXiv 2605.28293, whose users are models of recorded ones; items and users are synthetic and our own.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 2
    draws: ClassVar[tuple[str, ...]] = ("task", "accept")

    def __init__(
        self,
        num_items: int = 200,
        dimensions: int = 8,
        num_tasks: int = 1000,
        instance_seed: int = 0,
        horizon: int = 10,
        pull: float = 0.3,
        sharpness: float = 5.0,
        interest_weight: float = 1.0,
        rank_weight: float = 1.0,
        click_weight: float = 0.1,
    ) -> None:
        world = "RecGuide"
        self.num_items = check_count(world, "num_items", num_items, 2)
        self.dimensions = check_count(world, "dimensions", dimensions, 2)
        self.tasks = check_count(world, "num_tasks", num_tasks)
        self.horizon = check_count(world, "horizon", horizon)
        self.pull = check_amount(world, "pull", pull)
        self.sharpness = check_amount(world, "sharpness", sharpness, positive=True)
        self.interest_weight = check_amount(world, "interest_weight", interest_weight)
        self.rank_weight = check_amount(world, "rank_weight", rank_weight)
        self.click_weight = check_amount(world, "click_weight", click_weight)
        stream = np.random.RandomState(check_count(world, "instance_seed", instance_seed, 0))
        self.catalogue = Catalogue(unit_vectors(stream, self.num_items, self.dimensions))
        self._users = Constant(unit_vectors(stream, self.tasks, self.dimensions))
        self._targets = Constant(stream.randint(self.num_items, size=self.tasks))
        self._items = Constant(np.arange(self.num_items))
        size = 2 * self.dimensions + 2
        low = np.array([-1.0] * (size - 2) + [0.0, 0.0], np.float32)
        self.observation_space = gym.spaces.Box(low, np.ones(size, np.float32), dtype=np.float32)
        self.action_space = gym.spaces.Discrete(self.num_items + 1)

    def initial(self, key: Key) -> GuideState:
        """Return a user who has been recommended nothing."""
        return self._start(key.integers("task", self.tasks))

    def initial_of_task(self, task: Array, key: Key) -> GuideState:
        """Return the user of a chosen pair."""
        return self._start(task)

    def _start(self, task: Array) -> GuideState:
        xp = namespace_of(task)
        interest = self._users.like(xp.astype(task, xp.float64))[task]
        target = self._targets.like(task)[task]
        shown = (0 * task)[:, None] > self._items.like(task)[None]
        totals = xp.concat([0.0 * interest[:, :1]] * len(SIGNALS), axis=-1)
        return GuideState(interest, target, shown, 0 * task, 0 * task - 1, totals)

    def moved(self, interest: Array, item: Array) -> Array:
        """Return interests `[batch, dimensions]` after the items `[batch]` have been accepted."""
        return normalised(interest + self.pull * self.catalogue.of(item, interest))

    def log_probability(self, affinities: Array, target: Array) -> Array:
        """Return log P(target | u) `[batch]` of affinities `[batch, items]`."""
        xp = namespace_of(affinities)
        logits = self.sharpness * affinities
        logits = logits - xp.max(logits, axis=-1, keepdims=True)
        return self.entry(logits, target) - xp.log(xp.sum(xp.exp(logits), axis=-1))

    def rank(self, affinities: Array, target: Array) -> Array:
        """Return the place of the target among all items, from 1, int64 `[batch]`."""
        xp = namespace_of(affinities)
        ahead = affinities > self.entry(affinities, target)[:, None]
        return 1 + xp.sum(xp.astype(ahead, xp.int64), axis=-1)

    def step(self, state: GuideState, action: Array, key: Key) -> Transition[GuideState]:
        """Return what a recommendation brings, or the end of the path."""
        xp = namespace_of(state.interest)
        ends = action == self.num_items
        item = xp.clip(action, None, self.num_items - 1)
        counts = ~ends & ~self.was_shown(state, item)
        affinities = self.catalogue.affinities(state.interest)
        affinity = row_sums(state.interest * self.catalogue.of(item, state.interest))
        click = xp.where(counts, logistic(affinity), 0.0 * affinity)
        accepted = key.uniform("accept") < click
        interest = xp.where(accepted[:, None], self.moved(state.interest, item), state.interest)
        moved = self.catalogue.affinities(interest)
        gain = self.log_probability(moved, state.target) - self.log_probability(affinities, state.target)
        places = self.rank(affinities, state.target) - self.rank(moved, state.target)
        signals = xp.stack([gain, xp.astype(places, gain.dtype), click], axis=1)
        reward = self.interest_weight * gain + self.rank_weight * signals[:, 1] / self.num_items
        reward = reward + self.click_weight * click
        shown = state.shown | (self._is(item) & ~ends[:, None])
        steps = state.steps + xp.astype(~ends, state.steps.dtype)
        last = xp.where(ends, state.last_item, item)
        following = GuideState(interest, state.target, shown, steps, last, state.totals + signals)
        return Transition(following, reward, ends, {"signals": signals, "item": ~ends, "accepted": accepted})

    def observe(self, state: GuideState) -> Array:
        """Return interest, target, P(target | u) and the share of the horizon, `[batch, 2 dimensions + 2]`."""
        xp = namespace_of(state.interest)
        target = self.catalogue.of(state.target, state.interest)
        probability = xp.exp(self.log_probability(self.catalogue.affinities(state.interest), state.target))
        over = xp.astype(state.steps, probability.dtype) / self.horizon
        return xp.concat([state.interest, target, probability[:, None], over[:, None]], axis=-1)

    def action_masks(self, state: GuideState) -> Array:
        """Return the items not yet recommended, and the end of the path, `[batch, items + 1]`."""
        xp = namespace_of(state.shown)
        return xp.concat([~state.shown, state.shown[:, :1] | ~state.shown[:, :1]], axis=-1)

    def information(self, state: GuideState) -> Mapping[str, Array]:
        """Return the target's rank and probability, and the signals added up over the path."""
        affinities = self.catalogue.affinities(state.interest)
        probability = namespace_of(affinities).exp(self.log_probability(affinities, state.target))
        return {"rank": self.rank(affinities, state.target), "probability": probability, "totals": state.totals}

    @cached_property
    def bound(self) -> float:
        """Return what no policy's mean return exceeds.

        log P(target | u) is concave in u, so that on the unit ball it lies below its tangent at u = e_target.
        """
        items, users = self.catalogue.embeddings.values, self._users.values
        targets = self._targets.values
        at_target = items @ items.T
        preferred = np.exp(self.sharpness * at_target)
        preferred /= preferred.sum(axis=1, keepdims=True)
        slope = self.sharpness * (items - preferred @ items)
        highest = self.log_probability(at_target, np.arange(self.num_items))
        highest = highest + np.linalg.norm(slope, axis=1) - (slope * items).sum(axis=1)
        now = users @ items.T
        interest = highest[targets] - self.log_probability(now, targets)
        places: NDArray[np.float64] = (self.rank(now, targets) - 1.0) / self.num_items
        clicks = self.horizon * float(logistic(np.ones(1))[0])
        mean = self.interest_weight * interest.mean() + self.rank_weight * places.mean() + self.click_weight * clicks
        return float(mean)

    def oracle(self) -> Oracle:
        """Return a bound on the mean return of a path."""
        source = "tangent of the concave log-probability at the target's embedding, first place, sure clicks"
        return Oracle(self.bound, Estimand("episode_return"), "bound", source)

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and two rules."""
        random = RandomActor(self.action_space, self.action_masks)
        return {"random": random, "target": Target(self), "step-by-step": StepByStep(self)}

    def render(self, state: GuideState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return the user among the items, with the target and the path so far; or one line of text ("ansi")."""
        target, steps = int(state.target[row]), int(state.steps[row])
        affinities = self.catalogue.affinities(state.interest[row][None])
        rank = int(self.rank(affinities, state.target[row][None])[0])
        if mode == "ansi":
            last = int(state.last_item[row])
            shown = "-" if last < 0 else str(last)
            return f"step {steps} | last item {shown} | target {target} in place {rank} of {self.num_items}"
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        side = 220
        canvas = rendering.Canvas(side, side + 24)
        self.catalogue.draw(canvas, side, state.interest[row])
        for item in np.flatnonzero(state.shown[row]):
            x, y = self.catalogue.place(side, self.catalogue.embeddings.values[item])
            canvas.disc(x, y, 3.5, rendering.ORANGE)
        x, y = self.catalogue.place(side, self.catalogue.embeddings.values[target])
        canvas.ring(x, y, 7.0, rendering.GREEN, thickness=3.0)
        canvas.text(8, side + 8, f"step {steps}  place {rank}", scale=2)
        return canvas.pixels

    def entry(self, values: Array, item: Array) -> Array:
        """Return the entries `[batch]` of values `[batch, items]` at items `[batch]`."""
        xp = namespace_of(values)
        return xp.sum(xp.where(self._is(item), values, 0.0 * values), axis=-1)

    def was_shown(self, state: GuideState, item: Array) -> Array:
        """Return whether items `[batch]` have been recommended before, bools `[batch]`."""
        return namespace_of(state.shown).any(state.shown & self._is(item), axis=-1)

    def _is(self, item: Array) -> Array:
        return self._items.like(item)[None] == item[:, None]
