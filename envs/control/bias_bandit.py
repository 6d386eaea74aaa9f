"""A bandit with continuous actions whose values, noise and optima are all known: a gauge for what critics believe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import numpy as np
from scipy.special import erf

from palaestra.envs import rendering
from palaestra.envs.arrays import namespace_of, stacked, table_like
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition


@dataclass(frozen=True)
class BanditState:
    """A context, and what was done about it, for pictures; float64.

    Attributes:
        context: In [-1, 1], `[batch]`.
        action: The action, all 0 before it, `[batch, action_dim]`.
        reward: What it brought, 0 before it, `[batch]`.
    """

    context: Array
    action: Array
    reward: Array


@dataclass(frozen=True)
class ChosenAction:
    """Post-decision state: the action, and its expected reward, which is known by then.

    Attributes:
        context: `[batch]`.
        action: `[batch, action_dim]`.
        reward: Q(s, a) `[batch]`.
    """

    context: Array
    action: Array
    reward: Array


@dataclass(frozen=True)
class CentreOfMode:
    """Takes the centre of one mode."""

    world: BiasBandit
    mode: int

    def __call__(self, state: BanditState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, action_dim]`."""
        first = self.world.centres[self.mode] + self.world.context_shift * state.context
        return stacked([first, *[0.0 * first for _ in range(1, self.world.action_dim)]])


