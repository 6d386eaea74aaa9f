"""Ensembles: their trunks equal networks evaluated one by one, and asking a few equals asking all and choosing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from palaestra.agents.nn.critic import target_copy
from palaestra.agents.nn.critic_heads import CategoricalHead, ScalarHead
from palaestra.agents.nn.ensemble import Ensemble, LayerNormMLPs

SPACE = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGES = spaces.Box(0, 255, (6, 6, 1), np.uint8)


def as_modules(trunks: LayerNormMLPs, index: int) -> nn.Sequential:
    """The same network of torch's own layers."""
    layers: list[nn.Module] = []
    for level, (weight, bias) in enumerate(zip(trunks.weights, trunks.biases, strict=True)):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data, linear.bias.data = weight[index].t(), bias[index, 0]
        layers.append(linear)
        if level < len(trunks.gains):
            norm = nn.LayerNorm(weight.shape[2])
            norm.weight.data, norm.bias.data = trunks.gains[level][index, 0], trunks.shifts[level][index, 0]
            layers += [norm, nn.ReLU()]
    return nn.Sequential(*layers)


def test_trunks_equal_networks_of_layers_with_layer_normalisation() -> None:
    torch.manual_seed(0)
    trunks = LayerNormMLPs(3, [5, 16, 16, 2])
    for parameter in (*trunks.gains, *trunks.shifts):
        parameter.data.normal_()
    features = torch.randn(7, 5)
    whole = trunks(features)
    for index in range(3):
        alone = as_modules(trunks, index)(features)
        torch.testing.assert_close(whole[index], alone)
        torch.testing.assert_close(trunks.one(index, features), alone)
    own = torch.randn(3, 7, 5)
    torch.testing.assert_close(trunks(own)[2], as_modules(trunks, 2)(own[2]))


def test_gradients_equal_those_of_the_layers() -> None:
    torch.manual_seed(0)
    trunks = LayerNormMLPs(2, [4, 8, 1])
    features = torch.randn(6, 4)
    trunks(features).square().sum().backward()
    for index in range(2):
        layers = as_modules(trunks, index)
        layers(features).square().sum().backward()
        torch.testing.assert_close(trunks.weights[0].grad[index], layers[0].weight.grad.t())
        torch.testing.assert_close(trunks.gains[0].grad[index, 0], layers[1].weight.grad)


@pytest.mark.parametrize("space", [SPACE, IMAGES], ids=["vector", "image"])
def test_asking_a_few_equals_asking_all_and_choosing(space: spaces.Box) -> None:
    torch.manual_seed(0)
    critics = target_copy(Ensemble(space, 2, (8,), ScalarHead(), 5))
    sample = torch.as_tensor(np.stack([space.sample() for _ in range(6)]))
    action, members = torch.rand(6, 2), torch.tensor([4, 1])
    whole = critics(sample, action).mean()
    torch.testing.assert_close(critics.asked(members, sample, action).mean(), whole[members])
    torch.testing.assert_close(critics.lowest_of(members, sample, action), whole[members].amin(0))
    torch.testing.assert_close(critics.estimate(3, sample, action).mean(), whole[3])


def test_categorical_heads_fit() -> None:
    critics = Ensemble(SPACE, 2, (8,), CategoricalHead(0.0, 1.0, 11), 4)
    said = critics.asked(torch.tensor([0, 3]), torch.zeros(5, 3), torch.zeros(5, 2))
    assert said.log_probs.shape == (2, 5, 11)
    assert said.lowest().mean().shape == (5,)


def test_members_are_drawn_without_replacement_and_evenly() -> None:
    critics = Ensemble(SPACE, 2, (8,), ScalarHead(), 5)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([critics.draw_members(2, generator) for _ in range(3000)])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    counts = torch.bincount(drawn.flatten(), minlength=5) / 6000
    torch.testing.assert_close(counts, torch.full((5,), 0.2), atol=0.02, rtol=0.0)
    assert critics.draw_members(3, None).tolist() == [0, 1, 2]
    for count in (0, 6):
        with pytest.raises(ValueError, match=f"count={count}; expected 1 to 5"):
            critics.draw_members(count, generator)
