"""Several seeds updated as one batch: each equals its single run up to rounding, and keeps everything its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import palaestra
from palaestra.agents.actor_critic.sac import SAC, SACConfig
from palaestra.agents.training.many_seeds import SeedBatch
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.tree import first_difference
from tests.agents import worlds  # noqa: F401  (registers the test worlds)

TOLERANCE = 1e-5
"""Largest difference of a network's parameters in units of its largest parameter, in float32."""
SEEDS = (0, 5, 2)
OFF_POLICY = {"hidden": (24, 24), "batch_size": 16, "buffer_size": 200, "learning_starts": 40}
LARGE_CRITICS = {**OFF_POLICY, "critic_hidden": (24,), "hidden": (24,), "gradient_steps": 1}
ON_POLICY = {"hidden": (24, 24), "batch_size": 16, "n_steps": 32, "num_envs": 2, "n_epochs": 2}
GOALS = "palaestra/MultiGoal2D-v0"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sac": ("sac", GOALS, OFF_POLICY),
    "sac-fixed-temperature": ("sac", GOALS, {**OFF_POLICY, "ent_coef": 0.2}),
    "sac-tanh": ("sac", GOALS, {**OFF_POLICY, "activation": "tanh"}),
    "sac-dict-observations": ("sac", "TestIdentity-v0", {**OFF_POLICY, "hidden": (8,)}),
    "td3": ("td3", GOALS, {**OFF_POLICY, "policy_delay": 3}),
    "dsac": ("dsac", GOALS, {**OFF_POLICY, "train_freq": 1}),
    "dsac-t": ("dsac-t", GOALS, {**OFF_POLICY, "train_freq": 1}),
    "ddpg": ("ddpg", GOALS, OFF_POLICY),
    # Behind a ReLU, batch normalisation undoes the bias of a unit that is always active; Adam blows up what rounds.
    "crossq": ("crossq", GOALS, {**LARGE_CRITICS, "activation": "tanh"}),
    "simba-sac": ("simba-sac", GOALS, LARGE_CRITICS),
    "bro": ("bro", GOALS, {**LARGE_CRITICS, "num_quantiles": 8}),
    "fast-td3": ("fast-td3", GOALS, {**LARGE_CRITICS, "num_envs": 1, "train_freq": 1}),
    "mdpo-off": ("mdpo-off", GOALS, {**OFF_POLICY, "old_policy_interval": 50}),
    "pmoe": ("pmoe", GOALS, {**OFF_POLICY, "experts": 3}),
    "pmoe-ppo": ("pmoe-ppo", GOALS, {**ON_POLICY, "experts": 3}),
    "ppo-box": ("ppo", GOALS, ON_POLICY),
    "ppo-discrete": ("ppo", "palaestra/Kuhn-v0", {**ON_POLICY, "ent_coef": 0.01, "clip_range_vf": 0.2}),
    "ppo-clipped-gradient": ("ppo", "CartPole-v1", {**ON_POLICY, "max_grad_norm": 0.01}),
}
KWARGS = {"TestIdentity-v0": {"kind": "Box", "observation": "dict"}}


def make(case: str, seed: int) -> Any:
    agent_id, env, config = CASES[case]
    kwargs = KWARGS.get(env)
    agent: Any = palaestra.make_agent(
        agent_id, env, seed=seed, preset_name=None, device="cpu", env_kwargs=kwargs, **config
    )
    if agent_id == "ppo":
        agent.gradient = agent.backpropagate
    return agent


def batches_of(agent: Any) -> Iterator[Any]:
    """Batches of an agent's own experience for ever, drawn with its own generators as its loop draws them."""
    while True:
        if hasattr(agent, "replay"):
            yield agent.replay.sample(agent.config.batch_size, agent.replay_generator)
        else:
            yield from agent.rollout.minibatches(agent.config.batch_size, agent.generator)


