"""What the daemon knows about itself, gathered for the failsafe table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vppd.snapshot import Health

COMMITS_TO_CLEAR = 3
"""Commits that must succeed in a row before a ledger fault is over."""


@dataclass(slots=True)
class Vitals:
    """Set by whoever notices; read once per cycle."""

    mono_s: Callable[[], float]
    link_lost_after_s: float
    ready: bool = False
    ledger_corrupt: bool = False
    clock_ok: bool = True
    operator_release: bool = False
    link_down_since_s: float | None = None
    """Monotonic time at which the dispatch link went down, None while it is up (or not configured). [s]"""
    committed: Callable[[bool], None] = lambda _: None
    """Told of every commit whether it succeeded."""
    _fault_since_s: float | None = None
    _good_commits: int = 0

    def ledger(self, faulty: bool) -> None:
        """Note that a commit failed or succeeded."""
        self.committed(not faulty)
        if faulty:
            self._good_commits = 0
            self._fault_since_s = self._fault_since_s if self._fault_since_s is not None else self.mono_s()
        elif self._fault_since_s is not None:
            self._good_commits += 1
            if self._good_commits >= COMMITS_TO_CLEAR:
                self._fault_since_s = None

    @property
    def ledger_faulty(self) -> bool:
        """Say whether commits have failed and not succeeded again often enough."""
        return self._fault_since_s is not None

    def link(self, up: bool) -> None:
        """Note that the dispatch link is up or down."""
        if up:
            self.link_down_since_s = None
        elif self.link_down_since_s is None:
            self.link_down_since_s = self.mono_s()

    def health(self, late_s: float) -> Health:
        """Return the facts of this moment; ``late_s`` is how late the cycle is. [s]"""
        now_s = self.mono_s()
        down_s = 0.0 if self.link_down_since_s is None else now_s - self.link_down_since_s
        fault_s = 0.0 if self._fault_since_s is None else now_s - self._fault_since_s
        return Health(
            ready=self.ready,
            link_lost=down_s > self.link_lost_after_s,
            ledger_ok=not self.ledger_faulty,
            ledger_corrupt=self.ledger_corrupt,
            ledger_fault_s=fault_s,
            clock_ok=self.clock_ok,
            late_s=late_s,
            operator_release=self.operator_release,
        )
