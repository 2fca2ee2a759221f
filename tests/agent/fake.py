"""A device in memory that a test can break, lose and meddle with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vppd.agent.device import Clocks, Limits, Reading
from vppd.errors import DeviceError, Refused


@dataclass
class Fake:
    """200 to 700 W, drawing ``demand_w`` as far as the limit lets it."""

    name: str
    demand_w: float = 650.0
    limit_w: float = 700.0
    limits: Limits | None = field(default_factory=lambda: Limits(200.0, 700.0, 700.0))
    kind: Literal["gpu", "cpu"] = "gpu"
    clocks: Clocks | None = None
    error: DeviceError | None = None
    """Raised by everything."""
    set_error: DeviceError | None = None
    """Raised by everything that changes something."""
    sticky: bool = False
    """Takes a limit and keeps the old one."""
    calls: list[str] = field(default_factory=list)

    def about(self) -> dict[str, str | int]:
        """Return nothing more."""
        return {}

    def read(self) -> Reading:
        """Return what it draws and its limit."""
        self._check()
        clock_mhz = self.clocks[1] if self.clocks else 1980
        return Reading(min(self.demand_w, self.limit_w), None, None, self.limit_w, self.limit_w, clock_mhz)

    def cap_w(self) -> float:
        """Return the limit. [W]"""
        self._check()
        return self.limit_w

    def set_cap(self, cap_w: float) -> None:
        """Set the limit. [W]"""
        self._change(f"{cap_w:g} W")
        if self.limits is not None and not self.limits.min_w <= cap_w <= self.limits.max_w:
            raise Refused("Invalid Argument")
        if not self.sticky:
            self.limit_w = cap_w

    def lock_clocks(self, clocks: Clocks) -> None:
        """Lock the clocks. [MHz]"""
        self._change(f"{clocks[0]}-{clocks[1]} MHz")
        self.clocks = clocks

    def free_clocks(self) -> None:
        """Free the clocks."""
        self._change("free")
        self.clocks = None

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _change(self, what: str) -> None:
        self._check()
        if self.set_error is not None:
            raise self.set_error
        self.calls.append(what)
