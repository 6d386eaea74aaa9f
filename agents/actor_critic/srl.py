"""Sequence reinforcement learning: decide once, act for several steps.

Patel and Siegelmann, "Overcoming Slow Decision Frequencies in Continuous Control: Model-Based Sequence Reinforcement
Learning for Model-Free Control", ICLR 2025, as its published code has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Generator, Tensor

from palaestra.agents.losses.values import SquaredError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import CriticBank, held_fixed, polyak_update, target_copy
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.sequence_actor import SequenceActor
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.nn.stacked import SingleMLP
from palaestra.agents.registry import register_agent
from palaestra.agents.training.collector import Step
from palaestra.agents.training.maximum_entropy import MaximumEntropyAgent, MaximumEntropyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class SRLConfig(MaximumEntropyConfig):
    """Defaults of the paper's code."""

    sequence_length: int = 4
    """J, the actions of a sequence that the actor is trained on; it can be unrolled for longer."""
    model_hidden: tuple[int, ...] = (400, 300)
    """Widths of the hidden layers of the model."""
    learning_starts: int = 10_000
    """Env steps of uniformly random actions before the first update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("sequence_length", self.sequence_length >= 1, "an integer of at least 1")
        self.require("model_hidden", all(width >= 1 for width in self.model_hidden), "positive widths")


@register_agent("srl")
class SRL(MaximumEntropyAgent):
    """Soft actor-critic whose actor emits a sequence of actions from one observation.

    The critic stays one-step and sees true transitions alone. A learnt model stands in for the states between the
    actions of a sequence, only while the actor is trained ("temporal recall"): in training the agent decides at every
    step. `predict_sequence` decides for as many steps as it is asked to.

    The recurrent state of `predict` is the action executed before. The published code draws another batch for model
    and actor; here they share the critics'. Its latent form is not built: the paper leaves out its consistency weight.
    """

    config: SRLConfig
    config_class = SRLConfig
    actor: SequenceActor  # type: ignore[assignment]  # It is unrolled, not asked for one distribution.

    def _check_spaces(self) -> None:
        super()._check_spaces()
        box = self.observation_space
        if not (isinstance(box, spaces.Box) and len(box.shape) == 1 and np.issubdtype(box.dtype, np.floating)):
            raise TypeError(
                f"{self.agent_id}: observation space {box}; expected a Box of floats in one dimension, which its model "
                "can predict"
            )

    def build(self) -> None:
        """Create the actor, the critics and the model with their targets, and the temperature."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        assert space.shape is not None
        self.actor = SequenceActor(space, dim, c.hidden, c.activation, c.encoder)
        self.critics = CriticBank(space, dim, c.hidden, activation=c.activation, encoder=c.encoder)
        self.model = SingleMLP([space.shape[0] + dim, *c.model_hidden, space.shape[0]], c.activation)
        self.target_critics, self.target_model = target_copy(self.critics), target_copy(self.model)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.model_optimizer = self.optimizer(self.model)
        self.build_temperature()
        self.previous_action = torch.zeros(self.num_envs, dim, device=self.device)

    def update(self, batch: Batch) -> Metrics:
        """Step the temperature, the critics, the model, the actor and the targets."""
        c = self.config
        assert isinstance(batch.observation, Tensor)
        assert isinstance(batch.next_observation, Tensor)
        assert batch.previous_action is not None
        alpha = self.alpha
        actions, log_probs = self.actor(batch.observation, batch.previous_action, c.sequence_length, self.generator)
        self.step_temperature(log_probs)

        with torch.no_grad():
            next_actions, next_log_probs = self.actor(batch.next_observation, batch.action, 1, self.generator)
            next_value = self.target_critics(batch.next_observation, next_actions[0]).amin(0)
            target = td_target(batch.reward, batch.terminated, next_value - alpha * next_log_probs[0], c.gamma)
        inputs = batch.observation, batch.action
        values, critic_loss = regress(self.critics, inputs, target, SquaredError(0.5), self.critic_optimizer)

        predicted = self.model(torch.cat([batch.observation, batch.action], -1))
        model_loss = F.mse_loss(predicted, batch.next_observation)
        minimise(model_loss, self.model_optimizer)

        actor_loss = self.actor_loss(batch.observation, actions, log_probs, alpha)
        minimise(actor_loss, self.actor_optimizer)

        polyak_update(self.critics, self.target_critics, c.tau)
        polyak_update(self.model, self.target_model, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": actor_loss.detach(),
            "train/model_loss": model_loss.detach(),
            "train/ent_coef": alpha,
            "train/entropy": -log_probs.detach().mean(),
            "train/q_mean": values.mean(),
        }

    def actor_loss(self, observation: Tensor, actions: Tensor, log_probs: Tensor, alpha: Tensor) -> Tensor:
        """Return the mean of sum_j alpha log pi(a_j) - min_i Q_i(x_j, a_j), x_0 = s and x_{j+1} = f'(x_j, a_j).

        Args:
            observation: s `[batch, size]`.
            actions: `[J, batch, action_dim]`.
            log_probs: `[J, batch]`.
            alpha: The temperature.
        """
        states = self.imagined(observation, actions)
        with held_fixed(self.critics):
            values = self.critics(states.flatten(0, 1), actions.flatten(0, 1)).amin(0)
        return (alpha * log_probs - values.view_as(log_probs)).sum(0).mean()

    @torch.no_grad()
    def imagined(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Return the states x_0, ..., x_{J-1} `[J, batch, size]` in which the actions are taken, by the model."""
        states = [observation]
        for action in actions[:-1]:
            states.append(self.target_model(torch.cat([states[-1], action], -1)))
        return torch.stack(states)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the first action of a sequence, a sample or the mode, at the start of an episode."""
        return self._sequence(observation, self._previous(observation, None, None), 1, generator)[0]

    def explore(self, observation: Observation) -> Tensor:
        """Return a sample of the first action of a sequence, given what was executed before."""
        return self._sequence(observation, self._executed(), 1, self.generator)[0]

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return the actions to collect with, and those before them, which are stored too."""
        return {**super().decide(), "previous_action": self._executed()}

    def interact(self) -> tuple[dict[str, Any], Step]:
        """Take a step, and remember the action."""
        decision, step = super().interact()
        self.previous_action = decision["action"]
        return decision, step

    @torch.no_grad()
    def predict_sequence(
        self,
        observation: Any,
        length: int,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        generator: Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return env actions `[batch, length, ...]` for the next steps of a batch of rows, and the state after them.

        Args:
            observation: `[batch, size]`.
            length: Actions to decide on, at least 1.
            state: What `predict` or this method returned before.
            episode_start: Bools `[batch]`, true where an episode starts.
            deterministic: Take modes instead of samples.
            generator: Noise of samples; the agent's own prediction stream by default.
        """
        batch, _ = self._as_batch(observation)
        tensors = self.normalised(to_tensor(batch, self.device))
        noise = None if deterministic else (generator or self.predict_generator)
        actions = self._sequence(tensors, self._previous(tensors, state, episode_start), length, noise).transpose(0, 1)
        flat = self.action_map.to_env(actions.flatten(0, 1).cpu().numpy())
        return flat.reshape(*actions.shape[:2], *flat.shape[1:]), actions[:, -1].cpu().numpy()

    def _predict(
        self,
        observation: Observation,
        state: Any,
        starts: np.ndarray | None,
        masks: np.ndarray | None,
        noise: Generator | None,
    ) -> tuple[Tensor, Any]:
        action = self._sequence(observation, self._previous(observation, state, starts), 1, noise)[0]
        return action, action.cpu().numpy()

    def _sequence(self, observation: Observation, previous: Tensor, length: int, noise: Generator | None) -> Tensor:
        if noise is None:
            return self.actor.mode(observation, previous, length)
        actions: Tensor = self.actor(observation, previous, length, noise)[0]
        return actions

    def _executed(self) -> Tensor:
        start = torch.as_tensor(self.collector.episode_start, device=self.device)
        return self.previous_action.masked_fill(start.unsqueeze(-1), 0.0)

    def _previous(self, observation: Observation, state: Any, starts: np.ndarray | None) -> Tensor:
        assert isinstance(observation, Tensor)
        if state is None:
            return torch.zeros(len(observation), self.action_dim, device=self.device)
        previous = torch.as_tensor(state, device=self.device)
        if starts is None:
            return previous
        return previous.masked_fill(torch.as_tensor(starts, device=self.device).unsqueeze(-1), 0.0)
