"""`palaestra speed inventory`: training through supply worlds, and steps of them, against plain ways to do the same.

The peer of training is what one writes first in PyTorch: a dictionary of tensors, one for each node, stepped operation
by operation, and a policy of `torch.nn`. Its demand is drawn for all periods at once. Both sides make whole
updates: noise, 50 periods forwards, gradient, clipping and a step of Adam.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor, nn
from torch.nn.functional import softplus

from palaestra.agents.registry import make_agent
from palaestra.envs.inventory.one_store_lost import OneStoreLost
from palaestra.envs.inventory.serial import Serial
from palaestra.envs.registration import make_simulator
from palaestra.scripts.speed_memory import MEGABYTE, alone, peak_resident_bytes
from palaestra.scripts.speed_worlds import batch_stepping, drawn_actions
from palaestra.scripts.timing import OURS, Timing, interleaved
from palaestra.wrappers.vectorize import make_vec

PATHS, PERIODS, HIDDEN = 8192, 50, (32, 32)
STORE, CHAIN = "palaestra/OneStoreLost-v0", "palaestra/Serial-v0"
PEER = "plain PyTorch"
State = dict[str, Tensor]


class PlainTraining(ABC):
    """Training a perceptron through a world that is stepped as a dictionary of tensors.

    Args:
        world: The world whose numbers it takes.
        sizes: Numbers of entries of an observation and of an action.
    """

    def __init__(self, world: OneStoreLost | Serial, sizes: tuple[int, int]) -> None:
        self.generator = torch.Generator().manual_seed(0)
        layers: list[nn.Module] = []
        width = sizes[0]
        for wider in HIDDEN:
            layers += [nn.Linear(width, wider), nn.ELU()]
            width = wider
        self.network = nn.Sequential(*layers, nn.Linear(width, sizes[1]))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=3e-3)

    @abstractmethod
    def start(self, paths: int) -> State:
        """Return the state of paths at their start."""

    @abstractmethod
    def demand(self, periods: int, paths: int) -> Tensor:
        """Return the demand of all periods, `[periods, paths]`."""

    @abstractmethod
    def step(self, state: State, demand: Tensor) -> tuple[State, Tensor]:
        """Return the next state and the cost of the period, `[paths]`, under the policy."""

    def cost(self, state: State, demand: Tensor) -> Tensor:
        """Return the mean cost of a period from a state on."""
        costs = []
        for period in range(len(demand)):
            state, cost = self.step(state, demand[period])
            costs.append(cost)
        return torch.stack(costs).mean()

    def update(self, paths: int, periods: int) -> None:
        """Draw paths and take one step along the gradient of their cost."""
        loss = self.cost(self.start(paths), self.demand(periods, paths))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()


class PlainStore(PlainTraining):
    """One store with lost sales; the state is the pipeline, on hand first, `[paths, lead_time]`."""

    def __init__(self, world: OneStoreLost) -> None:
        super().__init__(world, (world.lead_time, 1))
        self.lead_time, self.mean = world.lead_time, world.demand_mean
        self.underage, self.holding, self.largest = world.underage_cost, world.holding_cost, world.max_order

    def start(self, paths: int) -> State:
        """Return the state of paths at their start."""
        return {"pipeline": self.mean * torch.rand(paths, self.lead_time, generator=self.generator)}

    def demand(self, periods: int, paths: int) -> Tensor:
        """Return the demand of all periods, `[periods, paths]`."""
        return torch.poisson(torch.full((periods, paths), self.mean), generator=self.generator)

    def step(self, state: State, demand: Tensor) -> tuple[State, Tensor]:
        """Return the next state and the cost of the period, `[paths]`, under the policy."""
        pipeline = state["pipeline"]
        wanted = self.mean * softplus(self.network(pipeline / self.mean) + 1.0)[:, 0]
        order = torch.clamp(wanted, 0.0, self.largest)
        inventory = pipeline[:, 0] - demand
        left = torch.clamp(inventory, min=0.0)
        cost = self.holding * left + self.underage * torch.clamp(-inventory, min=0.0)
        on_hand = left + pipeline[:, 1]
        return {"pipeline": torch.cat((on_hand[:, None], pipeline[:, 2:], order[:, None]), 1)}, cost


class PlainSerial(PlainTraining):
    """A serial chain; the state is the pipeline of every stage, on hand first, `[paths, lead_time]`."""

    def __init__(self, world: Serial) -> None:
        self.names = world.graph.nodes
        self.leads = dict(zip(self.names, world.graph.lead_times.tolist(), strict=True))
        super().__init__(world, (sum(self.leads.values()), len(self.names)))
        self.holding = dict(zip(self.names, world.holding_cost.tolist(), strict=True))
        self.underage = float(world.underage_cost[0])
        self.mean, self.std = float(world.demand.mean[0]), float(world.demand.std[0])
        self.largest = float(world.flow_limits[0])

    def start(self, paths: int) -> State:
        """Return the state of paths at their start."""
        state = {name: torch.zeros(paths, lead) for name, lead in self.leads.items()}
        store = self.names[-1]
        state[store] = self.mean * torch.rand(paths, self.leads[store], generator=self.generator)
        return state

    def demand(self, periods: int, paths: int) -> Tensor:
        """Return the demand of all periods, `[periods, paths]`."""
        return torch.clamp(self.mean + self.std * torch.randn(periods, paths, generator=self.generator), min=0.0)

    def step(self, state: State, demand: Tensor) -> tuple[State, Tensor]:
        """Return the next state and the cost of the period, `[paths]`, under the policy."""
        outputs = self.network(torch.cat([state[name] for name in self.names], 1) / self.mean)
        on_hand = {name: state[name][:, 0] for name in self.names}
        orders, above = {}, None
        for stage, name in enumerate(self.names):
            wanted = torch.sigmoid(outputs[:, stage]) * (self.largest if above is None else on_hand[above])
            orders[name] = torch.clamp(wanted, max=self.largest)
            above = name
        following, cost = {}, torch.zeros_like(demand)
        for stage, name in enumerate(self.names):
            if stage < len(self.names) - 1:
                left = on_hand[name] - orders[self.names[stage + 1]]
                cost = cost + self.holding[name] * left
            else:
                left = on_hand[name] - demand
                cost = cost + self.holding[name] * torch.clamp(left, min=0.0)
                cost = cost + self.underage * torch.clamp(-left, min=0.0)
            pipeline = state[name]
            arrived = left + pipeline[:, 1]
            following[name] = torch.cat((arrived[:, None], pipeline[:, 2:], orders[name][:, None]), 1)
        return following, cost


def train_store(repeats: int, threads: int = 2) -> Timing:
    """Time period-samples of training on OneStoreLost: periods times paths of whole updates."""
    return _training("store-training", STORE, repeats, threads)


def train_serial(repeats: int, threads: int = 2) -> Timing:
    """Time the same on Serial."""
    return _training("serial-training", CHAIN, repeats, threads)


def _training(name: str, env_id: str, repeats: int, threads: int) -> Timing:
    ours, theirs = our_update(env_id), plain_update(env_id)

    def counted(update: Callable[[], None]) -> Callable[[], float]:
        def work() -> float:
            update()
            return PATHS * PERIODS

        return work

    details = {"env": env_id, "paths": PATHS, "periods": PERIODS, "hidden": HIDDEN, "policy": "mlp"}
    return interleaved(
        name, "period-samples/s", {OURS: counted(ours), PEER: counted(theirs)}, repeats, threads, details
    )


def our_update(env_id: str) -> Callable[[], None]:
    """Return what makes one update of HDPO."""
    agent: Any = make_agent(
        "hdpo", env_id, preset_name=None, device="cpu", num_paths=PATHS, periods=PERIODS, hidden=HIDDEN
    )
    agent.target_timesteps = 10**12
    step: Callable[[], None] = agent.training_step
    return step


def plain_update(env_id: str) -> Callable[[], None]:
    """Return what makes one update of the peer."""
    training = plain_training(env_id)
    return lambda: training.update(PATHS, PERIODS)


def plain_training(env_id: str) -> PlainTraining:
    """Return the peer on a world with its default arguments, OneStoreLost or Serial."""
    world: Any = make_simulator(env_id)
    return PlainSerial(world) if isinstance(world, Serial) else PlainStore(world)


def step_store(repeats: int, num_envs: int = 1024) -> Timing:
    """Time steps of OneStoreLost with so many rows, behind `make_vec`."""
    ours, single = make_vec(STORE, num_envs), gym.make(STORE)
    theirs = SyncVectorEnv([lambda: gym.make(STORE)] * num_envs)
    actions = drawn_actions(single.action_space, num_envs)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    sides = {
        OURS: batch_stepping(ours.step, actions, num_envs, 200),
        "SyncVectorEnv": batch_stepping(theirs.step, actions, num_envs, 1),
    }
    details = {"env": STORE, "num_envs": num_envs, "actions": "random, drawn beforehand"}
    timing = interleaved("store-steps", "steps/s", sides, repeats, 1, details)
    ours.close()
    theirs.close()
    single.close()
    return timing


def memory_of_store(repeats: int) -> Timing:
    """Measure how far the largest memory of a process grows over its first whole updates on OneStoreLost."""
    sides = {side: [alone(peak_bytes, side, STORE) / MEGABYTE for _ in range(repeats)] for side in (OURS, PEER)}
    return Timing("store-memory", "MB", sides, 1, {"env": STORE, "paths": PATHS, "periods": PERIODS})


def peak_bytes(side: str, env_id: str) -> int:
    """Return how far the largest resident set of this process grows over three updates.

    Args:
        side: `OURS` or `PEER`.
        env_id: The world.
    """
    torch.set_num_threads(1)
    update = our_update(env_id) if side == OURS else plain_update(env_id)
    gc.collect()
    before = peak_resident_bytes()
    for _ in range(3):
        update()
    return peak_resident_bytes() - before