class BiasBandit(Simulator[BanditState]):
    """A one-step contextual bandit with known values: what a critic believes can be held against the truth.

    An actor that climbs an estimate of noisy values finds its errors as well as its peaks, and so the estimate of what
    it does is too high: `action_value` says by how much. Several modes show whether a policy keeps more than one, and
    `soft_density` what the optimum of an entropy-regularised objective looks like.

    **State**: a context s, and the action once taken. **Observation**: float32 `[1]`, the context, in [-1, 1].
    **Action**: float32 `[action_dim]` in [-1, 1].

    **Dynamics**: none; the episode ends. **Reward**: Q(s, a) + sigma(a) z with z standard normal,

        Q(s, a) = max over modes k of  -gap k - curvature ((a_0 - c_k - context_shift s)**2 + a_1**2 + a_2**2 + ...)
        sigma(a) = noise_std (1 + noise_slope a_0)

    with centres c_0 = .5 of a single mode, else c_k = -1 + (2 k + 1) / modes. **Start**: s uniform on [-1, 1].
    **End**: terminated after the one step. **Masks**: none.

    **Info** (after the step): `regret` (float64: Q of the best action less Q(s, a)), `mode` (int64: the mode in which
    the action lies).

    **Noise**: draws "context" (uniform) and "reward" (normal).

    **Oracle**: the optimum, 0: Q is at most -gap k in mode k, which is 0 at the centre of mode 0, and that lies inside
    the box for every context. **Expert**: "optimal", the centre of mode 0. **Reference policies**: "random",
    "optimal", and "last-mode", the centre of the last one, whose value is -gap (modes - 1).

    **Version history**: v0, first release.

    Args:
        action_dim: Dimensions of the action, at least 1; all but the first are best at 0.
        modes: Number of local optima, at least 1.
        gap: What each mode is worth less than the one before; less than `curvature` times the squared distance of
            their centres, so that each is an optimum of its neighbourhood.
        curvature: Loss for a squared distance of 1 from a centre, above 0.
        context_shift: How far the optima move with the context, at least 0; they stay inside the box.
        noise_std: Standard deviation of the reward at a_0 = 0.
        noise_slope: Its relative growth with a_0, in [-1, 1].

    Raises:
        ValueError: If an argument is outside its range.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    render_fps: ClassVar[int] = 2
    draws: ClassVar[tuple[str, ...]] = ("context", "reward")
    horizon = 1

    def __init__(
        self,
        action_dim: int = 1,
        modes: int = 1,
        gap: float = 0.0,
        curvature: float = 4.0,
        context_shift: float = 0.25,
        noise_std: float = 1.0,
        noise_slope: float = 0.0,
    ) -> None:
        world = "BiasBandit"
        self.action_dim = check_count(world, "action_dim", action_dim)
        self.modes = check_count(world, "modes", modes)
        self.gap = check_amount(world, "gap", gap)
        self.curvature = check_amount(world, "curvature", curvature, positive=True)
        self.context_shift = check_amount(world, "context_shift", context_shift)
        self.noise_std = check_amount(world, "noise_std", noise_std)
        if not -1.0 <= noise_slope <= 1.0:
            raise ValueError(f"{world}: noise_slope={noise_slope!r}; expected a number in [-1, 1]")
        self.noise_slope = float(noise_slope)
        spacing = 2.0 / self.modes
        self.centres = np.array([0.5]) if modes == 1 else -1.0 + spacing * (np.arange(self.modes) + 0.5)
        room = 1.0 - float(abs(self.centres).max())
        if self.context_shift > room:
            raise ValueError(
                f"{world}: context_shift={context_shift!r}; expected at most {room:.4g}, so that the optima of "
                f"{modes} modes stay inside the box"
            )
        if self.modes > 1 and self.gap >= self.curvature * spacing**2:
            raise ValueError(
                f"{world}: gap={gap!r}; expected less than {self.curvature * spacing**2:.4g}, curvature times the "
                "squared distance of the modes, so that each is an optimum of its neighbourhood"
            )
        # Where two neighbouring parabolas meet, for context 0.
        middles = 0.5 * (self.centres[1:] + self.centres[:-1]) + 0.5 * self.gap / (self.curvature * spacing)
        self.borders = np.concatenate([[-np.inf], middles, [np.inf]])
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self.action_dim,), np.float32)

    def initial(self, key: Key) -> BanditState:
        """Return a context."""
        context = 2.0 * key.uniform("context") - 1.0
        return BanditState(context, stacked([0.0 * context] * self.action_dim), 0.0 * context)

    def decide(self, state: BanditState, action: Array) -> ChosenAction:
        """Return the action with its expected reward."""
        action = namespace_of(state.context).astype(action, state.context.dtype)
        return ChosenAction(state.context, action, self.action_value(state, action))

    def realise(self, post: ChosenAction, key: Key) -> Transition[BanditState]:
        """Return the noise of the reward, and the end of the episode."""
        noise = self.reward_std(post.action) * key.normal("reward")
        place = self._from_centres(post.context, post.action)
        mode = namespace_of(place).argmax(self._of_modes(place), axis=-1)
        always = post.context <= 1.0
        info = {"regret": -post.reward, "mode": mode}
        return Transition(BanditState(post.context, post.action, post.reward + noise), noise, always, info)

    def action_value(self, state: BanditState, action: Array) -> Array:
        """Return Q(s, a), the expected return `[batch]` of actions `[batch, action_dim]`."""
        xp = namespace_of(state.context)
        best = xp.max(self._of_modes(self._from_centres(state.context, action)), axis=-1)
        return best - self.curvature * xp.sum(action[:, 1:] ** 2, axis=-1)

    def reward_std(self, action: Array) -> Array:
        """Return the standard deviation `[batch]` of the reward of actions `[batch, action_dim]`."""
        return self.noise_std * (1.0 + self.noise_slope * action[:, 0])

    def soft_value(self, context: np.ndarray, temperature: float) -> np.ndarray:
        """Return temperature * log of the integral of exp(Q / temperature) over the box, `[batch]`.

        It is the largest expected reward plus temperature times entropy (in nats, of the density on the box) that any
        policy attains in contexts `[batch]`.

        Raises:
            ValueError: If the temperature is not above 0.
        """
        _require_positive(temperature)
        width = math.sqrt(temperature / self.curvature)
        centres = self.centres + self.context_shift * np.asarray(context, np.float64)[:, None]
        borders = np.clip(self.borders + self.context_shift * np.asarray(context)[:, None], -1.0, 1.0)
        # The integral of exp(-(x - c)^2 / width^2) from one border of each mode's piece to the other.
        masses = erf((borders[:, 1:] - centres) / width) - erf((borders[:, :-1] - centres) / width)
        weights = np.exp(-self.gap * np.arange(self.modes) / temperature)
        first = np.log(0.5 * math.sqrt(math.pi) * width * (weights * masses).sum(-1))
        other = math.log(math.sqrt(math.pi) * width * math.erf(1.0 / width))
        return np.asarray(temperature * (first + (self.action_dim - 1) * other))

    def soft_density(self, context: np.ndarray, action: np.ndarray, temperature: float) -> np.ndarray:
        """Return the density exp((Q(s, a) - soft value) / temperature) `[batch]` of the best policy with entropy.

        Args:
            context: `[batch]`.
            action: `[batch, action_dim]` in [-1, 1].
            temperature: Above 0.

        Raises:
            ValueError: If the temperature is not above 0.
        """
        context, action = np.asarray(context, np.float64), np.asarray(action, np.float64)
        value = self.action_value(BanditState(context, action, 0.0 * context), action)
        return np.asarray(np.exp((value - self.soft_value(context, temperature)) / temperature))

    def observe(self, state: BanditState) -> Array:
        """Return the context, `[batch, 1]`."""
        return state.context[:, None]

    def oracle(self) -> Oracle:
        """Return the optimum, 0."""
        return Oracle(0.0, Estimand("episode_return"), "optimum", "the centre of mode 0, in closed form")

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal"."""
        return {"optimal": CentreOfMode(self, 0)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and the centres of the first and of the last mode."""
        return {
            "random": RandomActor(self.action_space),
            "last-mode": CentreOfMode(self, self.modes - 1),
            "optimal": CentreOfMode(self, 0),
        }

    def render(self, state: BanditState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[180, 240, 3]`: Q along the first dimension, one std of noise, and what the action brought.

        The action is where the blue line stands, its reward the orange point.
        """
        if mode not in self.render_modes:
            return np.asarray(super().render(state, row, mode))
        width, height, margin = 240, 180, 12
        context, action = float(state.context[row]), np.asarray(state.action[row])
        line = np.linspace(-1.0, 1.0, 109)
        actions = np.concatenate([line[:, None], np.tile(action[1:], (len(line), 1))], axis=-1)
        same = np.full(len(line), context)
        values = self.action_value(BanditState(same, actions, same), actions)
        spread = self.reward_std(actions)
        top = 3.0 * self.noise_std + 0.5
        bottom = float((values - spread).min()) - 0.5

        def across(x: float) -> float:
            return width / 2 + x * (width / 2 - margin)

        def down(y: float) -> float:
            return margin + (height - 2 * margin) * (top - min(max(y, bottom), top)) / (top - bottom)

        canvas = rendering.Canvas(width, height)
        for x, value, std in zip(line, values, spread, strict=True):
            canvas.rectangle(across(x) - 1, down(value + std), across(x) + 1, down(value - std), rendering.PALE)
        canvas.line(across(-1.0), down(0.0), across(1.0), down(0.0), rendering.GREEN, 1.0)
        for left, right, low, high in zip(line, line[1:], values, values[1:], strict=False):
            canvas.line(across(left), down(low), across(right), down(high), rendering.INK)
        canvas.line(across(action[0]), height - margin, across(action[0]), margin, rendering.BLUE, 1.0)
        canvas.disc(across(action[0]), down(float(state.reward[row])), 4, rendering.ORANGE)
        return canvas.pixels

    def _from_centres(self, context: Array, action: Array) -> Array:
        """Return the distance of a_0 from the centre of every mode, `[batch, modes]`."""
        return (action[:, 0] - self.context_shift * context)[:, None] - table_like(self.centres, context)

    def _of_modes(self, place: Array) -> Array:
        """Return what every mode's parabola says at distances from their centres, `[batch, modes]`."""
        handicap = table_like(self.gap * np.arange(self.modes, dtype=np.float64), place)
        return -handicap - self.curvature * place**2


def _require_positive(temperature: float) -> None:
    if not temperature > 0.0:
        raise ValueError(f"soft_value: temperature={temperature!r}; expected a number above 0")
