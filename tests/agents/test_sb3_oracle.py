"""On the same weights, batch and noise, our updates are stable-baselines3's.

Both sides take one plain gradient step of size 1, so that equal parameters afterwards mean equal gradients. Where we
differ on purpose: SB3 adds 1e-6 inside the logarithm of SAC's squashing term, ours is exact (set to 0 there); SB3's PPO
acts in env units, ours in [-1, 1] (the pendulum's torque is given in units of its bound).
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.agents.memory.replay import Batch
from palaestra.agents.registry import make_agent

sb3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.logger import configure  # noqa: E402
from stable_baselines3.common.type_aliases import ReplayBufferSamples  # noqa: E402

BATCH = 64
TOLERANCE = 1e-5


def copy_linear(target: torch.nn.Module, *sources: torch.nn.Module) -> None:
    with torch.no_grad():
        target.weight.copy_(torch.cat([source.weight for source in sources]))
        target.bias.copy_(torch.cat([source.bias for source in sources]))


def copy_critics(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    for index, trunk in enumerate(ours.trunks):
        for layer in (0, 2, 4):
            copy_linear(trunk[layer], getattr(theirs, f"qf{index}")[layer])


def assert_linear_equal(ours: torch.nn.Module, *theirs: torch.nn.Module) -> None:
    torch.testing.assert_close(ours.weight, torch.cat([t.weight for t in theirs]), atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(ours.bias, torch.cat([t.bias for t in theirs]), atol=TOLERANCE, rtol=TOLERANCE)


def assert_critics_equal(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    for index, trunk in enumerate(ours.trunks):
        for layer in (0, 2, 4):
            assert_linear_equal(trunk[layer], getattr(theirs, f"qf{index}")[layer])


def random_batch() -> tuple[Batch, ReplayBufferSamples]:
    generator = torch.Generator().manual_seed(3)
    observation, following = torch.randn(2, BATCH, 3, generator=generator)
    action = torch.rand(BATCH, 1, generator=generator) * 2 - 1
    reward = torch.randn(BATCH, generator=generator)
    terminated = torch.rand(BATCH, generator=generator) < 0.2
    ours = Batch(observation, action, reward, following, terminated, torch.zeros_like(terminated))
    theirs = ReplayBufferSamples(observation, action, following, terminated.float()[:, None], reward[:, None])
    return ours, theirs


def off_policy_pair(name: str, **config):
    kind = {"sac": sb3.SAC, "td3": sb3.TD3}[name]
    theirs = kind(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=1.0,
        policy_kwargs={"net_arch": [32, 32], "optimizer_class": torch.optim.SGD},
        seed=0,
        device="cpu",
        **config,
    )
    theirs.set_logger(configure(None, []))
    ours = make_agent(name, "Pendulum-v1", preset_name=None, hidden=(32, 32), device="cpu")
    copy_critics(ours.critics, theirs.critic)
    copy_critics(ours.target_critics, theirs.critic_target)
    for optimizer in ("actor_optimizer", "critic_optimizer", "alpha_optimizer"):
        if hasattr(ours, optimizer):
            parameters = getattr(ours, optimizer).param_groups[0]["params"]
            setattr(ours, optimizer, torch.optim.SGD(parameters, lr=1.0))
    ours.generator = None  # torch's global generator, which SB3 draws from
    batch, samples = random_batch()
    theirs.replay_buffer.sample = lambda *args, **kwargs: samples
    return ours, theirs, batch


def logged(theirs) -> dict[str, float]:
    return theirs.logger.name_to_value


def test_sac_update_equals_sb3() -> None:
    ours, theirs, batch = off_policy_pair("sac")
    theirs.actor.action_dist.epsilon = 0.0
    theirs.ent_coef_optimizer = torch.optim.SGD([theirs.log_ent_coef], lr=1.0)
    for layer in (0, 2):
        copy_linear(ours.actor.trunk[layer], theirs.actor.latent_pi[layer])
    copy_linear(ours.actor.trunk[4], theirs.actor.mu, theirs.actor.log_std)

    torch.manual_seed(7)
    theirs.train(gradient_steps=1, batch_size=BATCH)
    torch.manual_seed(7)
    metrics = ours.update(batch)

    assert metrics["train/critic_loss"].item() == pytest.approx(
        logged(theirs)["train/critic_loss"], abs=TOLERANCE, rel=TOLERANCE
    )
    assert metrics["train/actor_loss"].item() == pytest.approx(
        logged(theirs)["train/actor_loss"], abs=TOLERANCE, rel=TOLERANCE
    )
    assert ours.log_alpha.item() == pytest.approx(theirs.log_ent_coef.item(), abs=TOLERANCE, rel=TOLERANCE)
    assert_critics_equal(ours.critics, theirs.critic)
    assert_critics_equal(ours.target_critics, theirs.critic_target)
    for layer in (0, 2):
        assert_linear_equal(ours.actor.trunk[layer], theirs.actor.latent_pi[layer])
    assert_linear_equal(ours.actor.trunk[4], theirs.actor.mu, theirs.actor.log_std)


@pytest.mark.parametrize("updates", [1, 2])
def test_td3_update_equals_sb3(updates: int) -> None:
    """Two updates, so that the delayed actor and target steps are compared too."""
    ours, theirs, batch = off_policy_pair("td3")
    for mine, peer in ((ours.actor, theirs.actor), (ours.target_actor, theirs.actor_target)):
        for layer in (0, 2, 4):
            copy_linear(mine.trunk[layer], peer.mu[layer])

    torch.manual_seed(7)
    theirs.train(gradient_steps=updates, batch_size=BATCH)
    torch.manual_seed(7)
    for _ in range(updates):
        metrics = ours.update(batch)
        ours.num_updates += 1

    assert_critics_equal(ours.critics, theirs.critic)
    assert_critics_equal(ours.target_critics, theirs.critic_target)
    for mine, peer in ((ours.actor, theirs.actor), (ours.target_actor, theirs.actor_target)):
        for layer in (0, 2, 4):
            assert_linear_equal(mine.trunk[layer], peer.mu[layer])
    if updates == 2:
        assert metrics["train/actor_loss"].item() == pytest.approx(
            logged(theirs)["train/actor_loss"], abs=TOLERANCE, rel=TOLERANCE
        )


class UnitTorque(gym.ActionWrapper):
    """The pendulum with torque in [-1, 1], so that both libraries' policies act in the same units."""

    def __init__(self) -> None:
        super().__init__(gym.make("Pendulum-v1"))
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def action(self, action: np.ndarray) -> np.ndarray:
        return 2.0 * action


