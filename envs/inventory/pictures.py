"""Pictures of stock: every node's slots at one moment, and a plan over time with its costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palaestra.envs import rendering
from palaestra.protocols import Network

_LABEL, _SLOT, _BAR, _ROW = 108, 40, 30, 58
_HALF = 22
"""Pixels above and below the ground line of a row."""


@dataclass(frozen=True)
class StockRow:
    """What a picture shows of one node.

    Attributes:
        name: Of the node.
        slots: Units on hand and, from the second on, arriving in 1, 2, ... periods; below 0 is backlog.
        inflow: Units sent to it in the last period.
        demand: Units sold or wanted in the last period; None for a node without demand.
    """

    name: str
    slots: NDArray[np.float64]
    inflow: float
    demand: float | None


def stock_rows(
    network: Network, stock: NDArray[np.float64], flows: NDArray[np.float64], demand: NDArray[np.float64]
) -> list[StockRow]:
    """Return what a picture shows of each node.

    Args:
        network: The network.
        stock: Units at the places of the observation, `[observation]`.
        flows: Units sent over each link in the last period, `[links]`.
        demand: Of each store in the last period, `[stores]`, the stores being the last nodes.
    """
    rows, first = [], len(network.nodes) - len(demand)
    # The place behind the last one stands for the slots that a link does not have.
    padded = np.append(stock, 0.0)
    for node, name in enumerate(network.nodes):
        links = np.flatnonzero(network.customers == node)
        coming = padded[network.in_transit[links]].sum(axis=0)[: int(network.lead_times[links].max()) - 1]
        sold = float(demand[node - first]) if node >= first else None
        slots = np.append(padded[network.on_hand[node]], coming)
        rows.append(StockRow(name, slots, float(flows[links].sum()), sold))
    return rows


def stock_text(rows: Sequence[StockRow]) -> str:
    """Return one line for each node."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        coming = " ".join(f"{units:.1f}" for units in row.slots[1:]) or "-"
        demand = "" if row.demand is None else f" | last demand {row.demand:.1f}"
        lines.append(
            f"{row.name:<{width}} | on hand {row.slots[0]:.1f} | coming {coming} | last inflow {row.inflow:.1f}{demand}"
        )
    return "\n".join(lines)


def draw_stock(rows: Sequence[StockRow]) -> NDArray[np.uint8]:
    """Return a picture with a row for each node: on hand, arrivals by period, last inflow and last demand.

    Stock is blue, backlog red below the ground line, inflow green and demand orange; bars of one row share a scale.
    """
    longest = max(len(row.slots) for row in rows)
    columns = [("HAND" if slot == 0 else f"T+{slot}") for slot in range(longest)] + ["IN", "DEMAND"]
    canvas = rendering.Canvas(_LABEL + _SLOT * len(columns) + 8, 20 + _ROW * len(rows))
    for index, label in enumerate(columns):
        canvas.text(_LABEL + _SLOT * index, 6, label, scale=1)
    for number, row in enumerate(rows):
        ground = 20 + _ROW * number + _HALF + 8
        canvas.text(6, ground - 12, row.name[:12], scale=2)
        values = [*row.slots, *[0.0] * (longest - len(row.slots)), row.inflow, row.demand or 0.0]
        scale = _HALF / max(1e-9, *(abs(value) for value in values))
        for index, units in enumerate(values):
            shown = index < len(row.slots) or index == longest or (index > longest and row.demand is not None)
            if not shown:
                continue
            left = _LABEL + _SLOT * index
            color = rendering.BLUE if units >= 0.0 else rendering.RED
            color = rendering.GREEN if index == longest else rendering.ORANGE if index > longest else color
            canvas.rectangle(left, ground - scale * units, left + _BAR, ground, color)
            canvas.text(left, ground + (4 if units >= 0.0 else -8), f"{units:.1f}", scale=1)
        canvas.rectangle(_LABEL - 4, ground, canvas.pixels.shape[1] - 6, ground + 1, rendering.INK)
    return canvas.pixels
