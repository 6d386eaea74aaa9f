"""Captured updates equal plain ones: on a CPU with recorded operations repeated blindly, on a GPU with CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from palaestra.agents.memory.improvable import ImprovedActions
from palaestra.agents.registry import make_agent
from palaestra.agents.training.acceleration import LONGEST, WARM_UP, Updates, accelerate
from tests.agents.test_laws import assert_same, fingerprint

ENVS = {
    "sac": "Pendulum-v1",
    "td3": "Pendulum-v1",
    "dsac": "Pendulum-v1",
    "dsac-t": "Pendulum-v1",
    "ddpg": "Pendulum-v1",
    "crossq": "Pendulum-v1",
    "simba-sac": "Pendulum-v1",
    "bro": "Pendulum-v1",
    "fast-td3": "Pendulum-v1",
    "mdpo-off": "Pendulum-v1",
    "pmoe": "Pendulum-v1",
    "dacer": "Pendulum-v1",
    "dipo": "Pendulum-v1",
    "qsm": "Pendulum-v1",
    "qvpo": "Pendulum-v1",
    "dqn": "CartPole-v1",
    "qr-dqn": "CartPole-v1",
}
"""Every off-policy agent and a world for it."""
OWN: dict[str, dict[str, Any]] = {
    **{agent_id: {"critic_hidden": (16, 16)} for agent_id in ("crossq", "simba-sac")},
    "bro": {"critic_hidden": (16, 16), "num_quantiles": 8, "resets": (35,)},
    "fast-td3": {"critic_hidden": (16, 16), "num_envs": 1},
    "mdpo-off": {"old_policy_interval": 30},
    "dacer": {"levels": 3, "entropy_interval": 25, "entropy_states": 4, "entropy_samples": 10},
    "dipo": {"levels": 3, "climbing_steps": 3},
    "qsm": {"levels": 3},
    "qvpo": {"levels": 3, "own_actions": 4, "evaluation_actions": 4},
}
"""What keeps an agent small."""
LOOKS_AT_DATA = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "unique")


class Recording(TorchDispatchMode):
    """Keeps every operation with the very tensors it read and wrote, as a captured graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in LOOKS_AT_DATA, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def repeat(self) -> None:
        """Run the operations again: each result goes to the memory in which it lay at first."""
        for func, args, kwargs, result in self.operations:
            given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.untyped_storage().data_ptr() not in given:
                    old.copy_(new)


class Recorder:
    """Captures on a CPU. A capture runs nothing, so that whatever recording changed is put back."""

    def __init__(self, agent: Any) -> None:
        self.agent, self.warmed, self.sizes = agent, 0, []

    def warm_up(self, update: Callable[[], None]) -> None:
        self.warmed += 1
        update()

    def capture(self, updates: Callable[[], None], generators: Any) -> Callable[[], None]:
        agent, before = self.agent, self.agent.num_updates
        tensors = [t for t in tree_leaves([o.state_dict() for o in parts(agent)]) if isinstance(t, torch.Tensor)]
        tensors += [agent.metrics.sums, agent.metrics.first_bad, agent.updates.number]
        tensors += [value for value in vars(agent).values() if isinstance(value, torch.Tensor)]
        kept = [tensor.detach().clone() for tensor in tensors]
        states = [generator.get_state() for generator in generators]
        with Recording() as recording:
            updates()
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        self.sizes.append(agent.num_updates - before)

        @torch.no_grad()
        def launch() -> None:
            recording.repeat()

        return launch


def parts(agent: Any) -> list[Any]:
    return [v for v in vars(agent).values() if isinstance(v, torch.nn.Module | torch.optim.Optimizer | ImprovedActions)]


def make(agent_id: str, **config: Any) -> Any:
    settings = {
        "hidden": (16, 16),
        "batch_size": 8,
        "buffer_size": 30,
        "learning_starts": 20,
        "train_freq": 1,
        "gradient_steps": 1,
        **OWN.get(agent_id, {}),
        **config,
    }
    return make_agent(agent_id, ENVS[agent_id], seed=3, device="cpu", preset_name=None, **settings)


