"""Settings of networks that are not plain MLPs, or whose critics are larger than their actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from palaestra.agents.training.off_policy import OffPolicyConfig


@dataclass(frozen=True)
class LargeCriticConfig(OffPolicyConfig):
    """Critics with widths of their own; `hidden` is the actor's."""

    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers or blocks of the critics; `hidden` holds the actor's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_hidden", all(width >= 1 for width in self.critic_hidden), "positive widths")

    def require_equal_widths(self) -> None:
        """Raise ValueError unless actor and critics have at least one block each, all as wide as the others."""
        for name in ("hidden", "critic_hidden"):
            self.require(name, len(set(getattr(self, name))) == 1, "equal widths, one for every residual block")


@dataclass(frozen=True)
class TrunkConfig(LargeCriticConfig):
    """Trunks that may be residual, where every width is a block and all are equal."""

    trunk: str = "mlp"
    """What actor and critics are made of: mlp, simba or bronet."""
    trunks: ClassVar[tuple[str, ...]] = ("mlp", "simba", "bronet")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("trunk", self.trunk in self.trunks, f"one of {', '.join(self.trunks)}")
        if self.trunk in ("simba", "bronet"):
            self.require_equal_widths()
