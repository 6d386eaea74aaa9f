"""A combination lock behind rich observations: exploration that local search cannot do, with a decoy beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import at_least, namespace_of, table_like
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

DEAD = 2
"""The latent state from which the lock cannot be opened any more; 0 and 1 are good."""

LARGEST_NORMAL = 8.6
"""Above the magnitude of any normal draw: those of the suite's noise come from 53 bits."""


@dataclass(frozen=True)
class LockState:
    """What the lock hides, and the noise of the glimpse of it.

    Attributes:
        latent: 0 or 1 (good) or 2 (dead), int64 `[batch]`.
        step: Number of steps so far, int64 `[batch]`.
        noise: Standard normal noise of the observation, float64 `[batch, 4 + horizon]`.
    """

    latent: Array
    step: Array
    noise: Array


@dataclass(frozen=True)
class LockPicker:
    """Presses the right button with all its might; every time, or else, with chance `epsilon`, acts at random."""

    world: CombinationLock
    epsilon: float = 0.0

    def __call__(self, state: LockState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, buttons]`."""
        xp = namespace_of(state.noise)
        right = table_like(np.eye(self.world.buttons), state.noise)[self.world.right_button(state)]
        if self.epsilon == 0.0:
            return right
        careless = key.uniform("careless") < self.epsilon
        return xp.where(careless[:, None], key.uniform("policy", (self.world.buttons,)), right)


class CombinationLock(Simulator[LockState]):
    """A lock that opens to one right button a step, all the way: any wrong one ends it for good, unseen, for a decoy.

    By chance it opens once in `buttons ** horizon` episodes, while an episode that fails pays the decoy half the time:
    an agent that only climbs what it sees learns the decoy. Data of someone who mostly knows the combination would
    help, if the agent can make use of it.

    **State**: the latent state, good (0 or 1) or dead (2), the step, and the noise of the observation.
    **Observation**: float32 `[size]`, size the least power of two not below `horizon + 4`: the Hadamard transform
    (rows of 1 and -1) of the latent state, one-hot `[3]`, beside the step, one-hot `[horizon + 1]`, each entry with
    normal noise of standard deviation `noise_std`, filled up with zeros. **Action**: float32 `[buttons]` in [0, 1]:
    how hard each button is pressed; the one that gives way is drawn from softmax(action / temperature).

    **Dynamics**: the right button keeps the state good and swaps 0 and 1 with chance `switch_probability`; any other
    makes it dead for ever. The right buttons, one for each step and good state, are drawn from `combination`, equal for
    all rows and episodes.

    **Reward**: at the last step 1 if the right button was pressed in a good state, otherwise `decoy_reward` with
    chance `decoy_probability`; before it 0.

    **Start**: good, 0 or 1 with equal chance. **End**: terminated after `horizon` steps. **Masks**: none.

    **Info**: `latent` (int64), `success` (bool: open, at the end).

    **Noise**: draws "start", "button" (uniform `[buttons]`), "switch", "decoy", "glimpse" (normal `[horizon + 4]`).

    **Oracle**: `p**horizon + (1 - p**horizon) * decoy_reward * decoy_probability` with
    `p = 1 / (1 + (buttons - 1) * exp(-1 / temperature))`: the value grows with the chance of opening, and no action
    makes a button likelier than 1 for it and 0 for all others.

    **Experts**: "optimal", which reads the latent state. **Reference policies**: "random", "optimal" and
    "epsilon-greedy", which is careless once in `horizon` steps: the behaviour of the paper's offline data.

    **Version history**: v0, first release.

    Args:
        horizon: Steps of the combination.
        buttons: Number of buttons, at least 2.
        temperature: Of the softmax, above 0.
        switch_probability: Chance that a good state becomes the other, 0 to 1.
        decoy_reward: What a failed episode may pay, 0 to 1.
        decoy_probability: Chance that it does, 0 to 1.
        noise_std: Standard deviation of the noise before the transform.
        combination: Seed of the right buttons, at least 0.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Zhou, Sekhari, Song and Sun, "Offline data enhanced on-policy policy gradient with provable guarantees",
    arXiv 2311.08384, and its published code, in which the decoy too is paid at the last step alone. There the noise
    leaves out one entry, and actions outside [0, 1] are not clipped.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 2
    draws: ClassVar[tuple[str, ...]] = ("start", "button", "switch", "decoy", "glimpse", "careless")

    def __init__(
        self,
        horizon: int = 5,
        buttons: int = 10,
        temperature: float = 0.1,
        switch_probability: float = 0.5,
        decoy_reward: float = 0.1,
        decoy_probability: float = 0.5,
        noise_std: float = 0.1,
        combination: int = 0,
    ) -> None:
        world = "CombinationLock"
        self.horizon = check_count(world, "horizon", horizon)
        self.buttons = check_count(world, "buttons", buttons, 2)
        self.temperature = check_amount(world, "temperature", temperature, positive=True)
        self.switch_probability = _check_share(world, "switch_probability", switch_probability)
        self.decoy_reward = _check_share(world, "decoy_reward", decoy_reward)
        self.decoy_probability = _check_share(world, "decoy_probability", decoy_probability)
        self.noise_std = check_amount(world, "noise_std", noise_std)
        self.combination = check_count(world, "combination", combination, 0)
        entries = horizon + 4
        self.size = 1 << (entries - 1).bit_length()
        drawn = CounterKey([self.combination]).integers("combination", self.buttons, (2, self.horizon))
        self._right = np.asarray(drawn[0])
        """The right button in each good state at each step, int64 `[2, horizon]`."""
        bound = 2.0 + self.noise_std * LARGEST_NORMAL * entries
        self.observation_space = gym.spaces.Box(-bound, bound, (self.size,), np.float32)
        self.action_space = gym.spaces.Box(0.0, 1.0, (self.buttons,), np.float32)

    def right_button(self, state: LockState) -> Array:
        """Return the right button in each row `[batch]`; in dead ones that of the good state 1."""
        latent, step = (
            namespace_of(array).clip(array, None, highest)
            for array, highest in ((state.latent, 1), (state.step, self.horizon - 1))
        )
        return table_like(self._right, state.latent)[latent, step]

    def initial(self, key: Key) -> LockState:
        """Return a good state."""
        latent = key.integers("start", 2)
        return LockState(latent, 0 * latent, key.normal("glimpse", (self.horizon + 4,)))

    def step(self, state: LockState, action: Array, key: Key) -> Transition[LockState]:
        """Return what the button that gives way leads to."""
        xp = namespace_of(state.noise)
        # The least of exponential times with rates softmax(action / temperature): Gumbel's maximum.
        times = at_least(-xp.log1p(-key.uniform("button", (self.buttons,))), 1e-300)
        button = xp.argmax(xp.astype(action, xp.float64) / self.temperature - xp.log(times), axis=-1)
        right = (button == self.right_button(state)) & (state.latent != DEAD)
        switched = key.uniform("switch") < self.switch_probability
        good = xp.where(switched, 1 - state.latent, state.latent)
        latent = xp.where(right, good, xp.full_like(good, DEAD))
        last = state.step + 1 == self.horizon
        decoy = self.decoy_reward * xp.astype(key.uniform("decoy") < self.decoy_probability, xp.float64)
        reward = xp.astype(last, xp.float64) * xp.where(right, xp.ones_like(decoy), decoy)
        return Transition(LockState(latent, state.step + 1, key.normal("glimpse", (self.horizon + 4,))), reward, last)

    def observe(self, state: LockState) -> Array:
        """Return the glimpses `[batch, size]`."""
        xp = namespace_of(state.noise)
        latents, steps = np.eye(3), np.eye(self.horizon + 1)
        shown = [table_like(latents, state.noise)[state.latent], table_like(steps, state.noise)[state.step]]
        entries = xp.concat(shown, axis=1) + self.noise_std * state.noise
        rest = xp.zeros_like(entries[:, :1])
        return hadamard_transform(xp.concat([entries, *[rest] * (self.size - self.horizon - 4)], axis=1))

    def information(self, state: LockState) -> Mapping[str, Array]:
        """Return `latent` and `success`, `[batch]` each."""
        return {"latent": state.latent, "success": (state.step == self.horizon) & (state.latent != DEAD)}

    def oracle(self) -> Oracle:
        """Return the best mean return, by the formula of the class docstring."""
        opened = (1.0 / (1.0 + (self.buttons - 1) * math.exp(-1.0 / self.temperature))) ** self.horizon
        value = opened + (1.0 - opened) * self.decoy_reward * self.decoy_probability
        return Oracle(value, Estimand("episode_return"), "optimum", "the likeliest right button at every step")

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal"."""
        return {"optimal": LockPicker(self)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", the behaviour of the offline data, and the optimal policy."""
        careless = LockPicker(self, 1.0 / self.horizon)
        return {"random": RandomActor(self.action_space), "epsilon-greedy": careless, **self.experts()}

    def render(self, state: LockState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return the latent states by step, with the right buttons in them and the present one marked."""
        latent, step = int(state.latent[row]), int(state.step[row])
        labels = [
            *[[str(button) for button in line] + ["open"] for line in self._right],
            ["-"] * self.horizon + ["shut"],
        ]
        if mode == "ansi":
            return "\n".join(
                " ".join(f"[{x}]" if (line, column) == (latent, step) else f" {x} " for column, x in enumerate(row_))
                for line, row_ in enumerate(labels)
            )
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        side = 40
        canvas = rendering.Canvas(side * (self.horizon + 1), side * 3, rendering.INK)
        for line, words in enumerate(labels):
            for column, word in enumerate(words):
                left, top = side * column, side * line
                color = (
                    rendering.PALE if line == DEAD else rendering.GREEN if column == self.horizon else rendering.WHITE
                )
                canvas.rectangle(left + 1, top + 1, left + side - 1, top + side - 1, color)
                if (line, column) == (latent, step):
                    canvas.disc(left + side / 2, top + side / 2, 14, rendering.ORANGE)
                canvas.text(left + 6, top + 14, word, rendering.INK)
        return canvas.pixels


def hadamard_transform(entries: Array) -> Array:
    """Return the product of arrays `[batch, 2**k]` with Sylvester's matrix of 1 and -1, by sums and differences.

    It is its own inverse, up to the factor 2**k.
    """
    xp = namespace_of(entries)
    size, half = entries.shape[1], 1
    while half < size:
        pairs = xp.reshape(entries, (-1, size // (2 * half), 2, half))
        first, second = pairs[:, :, 0, :], pairs[:, :, 1, :]
        entries = xp.reshape(xp.stack([first + second, first - second], axis=2), (-1, size))
        half *= 2
    return entries


def _check_share(world: str, name: str, value: float) -> float:
    share = check_amount(world, name, value)
    if share > 1.0:
        raise ValueError(f"{world}: {name}={value!r}; expected a number from 0 to 1")
    return share
