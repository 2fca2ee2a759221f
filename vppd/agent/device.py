"""What a GPU and a CPU package have in common: limits, a power cap, readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

TOLERANCE_W = 0.5
"""A limit read back within this is the one that was set: CPU packages count in eighths of a watt. [W]"""

Clocks = tuple[int, int]
"""Least and most SM clock. [MHz]"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a device's power limit may be set, and what it is when nobody has set it."""

    min_w: float
    max_w: float
    default_w: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a device says at one moment; None is what it does not know."""

    power_w: float | None = None
    utilisation_frac: float | None = None
    energy_ws: float | None = None
    """Counter since some beginning; it may begin anew when the driver or the agent does. [Ws]"""
    cap_w: float | None = None
    """The limit that was set last, by whomever. [W]"""
    enforced_w: float | None = None
    """The limit in force: the lowest of ours, the BMC's and others'. [W]"""
    clock_mhz: int | None = None
    temperature_c: float | None = None


class Device(Protocol):
    """One thing with a power limit. Every call may raise Unreachable or Refused, and blocks for milliseconds."""

    @property
    def name(self) -> str:
        """Return what it calls itself: ``GPU-<uuid>`` or ``package-<n>``; never changes."""
        ...

    @property
    def kind(self) -> Literal["gpu", "cpu"]:
        """Return what it is."""
        ...

    @property
    def limits(self) -> Limits | None:
        """Return where its limit may be set; None: it can only be read."""
        ...

    def about(self) -> dict[str, str | int]:
        """Return what telemetry says of it besides numbers: index, product name."""
        ...

    def read(self) -> Reading:
        """Return what is known now; what the device does not offer is None."""
        ...

    def cap_w(self) -> float:
        """Return the limit that was set last, by whomever. [W]"""
        ...

    def set_cap(self, cap_w: float) -> None:
        """Set the limit; it lasts until somebody sets another or the driver goes."""
        ...

    def lock_clocks(self, clocks: Clocks) -> None:
        """Keep the SM clock between two values. [MHz]"""
        ...

    def free_clocks(self) -> None:
        """Let the device choose its clocks again."""
        ...