class ClippedSGD(torch.optim.SGD):
    """Plain steps on gradients clipped as both libraries clip them; ours leaves clipping to the optimiser."""

    def step(self, closure=None) -> None:
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.5)
        super().step()


@pytest.mark.parametrize("clip_range_vf", [None, 0.05])
def test_ppo_update_equals_sb3(clip_range_vf: float | None) -> None:
    steps = 128
    theirs = sb3.PPO(
        "MlpPolicy",
        UnitTorque(),
        n_steps=steps,
        batch_size=steps,
        n_epochs=1,
        learning_rate=1.0,
        ent_coef=0.01,
        clip_range_vf=clip_range_vf,
        policy_kwargs={"optimizer_class": torch.optim.SGD},
        seed=0,
        device="cpu",
    )
    theirs.set_logger(configure(None, []))
    theirs._setup_learn(steps)
    theirs.collect_rollouts(theirs.env, theirs._setup_learn(steps)[1], theirs.rollout_buffer, steps)
    buffer = theirs.rollout_buffer
    # Weights move between collection and update, so that ratios differ from 1 and clipping is exercised.
    with torch.no_grad():
        for parameter in theirs.policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))

    ours = make_agent(
        "ppo", "Pendulum-v1", preset_name=None, n_steps=steps, ent_coef=0.01, clip_range_vf=clip_range_vf, device="cpu"
    )
    network, policy = ours.network, theirs.policy
    pairs = [
        (network.policy[0], policy.mlp_extractor.policy_net[0]),
        (network.policy[2], policy.mlp_extractor.policy_net[2]),
        (network.policy[4], policy.action_net),
        (network.value[0], policy.mlp_extractor.value_net[0]),
        (network.value[2], policy.mlp_extractor.value_net[2]),
        (network.value[4], policy.value_net),
    ]
    for mine, peer in pairs:
        copy_linear(mine, peer)
    with torch.no_grad():
        network.log_std.copy_(policy.log_std)
    ours.network_optimizer = ClippedSGD(network.parameters(), lr=1.0)
    batch = {
        "observation": torch.as_tensor(buffer.observations[:, 0]),
        "action": torch.as_tensor(buffer.actions[:, 0]),
        "log_prob": torch.as_tensor(buffer.log_probs[:, 0]),
        "value": torch.as_tensor(buffer.values[:, 0]),
        "advantage": torch.as_tensor(buffer.advantages[:, 0]),
        "target": torch.as_tensor(buffer.returns[:, 0]),
    }
    theirs.train()
    metrics = ours.update(batch)

    for mine, peer in pairs:
        assert_linear_equal(mine, peer)
    torch.testing.assert_close(network.log_std, policy.log_std, atol=TOLERANCE, rtol=TOLERANCE)
    names = {"policy_gradient_loss": "policy_loss", "value_loss": "value_loss", "approx_kl": "approx_kl"}
    for peer_name, name in names.items():
        assert metrics[f"train/{name}"].item() == pytest.approx(
            logged(theirs)[f"train/{peer_name}"], abs=TOLERANCE, rel=TOLERANCE
        )
    assert metrics["train/clip_fraction"].item() > 0


def test_advantages_equal_sb3() -> None:
    """SB3 adds gamma V(final) to the reward where an episode is truncated; ours keeps the two endings apart."""
    from stable_baselines3.common.buffers import RolloutBuffer

    from palaestra.agents.losses.advantages import generalised_advantages

    generator = np.random.default_rng(0)
    steps, envs, gamma, gae_lambda = 50, 4, 0.97, 0.9
    reward, value, final_value = generator.normal(size=(3, steps, envs)).astype(np.float32)
    terminated = generator.random((steps, envs)) < 0.1
    truncated = (generator.random((steps, envs)) < 0.1) & ~terminated
    done = terminated | truncated
    last_value = generator.normal(size=envs).astype(np.float32)
    next_value = np.where(done, final_value, np.concatenate([value[1:], last_value[None]]))

    box = gym.spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(steps, box, box, device="cpu", gae_lambda=gae_lambda, gamma=gamma, n_envs=envs)
    starts = np.concatenate([np.zeros((1, envs)), done[:-1]])
    for t in range(steps):
        bonus = gamma * final_value[t] * truncated[t]
        zeros = np.zeros((envs, 1), np.float32)
        buffer.add(zeros, zeros, reward[t] + bonus, starts[t], torch.as_tensor(value[t]), torch.zeros(envs))
    buffer.compute_returns_and_advantage(torch.as_tensor(last_value), done[-1])

    ours = generalised_advantages(
        *(torch.as_tensor(a) for a in (reward, value, next_value, terminated, truncated)), gamma, gae_lambda
    )
    np.testing.assert_allclose(ours.numpy(), buffer.advantages, atol=TOLERANCE)
