"""``[assets.connection]`` of nodes with agents: where they are, which they are, and how they may be slowed."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from adapters._agent_caps import AgentsConfig

NonNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Tier = Annotated[int, Field(ge=0, le=3)]
Clock = Annotated[int, Field(ge=1, le=100_000)]
ClockPoint = tuple[Clock, Fraction]
GLOB = frozenset("*?[")


class GpuAgentsConfig(AgentsConfig):
    """Nodes with agents and no scheduler, as one cluster."""

    nodes: tuple[str, ...] = ()
    """Names, or patterns with ``*``, ``?`` and ``[...]``; empty: all that speak. A node given by name counts also while it is silent."""
    tier: Tier = 0
    """Flex tier of the work on the nodes; 0: it is never slowed."""
    node_tier: dict[str, Tier] = Field(default_factory=dict)
    """Flex tier by name or pattern, for nodes that differ; the first that fits wins."""
    node_rest_w: NonNegative = 1500.0
    """What a node draws beside the devices its agent may cap and measures: fans, network, memory. [W]"""
    node_max_w: PositiveFloat = 5600.0
    """What the devices of a node that has never said so may draw together. [W]"""
    floor_frac: Fraction = 0.5
    """A device is never capped below this part of its default limit."""
    knob: Literal["cap", "clock", "both"] = "cap"
    """How GPUs are slowed. Where nothing fills its cap, as in decoding, only locked clocks bind."""
    clock_table: tuple[ClockPoint, ...] = ()
    """SM clock [MHz] and power at it as a part of power at the highest clock, rising; empty: a default, corrected by what is measured."""
    clock_min_mhz: Clock = 210
    """The lower end of a lock: an idle GPU may go down to it. [MHz]"""
    clock_floor_mhz: Clock = 600
    """The SM clock is never locked below this. [MHz]"""
    sample_s: Annotated[float, Field(ge=0.05, le=60.0)] = 1.0
    """How often the cluster's state is told, and a running budget looked after."""
    at_once: Annotated[int, Field(ge=1, le=10_000)] = 500
    """So many nodes at most may owe an acknowledgement."""
    release_within_s: Annotated[float, Field(ge=0.0, le=60.0)] = 1.0
    """Nodes are given back one after the other within this time, not in one step."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        rising = zip(self.clock_table, self.clock_table[1:], strict=False)
        if len(self.clock_table) == 1 or any(a[0] >= b[0] or a[1] > b[1] for a, b in rising):
            raise ValueError("clock_table must have two points at least, and clock and power must rise")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """Return the nodes given by their full names."""
        return tuple(name for name in self.nodes if not GLOB & set(name))

    def chosen(self, known: Iterable[str]) -> list[str]:
        """Return the nodes that belong to this asset, sorted: those named, and those known that fit a pattern."""
        fits = {name for name in known if not self.nodes or any(fnmatchcase(name, p) for p in self.nodes)}
        return sorted(fits | set(self.named))

    def tier_of(self, name: str) -> int:
        """Return the flex tier of a node."""
        return next((tier for pattern, tier in self.node_tier.items() if fnmatchcase(name, pattern)), self.tier)
