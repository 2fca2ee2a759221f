"""Failures on demand: what a simulated device does wrong, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

Clock = Callable[[], float]
"""Monotonic seconds."""


class Fault(StrEnum):
    """How a device fails."""

    NONE = ""
    SILENT = "silent"
    """Takes requests and never answers."""
    RESET = "reset"
    """Drops the connection at each request."""
    REFUSE = "refuse"
    """Answers every request with an error."""
    ACK_IGNORE = "ack_ignore"
    """Acknowledges writes and does nothing."""


class Outage:
    """The present fault of one device."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fault = Fault.NONE
        self._until_s = 0.0

    def begin(self, fault: Fault, for_s: float) -> None:
        """Fail from now on for so long; 0 ends a fault. [s]"""
        self._fault = fault if for_s > 0.0 else Fault.NONE
        self._until_s = self._clock() + for_s

    def now(self) -> Fault:
        """Return the fault that holds now."""
        if self._fault is not Fault.NONE and self._clock() >= self._until_s:
            self._fault = Fault.NONE
        return self._fault
