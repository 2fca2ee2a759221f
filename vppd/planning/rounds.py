"""Counts what planning computes apart: how long it takes, and how often it comes to nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.registry import Collector

from vppd.errors import Refused, Unreachable
from vppd.runtime.apart import apart

TOOK_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0)
"""Upper edges of the classes of duration. [s]"""

Think = Callable[[str, Mapping[str, Any], float], Awaitable[Any]]
"""``runtime.apart.apart``, or what stands in for it."""


class Rounds:
    """Stands between planning and the processes that compute for it."""

    def __init__(self, mono_s: Callable[[], float], think: Think = apart) -> None:
        self._mono_s, self._think = mono_s, think
        self._took = Histogram(
            "vppd_planning_round_seconds", "Time that forecasts, a plan or offers took to compute.", ("part",),
            buckets=TOOK_S, registry=None,
        )  # fmt: skip
        self._failed = Counter(
            "vppd_planning_rounds_failed", "Rounds that gave no forecasts, plan or offers.", ("part",), registry=None
        )
        self.figures: tuple[Collector, ...] = (self._took, self._failed)

    def of(self, part: str, is_answer: Callable[[Any], bool] = lambda _: True) -> Think:
        """Return what computes for one part of planning; a round whose answer is none has failed as well."""
        took, failed = self._took.labels(part), self._failed.labels(part)

        async def think(module: str, document: Mapping[str, Any], limit_s: float) -> Any:
            began_s = self._mono_s()
            try:
                answer = await self._think(module, document, limit_s)
            except (Unreachable, Refused):
                failed.inc()
                raise
            finally:
                took.observe(self._mono_s() - began_s)
            if not is_answer(answer):
                failed.inc()
            return answer

        return think