@pytest.mark.parametrize("gradient_steps", [1, 5])
@pytest.mark.parametrize("agent_id", ENVS)
def test_recorded_updates_repeated_blindly_equal_plain_ones(agent_id: str, gradient_steps: int) -> None:
    """Bit for bit, over a replay that still grows and then wraps around."""
    config = {"gradient_steps": gradient_steps, "normalize_observation": agent_id == "sac"}
    plain, recorded = make(agent_id, **config), make(agent_id, **config)
    recorder = Recorder(recorded)
    recorded.updates = Updates(recorded, recorder)
    for agent in (plain, recorded):
        agent.learn(46)
    assert_same(plain, recorded)
    assert plain.num_updates == 26 * gradient_steps
    assert recorder.warmed == max(WARM_UP, plain.update_cycle)
    assert set(recorder.sizes) == {1} if gradient_steps == 1 else {1, 4} == set(recorder.sizes)


def test_many_updates_are_launched_in_captured_pieces() -> None:
    agent = make("sac")
    agent.learn(30)
    recorder = Recorder(agent)
    agent.updates = Updates(agent, recorder)
    agent.updates_owed = WARM_UP + 3 * LONGEST + 5
    before = agent.num_updates
    agent.make_updates()
    assert (agent.updates_owed, agent.num_updates - before) == (0, WARM_UP + 3 * LONGEST + 5)
    assert recorder.sizes == [LONGEST, 4, 1]


def test_delayed_policies_are_captured_branch_by_branch() -> None:
    plain, recorded = make("td3", policy_delay=3), make("td3", policy_delay=3)
    recorder = Recorder(recorded)
    recorded.updates = Updates(recorded, recorder)
    for agent in (plain, recorded):
        agent.learn(46)
    assert_same(plain, recorded)
    assert recorder.sizes == [1, 1, 1]


def test_a_new_learning_rate_is_captured_anew() -> None:
    plain, recorded = make("sac"), make("sac")
    recorder = Recorder(recorded)
    recorded.updates = Updates(recorded, recorder)
    for agent in (plain, recorded):
        agent.learn(50)
        agent.critic_optimizer.param_groups[0]["lr"] = 1e-2
        agent.learn(30, reset_num_timesteps=False)
    assert recorder.sizes == [1, 1]
    assert_same(plain, recorded)


def test_loading_forgets_what_was_captured() -> None:
    agent = make("sac")
    agent.learn(40)
    agent.updates = Updates(agent, Recorder(agent))
    agent.learn(20, reset_num_timesteps=False)
    assert agent.updates.launches
    state = agent.state_dict()
    del state["collector"]
    agent.load_state_dict(state)
    assert (agent.updates.launches, agent.updates.warm) == ({}, 0)


def test_the_first_update_that_is_not_finite_is_named_in_a_launch_too() -> None:
    agent = make("sac")
    agent.learn(30)
    agent.updates = Updates(agent, Recorder(agent))
    agent.learn(10, reset_num_timesteps=False)
    with torch.no_grad():
        agent.critics.trunks[0][0].weight[0, 0] = torch.nan
    agent.updates_owed, before = 8, agent.num_updates
    agent.make_updates()
    bad = agent.metrics.first_bad.tolist()
    assert min(number for number in bad if number >= 0) == before + 1


def test_agents_that_look_at_their_data_are_called_plainly() -> None:
    agent = make("sac")
    assert agent.capturable
    assert accelerate(agent).capture is None, "nothing is captured on a CPU"


def test_recording_notices_a_look_at_the_data() -> None:
    with pytest.raises(AssertionError, match="waits for the device"), Recording():
        torch.ones(3).sum().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gradient_steps", [1, 8])
@pytest.mark.parametrize("agent_id", ENVS)
def test_captured_updates_equal_plain_ones_on_a_gpu(agent_id: str, gradient_steps: int) -> None:
    settings = {"hidden": (64, 64), "batch_size": 64, "buffer_size": 500, "learning_starts": 50}
    settings |= {"gradient_steps": gradient_steps, "train_freq": 1, **OWN.get(agent_id, {})}
    plain, captured = (
        make_agent(agent_id, ENVS[agent_id], seed=3, device="cuda", preset_name=None, **settings) for _ in range(2)
    )
    plain.updates = Updates(plain, None)
    assert captured.updates.capture is not None
    for agent in (plain, captured):
        agent.learn(90)
    assert captured.updates.launches
    assert fingerprint(plain).keys() == fingerprint(captured).keys()
    for one, other in zip(parts(plain), parts(captured), strict=True):
        for a, b in zip(tree_leaves(one.state_dict()), tree_leaves(other.state_dict()), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
