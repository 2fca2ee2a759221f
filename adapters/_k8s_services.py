"""Keeps watch over the latency of inference services, apart from the control loop: nothing waits for a slow metrics page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Never

from adapters._inference import LatencyGuard
from adapters._k8s_config import KubernetesConfig
from adapters._k8s_kinds import Thing, Way
from adapters._k8s_pick import Picker
from adapters._k8s_power import Pod
from adapters._k8s_targets import Picture

_PACE_S = 1.0


class Services:
    """The watched services of one cluster."""

    def __init__(self, config: KubernetesConfig, guard: LatencyGuard | None) -> None:
        self._names = frozenset(config.inference)
        self._guard = guard
        self._ready: dict[str, tuple[str, ...]] = {}
        self._replicas: dict[str, tuple[int, int]] = {}

    @property
    def watched(self) -> bool:
        """Say whether there is anything to watch."""
        return self._guard is not None and bool(self._names)

    def meet(self, things: Iterable[Thing], pods: Iterable[Pod]) -> None:
        """Note which ready pods the services have now."""
        if not self.watched:
            return
        picker = Picker(pods)
        for thing in things:
            name = self._name(thing)
            if name:
                ready = [pod for pod in picker.pods(thing) if pod.ready and not pod.ending and pod.address]
                self._ready[name] = tuple(pod.address for pod in sorted(ready, key=lambda p: (len(p.name), p.name)))

    def note(self, now: Picture) -> None:
        """Note how many replicas the services are to have when nothing is held back, and have now."""
        for target in now.targets.values():
            name = self._name(target.thing)
            if name and target.was:
                self._replicas[name] = target.was, round(target.job.level_frac * target.was)

    def floor(self, thing: Thing, replicas: int) -> int:
        """Return the fewest replicas that may stay of an object that has ``replicas`` when nothing is held back."""
        name = self._name(thing)
        if self._guard is None or not name:
            return 0
        # With no pod that could be asked there is nothing to judge by.
        return self._guard.least_replicas(name, replicas) if self._ready.get(name) else replicas

    async def follow(self, back: Callable[[], None]) -> Never:
        """Look at the services for ever; call ``back`` when one of them needs replicas that are held back."""
        assert self._guard is not None
        loop = asyncio.get_running_loop()
        while True:
            await self._guard.look(loop.time(), dict(self._ready))
            if any(self._guard.least_replicas(name, was) > now for name, (was, now) in self._replicas.items()):
                back()
            await asyncio.sleep(_PACE_S)

    def _name(self, thing: Thing) -> str:
        """Return the name that the configuration knows it by, empty when it is not watched."""
        if thing.kind.way is not Way.REPLICAS:
            return ""
        return next((n for n in (f"{thing.namespace}/{thing.name}", thing.name) if n in self._names), "")
