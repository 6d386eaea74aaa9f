"""The acceleration layer: how the updates of an off-policy agent are run on the device at hand.

On a CPU every update is a plain call. On a CUDA device launching the kernels of a small update takes longer than
running them, so that a few updates, the sampling of their batches included, are captured once as a CUDA graph and
launched as one from then on. Agents are written without regard to it: they only keep the rule that `update` works on
tensors of fixed shape, changes its own in place, and never waits for the device. One that must look at its data says
`capturable = False` and is called plainly everywhere.

What a capture freezes is what Python decided meanwhile: branches, numbers, the memory of tensors. Tests on a CPU record
the operations of some updates and repeat them blindly on the same memory, bit for bit equal to plain calls. The capture
itself, `CudaGraphs`, has not been run: no GPU was at hand; `tests/agents/training/test_acceleration.py` compares it
with plain calls where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Generator

if TYPE_CHECKING:
    from palaestra.agents.training.off_policy import OffPolicyAgent

Launch = Callable[[], Any]
"""Runs again what was captured."""
WARM_UP = 4
"""Plain updates, at least, before one is captured: libraries and lazily made tensors are set up meanwhile."""
LONGEST = 32
"""Updates per launch, at most."""


class Capture(Protocol):
    """How several updates become one launch."""

    def warm_up(self, update: Callable[[], None]) -> None:
        """Make an update plainly, so that whatever is set up once is set up."""
        ...

    def capture(self, updates: Callable[[], None], generators: Sequence[Generator]) -> Launch:
        """Return the launch of updates that draw from the generators; they are called for their record alone."""
        ...


class Updates:
    """Makes the updates that an agent owes.

    Args:
        agent: The agent.
        capture: How several updates become one launch; None calls them one by one.
    """

    def __init__(self, agent: OffPolicyAgent, capture: Capture | None) -> None:
        self.agent, self.capture = agent, capture
        # Number of the update under way, read by captured updates, which Python's own numbers no longer reach.
        self.number = torch.zeros((), dtype=torch.float64, device=agent.device)
        self.forget()

    def forget(self) -> None:
        """Drop what was captured: the agent's tensors may have moved."""
        self.launches: dict[tuple[Any, ...], Launch] = {}
        self.warm = 0

    def make(self) -> None:
        """Make all updates that are owed."""
        agent = self.agent
        # What replaced the agent's own update, such as one for many seeds at once, was not written to be captured.
        capture = None if "update" in vars(agent) else self.capture
        while agent.updates_owed > 0:
            if capture is None:
                self._plain()
            elif self.warm < max(WARM_UP, agent.update_cycle):
                capture.warm_up(self._plain)
                self.warm += 1
            else:
                self._launch(capture, min(LONGEST, 1 << agent.updates_owed.bit_length() - 1))

    def _plain(self) -> None:
        agent = self.agent
        agent.make_update(agent.num_updates + 1)
        agent.num_updates += 1
        agent.updates_owed -= 1

    def _launch(self, capture: Capture, size: int) -> None:
        agent, metrics = self.agent, self.agent.metrics
        rates = tuple(group["lr"] for optimizer in agent.optimizers() for group in optimizer.param_groups)
        key = (size, agent.num_updates % agent.update_cycle, rates)
        updates, count = agent.num_updates, metrics.count
        if key not in self.launches:
            self.launches[key] = capture.capture(lambda: self._steps(size), agent.generators())
            agent.num_updates, metrics.count = updates, count
        self.number.fill_(updates)
        self.launches[key]()
        agent.num_updates, metrics.count = updates + size, count + size
        agent.updates_owed -= size

    def _steps(self, size: int) -> None:
        for _ in range(size):
            self.number.add_(1.0)
            self.agent.make_update(self.number)
            self.agent.num_updates += 1


class CudaGraphs:
    """Captures updates as CUDA graphs."""

    def warm_up(self, update: Callable[[], None]) -> None:
        """Make an update on a stream of its own, as graphs are captured on one."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            update()
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self, updates: Callable[[], None], generators: Sequence[Generator]) -> Launch:
        """Return the launch of a graph; capturing runs none of its kernels."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            updates()
        launch: Launch = graph.replay
        return launch


def accelerate(agent: OffPolicyAgent) -> Updates:
    """Return what makes an agent's updates as fast as its device allows."""
    captured = agent.capturable and agent.device.type == "cuda"
    return Updates(agent, CudaGraphs() if captured else None)