def prepare(case: str) -> list[Any]:
    """Agents that have some experience; those with rollouts keep a full one."""
    agents = [make(case, seed) for seed in SEEDS]
    for agent in agents:
        if hasattr(agent, "replay"):
            agent.learn(60)
            continue
        agent.improve, agent.rollout.clear = lambda rollout: None, lambda: None
        agent.learn(64)
        del agent.improve, agent.rollout.clear
    return agents


def assert_equal_up_to_rounding(single: Any, one_of_many: Any) -> None:
    ours, theirs = vars(one_of_many), vars(single)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, nn.Module):
            scale = max((float(p.detach().abs().max()) for p in value.parameters()), default=1.0)
            for (path, tensor), own in zip(value.state_dict().items(), ours[name].state_dict().values(), strict=True):
                difference = float((tensor.double() - own.double()).abs().max())
                assert difference <= TOLERANCE * scale, f"{name}.{path} differs by {difference}"
        elif isinstance(value, torch.Generator):
            assert torch.equal(value.get_state(), ours[name].get_state()), name
        elif isinstance(value, torch.optim.Optimizer):
            for mine, other in zip(value.moments, ours[name].moments, strict=True):
                assert float((mine - other).abs().max()) <= TOLERANCE * float(mine.abs().max()), name
            assert value.steps == ours[name].steps, name
        elif isinstance(value, torch.Tensor):
            torch.testing.assert_close(ours[name].detach(), value.detach(), rtol=TOLERANCE, atol=TOLERANCE)


def assert_close(ours: Metrics, theirs: Metrics) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def update_alone(agents: Sequence[Any], updates: int) -> list[Metrics]:
    """Make updates of each agent by itself; return the last metrics of each."""
    last = []
    for agent in agents:
        for batch in islice(batches_of(agent), updates):
            metrics = agent.update(batch)
            agent.num_updates += 1
        last.append(metrics)
    return last


def update_together(batch: SeedBatch, updates: int) -> list[Metrics]:
    """Make updates of all agents as one; return the last metrics of each."""
    sources = [batches_of(agent) for agent in batch.agents]
    for _ in range(updates):
        metrics = batch.update([next(source) for source in sources])
        for agent in batch.agents:
            agent.num_updates += 1
    return metrics


@pytest.mark.parametrize("case", CASES)
def test_each_seed_equals_its_single_run(case: str) -> None:
    singles, many, before = prepare(case), prepare(case), prepare(case)
    alone, together = update_alone(singles, 12), update_together(SeedBatch(many), 12)
    for index in range(len(SEEDS)):
        assert_close(together[index], alone[index])
        assert_equal_up_to_rounding(singles[index], many[index])
    # The comparison says something: updates move parameters by far more, and seeds differ.
    for other in (before[0], many[1]):
        with pytest.raises(AssertionError):
            assert_equal_up_to_rounding(other, many[0])


def test_the_batch_may_shrink() -> None:
    """As when a run has failed: the others go on, and the one that left keeps what it had."""
    singles, many = prepare("sac"), prepare("sac")
    update_together(SeedBatch(many), 3)
    left = {name: value.clone() for name, value in many[1].actor.state_dict().items()}
    rest = [many[0], many[2]]
    update_together(SeedBatch(rest), 3)
    update_alone(singles, 6)
    for single, one_of_many in ((singles[0], many[0]), (singles[2], many[2])):
        assert_equal_up_to_rounding(single, one_of_many)
    assert first_difference(left, dict(many[1].actor.state_dict())) is None


def test_an_agent_of_a_batch_acts_and_is_saved_as_if_it_were_alone(tmp_path: Path) -> None:
    singles, many = prepare("sac"), prepare("sac")
    update_alone(singles, 4)
    update_together(SeedBatch(many), 4)
    observation = many[2].collector.observation
    actions = [agent.predict(observation, deterministic=True)[0] for agent in (singles[2], many[2])]
    np.testing.assert_allclose(*actions, atol=1e-5)
    loaded = palaestra.load(many[2].save(tmp_path / "agent"), GOALS)
    assert first_difference(loaded.state_dict(), many[2].state_dict()) is None
    # It may go on alone.
    alone = [update_alone([agent], 3)[0] for agent in (loaded, many[2])]
    assert first_difference(*alone) is None


