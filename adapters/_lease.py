"""What adapters of controllable devices share: the lease of a setpoint and the reserve of a storage."""

from __future__ import annotations

import asyncio

SOC_MAX_AGE_S = 5.0


class Lease:
    """How long the setpoint last written is good; a device without a timer of its own is released when it ends."""

    def __init__(self) -> None:
        self._ends_s: float | None = None

    def renew(self, valid_for_s: float) -> None:
        """Start anew. [s]"""
        self._ends_s = asyncio.get_running_loop().time() + valid_for_s

    def end(self) -> None:
        """Forget it: nothing is commanded any more."""
        self._ends_s = None

    @property
    def is_running(self) -> bool:
        """A setpoint was written and is still good."""
        return self._ends_s is not None and not self.has_expired

    @property
    def has_expired(self) -> bool:
        """A setpoint was written and not renewed in time."""
        return self._ends_s is not None and asyncio.get_running_loop().time() >= self._ends_s


class Reserve:
    """Keeps a storage from being discharged below its ride-through reserve, or without knowing its charge."""

    def __init__(self, reserve_frac: float) -> None:
        self.reserve_frac = reserve_frac
        self._soc_frac: float | None = None
        self._seen_s = float("-inf")

    def saw(self, soc_frac: float | None) -> None:
        """Remember the state of charge just read. [0-1]"""
        self._soc_frac, self._seen_s = soc_frac, asyncio.get_running_loop().time()

    @property
    def needs_reading(self) -> bool:
        """The state of charge last read is too old to discharge on."""
        return asyncio.get_running_loop().time() - self._seen_s > SOC_MAX_AGE_S

    def hold(self, power_w: float) -> tuple[float, str]:
        """Return the power that may be commanded, and why if it is not the one asked for. [W, + = consumption]"""
        if power_w >= 0.0:
            return power_w, ""
        if self._soc_frac is None or self.needs_reading:
            return 0.0, "not discharged: state of charge unknown"
        if self._soc_frac <= self.reserve_frac:
            return 0.0, f"not discharged: state of charge {self._soc_frac:.1%}, reserve {self.reserve_frac:.1%}"
        return power_w, ""
