"""The picture a planner wants: stock, orders and demand of every node over time, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs import rendering
from palaestra.envs.noise import draw_tape
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Actor, Network, Networked

_LABEL, _PERIOD, _PANEL = 128, 7, 74
_PARTS = (("holding", rendering.BLUE), ("underage", rendering.RED), ("supply", rendering.GREEN))


def timeline(world: Simulator[Any], actor: Actor, seed: int = 0, periods: int = 60, skip: int = 0) -> NDArray[np.uint8]:
    """Return a picture of one run of a policy, uint8 `[height, width, 3]`.

    A panel for each node: on hand (blue bars; backlog red, below the line), in transit to it (pale, on top), what was
    sent to it (dark ticks) and demand (orange ticks). The last panel: cost of each period by its parts (holding
    blue, underage red, supply green), their mean over the periods shown (a dark line) and the oracle (a green one);
    where sales earn a margin, the mean profit in place of the oracle.

    Args:
        world: An inventory world with a `network`.
        actor: The policy.
        seed: Seed of the row.
        periods: Periods shown, at least 1.
        skip: Periods before the first one shown.

    Raises:
        TypeError: If the world has no network.
        ValueError: If `periods` is below 1.
    """
    if not isinstance(world, Networked):
        raise TypeError(f"timeline: {type(world).__name__} has no network; expected an inventory world")
    if periods < 1 or skip < 0:
        raise ValueError(f"timeline: periods={periods}, skip={skip}; expected at least 1 and at least 0")
    network = world.network
    tape = draw_tape([seed], skip + periods)
    state = world.initial(tape.at(0))
    stocks, infos = [], []
    for period in range(1, skip + periods + 1):
        observation, key = world.observe(state), tape.at(period)
        transition = world.step(state, actor(state, observation, key), key)
        if period > skip:
            stocks.append(np.asarray(observation[0]) * network.units * _scale(state))
            infos.append({name: np.ravel(array[0]) for name, array in transition.info.items()})
        state = transition.state
    return _draw(world, network, np.array(stocks), infos)


def _scale(state: Any) -> float:
    """Return the units that the network's unit of stock stands for in the first row: worlds of many products differ."""
    return float(state.scale[0]) if hasattr(state, "scale") else 1.0


def _draw(
    world: Simulator[Any], network: Network, stock: NDArray[np.float64], infos: list[dict[str, NDArray[np.float64]]]
) -> NDArray[np.uint8]:
    nodes, periods = len(network.nodes), len(stock)
    canvas = rendering.Canvas(_LABEL + _PERIOD * periods + 8, _PANEL * (nodes + 1) + 8)
    padded = np.concatenate((stock, np.zeros((periods, 1))), axis=1)
    first = nodes - int((network.demand_mean > 0.0).sum())
    for node, name in enumerate(network.nodes):
        links = np.flatnonzero(network.customers == node)
        on_hand = stock[:, network.on_hand[node]]
        coming = padded[:, network.in_transit[links].reshape(-1)].sum(axis=1)
        inflow = np.array([info["flows" if "flows" in info else "order"][links].sum() for info in infos])
        demand = np.array([info["demand"][node - first] for info in infos]) if node >= first else None
        top, bottom = float((np.maximum(on_hand, 0.0) + coming).max()), float(np.minimum(on_hand, 0.0).min())
        scale = (_PANEL - 14) / max(1e-9, top - bottom, *(demand if demand is not None else ()), *inflow)
        ground = _PANEL * (node + 1) + scale * bottom
        canvas.text(6, ground - 24, name[:14], scale=2)
        canvas.text(6, ground - 10, f"MEAN {on_hand.mean():.1f}", scale=1)
        for period in range(periods):
            left = _LABEL + _PERIOD * period
            right, stands = left + _PERIOD - 1, scale * max(on_hand[period], 0.0)
            canvas.rectangle(left, ground - stands - scale * coming[period], right, ground - stands, rendering.PALE)
            color = rendering.BLUE if on_hand[period] >= 0.0 else rendering.RED
            canvas.rectangle(left, ground - scale * on_hand[period], right, ground, color)
            _tick(canvas, left, ground - scale * inflow[period], rendering.INK)
            if demand is not None:
                _tick(canvas, left, ground - scale * demand[period], rendering.ORANGE)
        canvas.rectangle(_LABEL - 4, ground, canvas.pixels.shape[1] - 6, ground + 1, rendering.INK)
    _draw_costs(canvas, world, infos, _PANEL * (nodes + 1))
    return canvas.pixels


def _draw_costs(
    canvas: rendering.Canvas, world: Simulator[Any], infos: list[dict[str, NDArray[np.float64]]], ground: int
) -> None:
    parts = {name: np.array([float(info[name][0]) for info in infos]) for name, _ in _PARTS if name in infos[0]}
    total = sum(parts.values(), np.zeros(len(infos)))
    scale = (_PANEL - 14) / max(1e-9, float(total.max()))
    below = np.zeros(len(infos))
    for name, color in _PARTS:
        if name not in parts:
            continue
        for period, cost in enumerate(parts[name]):
            left = _LABEL + _PERIOD * period
            start = ground - scale * below[period]
            canvas.rectangle(left, start - scale * cost, left + _PERIOD - 1, start, color)
        below += parts[name]
    right, mean, oracle = canvas.pixels.shape[1] - 6, float(total.mean()), world.oracle()
    canvas.text(6, ground - 42, f"COST {mean:.2f}", scale=2)
    canvas.rectangle(_LABEL - 4, ground - scale * mean, right, ground - scale * mean + 1, rendering.INK)
    if "margin" in infos[0]:
        earned = np.array([float(info["margin"][0]) for info in infos]) + parts["underage"] - total
        canvas.text(6, ground - 26, f"PROFIT {earned.mean():.1f}", scale=2)
    elif oracle is not None:
        best = -oracle.value
        canvas.text(6, ground - 26, f"{oracle.kind} {best:.2f}", scale=2)
        if best > 0.0:
            canvas.text(6, ground - 10, f"GAP {100.0 * (mean / best - 1.0):.1f} PERCENT", scale=1)
        canvas.rectangle(_LABEL - 4, ground - scale * best, right, ground - scale * best + 2, rendering.GREEN)
    canvas.rectangle(_LABEL - 4, ground, right, ground + 1, rendering.INK)


def _tick(canvas: rendering.Canvas, left: float, y: float, color: rendering.Color) -> None:
    canvas.rectangle(left, y - 1, left + _PERIOD - 1, y + 1, color)