def test_a_batch_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    """Saved and loaded agents form a batch whose updates are equal bit for bit."""
    many = prepare("td3")
    update_together(SeedBatch(many), 3)
    loaded = [palaestra.load(agent.save(tmp_path / str(agent.seed)), GOALS) for agent in many]
    update_together(SeedBatch(many), 3)
    update_together(SeedBatch(loaded), 3)
    for agent, again in zip(many, loaded, strict=True):
        assert first_difference(agent.state_dict(), again.state_dict()) is None


def test_agents_that_differ_in_more_than_their_seed_are_refused() -> None:
    first = make("sac", 0)
    with pytest.raises(ValueError, match="no agents"):
        SeedBatch([])
    other = palaestra.make_agent("sac", GOALS, preset_name=None, device="cpu", **{**OFF_POLICY, "gamma": 0.5})
    with pytest.raises(ValueError, match=r"config .*gamma=0\.5"):
        SeedBatch([first, other])
    with pytest.raises(ValueError, match="expected SAC as the first is"):
        SeedBatch([first, make("td3", 0)])


def test_agents_at_different_updates_are_refused() -> None:
    many = prepare("sac")
    many[1].num_updates += 1
    with pytest.raises(ValueError, match=r"num_updates=\[20, 21, 20\]; expected all seeds to be equally far"):
        update_together(SeedBatch(many), 1)


@pytest.mark.parametrize(
    ("agent_id", "config", "message"),
    [
        ("ppo", {"recurrent_size": 4}, "LSTMCell in 'network' has no rule under vmap"),
        ("ppo", {}, "'gradient' of ppo is a PPOGradient, which works on one seed at a time"),
    ],
)
def test_what_cannot_be_vectorised_is_refused(agent_id: str, config: dict[str, Any], message: str) -> None:
    agent = palaestra.make_agent(agent_id, "CartPole-v1", preset_name=None, device="cpu", **config)
    with pytest.raises(TypeError, match=message):
        SeedBatch([agent])


def test_tensors_must_be_changed_in_place() -> None:
    class Replacing(SAC):
        def build(self) -> None:
            super().build()
            self.total = torch.zeros(())

        def update(self, batch: Any) -> Metrics:
            self.total = self.total + 1.0
            return super().update(batch)

    agent = Replacing(GOALS, SACConfig(**OFF_POLICY), device="cpu")
    agent.learn(41)
    with pytest.raises(TypeError, match="update replaced the tensor total; expected it to be changed in place"):
        update_together(SeedBatch([agent]), 1)


def test_draws_of_every_kind_come_from_each_seeds_own_generator() -> None:
    class Drawing(SAC):
        def build(self) -> None:
            super().build()
            self.drawn = torch.zeros(3, 4)

        def update(self, batch: Any) -> Metrics:
            self.drawn[0].normal_(1.0, 2.0, generator=self.generator)
            self.drawn[1].uniform_(generator=self.generator)
            self.drawn[2].exponential_(generator=self.generator)
            return {"mean": self.drawn.mean()}

    many = [Drawing(GOALS, SACConfig(**OFF_POLICY), seed=seed, device="cpu") for seed in SEEDS]
    singles = [Drawing(GOALS, SACConfig(**OFF_POLICY), seed=seed, device="cpu") for seed in SEEDS]
    for agent in (*many, *singles):
        agent.learn(40)
    update_alone(singles, 2)
    update_together(SeedBatch(many), 2)
    assert all(torch.equal(single.drawn, one.drawn) for single, one in zip(singles, many, strict=True))
    assert not torch.equal(many[0].drawn, many[1].drawn)
