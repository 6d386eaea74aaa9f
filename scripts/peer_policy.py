"""A peer's model behind the suite's `predict`, so that evaluation treats it like an agent of ours."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch


class PeerPolicy:
    """A model of stable-baselines3 or sb3-contrib, given the raw observations of the env.

    Args:
        model: The model; if its env normalises, observations are normalised by its present statistics.
        mission: For MiniGrid, what FlatObsWrapper appends to the flattened image.
    """

    def __init__(self, model: Any, mission: np.ndarray | None = None) -> None:
        self.model, self.mission = model, mission
        self.normalizer = model.get_vec_normalize_env()
        self.masked = "action_masks" in inspect.signature(model.predict).parameters

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Any, Any]:
        """Return the model's actions and state; masks reach only models that know them.

        Noise comes from the generator, if there is one, and none of training's is used then.
        """
        if self.mission is not None:
            image = observation["image"].reshape(len(observation["image"]), -1)
            observation = np.concatenate([image, np.broadcast_to(self.mission, (len(image), len(self.mission)))], 1)
        if self.normalizer is not None:
            observation = self.normalizer.normalize_obs(observation)
        known: dict[str, Any] = {"state": state, "episode_start": episode_start, "deterministic": deterministic}
        if self.masked:
            known["action_masks"] = action_masks
        with torch.random.fork_rng(devices=[], enabled=generator is not None):
            if generator is not None:
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            actions, state = self.model.predict(observation, **known)
        return actions, state
