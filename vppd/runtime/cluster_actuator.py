"""An actuator that gives a cluster back only when its planner has brought the jobs back one after another."""

from __future__ import annotations

from collections.abc import Callable

from vppd.model import Setpoint
from vppd.runtime.actuator import Actuator
from vppd.runtime.clock import Clock
from vppd.runtime.intents import IntentBook, Terms


class ClusterActuator(Actuator):
    """Holds an open budget for as long as power comes back, so that a release restarts nothing all at once."""

    def __init__(
        self,
        asset_id: str,
        terms: Terms,
        clock: Clock,
        book: IntentBook,
        flag: Callable[[bool], None],
        opened: Setpoint,
        comes_back: Callable[[], bool],
    ) -> None:
        """``opened`` asks for nothing; ``comes_back`` says whether the planner still has jobs to bring back."""
        super().__init__(asset_id, terms, clock, book, flag)
        self._opened, self._comes_back = opened, comes_back

    def let_go(self) -> None:
        """Give the cluster back, once its jobs are back."""
        if self._comes_back():
            self.aim(self._opened)
        else:
            super().let_go()
