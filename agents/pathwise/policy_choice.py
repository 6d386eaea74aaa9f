"""Policies by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from palaestra.agents.pathwise.graph_network import GraphNetwork
from palaestra.agents.pathwise.network_reader import NetworkReader
from palaestra.agents.pathwise.newsvendor_policies import QuantileNewsvendor
from palaestra.agents.pathwise.policies import (
    BaseStock,
    BoxPerceptron,
    CappedBaseStock,
    EchelonBaseStock,
    Output,
    Perceptron,
    SymmetricPerceptron,
)
from palaestra.protocols import Network

Policy = Literal[
    "mlp",
    "base-stock",
    "echelon-base-stock",
    "capped-base-stock",
    "symmetric",
    "gnn",
    "quantile-newsvendor",
    "fixed-quantile",
    "transformed-newsvendor",
]

FOR_ANY_NETWORK: tuple[Policy, ...] = ("gnn", "quantile-newsvendor", "fixed-quantile", "transformed-newsvendor")
"""Policies whose parameters fit every network with the same `features`: all nodes share them."""


def make_policy(
    name: Policy,
    network: Network | None,
    sizes: tuple[int, int],
    hidden: Sequence[int],
    activation: str,
    output: Output,
) -> nn.Module:
    """Return the policy of a name.

    Args:
        name: Its name.
        network: The supply network, None where the world is none.
        sizes: Numbers of entries of an observation and of an action.
        hidden: Widths of the hidden layers of mlp and gnn.
        activation: Activation of the hidden layers.
        output: What mlp and symmetric put out.

    Raises:
        TypeError: If the world is no supply network, or another than the policy needs.
    """
    if network is None:
        if name != "mlp":
            raise TypeError(f"hdpo: policy={name!r} needs a supply network; expected 'mlp' for this world")
        return BoxPerceptron(*sizes, hidden, activation)
    reader = NetworkReader(network)
    match name:
        case "base-stock":
            return BaseStock(reader)
        case "echelon-base-stock":
            return EchelonBaseStock(reader)
        case "capped-base-stock":
            return CappedBaseStock(reader)
        case "symmetric":
            return SymmetricPerceptron(reader, activation, output)
        case "gnn":
            return GraphNetwork(reader, hidden, activation)
        case "mlp":
            return Perceptron(reader, hidden, activation, output)
        case _:
            return QuantileNewsvendor(reader, name)
