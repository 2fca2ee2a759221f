"""A Kubernetes cluster under a power budget: fewer replicas where it can, then pauses by flex tier, and everything given back.

Only objects labelled ``vpp.flex-tier`` 1 to 3 are touched. What they were is written on them in the same patch as the change, so
that any later process restores it. Kubernetes has no dead-man of its own: while this process lives, the lease is kept here; when
it dies, what it held stays held until the next one has found it, for one more lease at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from adapters._budget import applied
from adapters._giving_back import giving_back
from adapters._inference import LatencyGuard, watching
from adapters._k8s_config import KubernetesConfig
from adapters._k8s_control import Control, Report, left_alone
from adapters._k8s_link import Link, Requests
from adapters._k8s_pods import Pods
from adapters._k8s_services import Services
from adapters._k8s_targets import Picture, Rules, picture
from adapters._tier_order import TierOrder
from vppd.errors import ConfigError, DeviceError, Refused, Unreachable
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Adapter, Planner
from vppd.workload import Curtailment

LEASE_CHECK_S = 0.25
_CLOSE_S = 10.0
_TRIES = 2
"""Once more when something refused: the plan then does without it."""
_NOTHING = Curtailment()


class KubernetesCluster:
    """One cluster, or some of its namespaces. Polled, Controllable and Plannable."""

    def __init__(self, config: KubernetesConfig, client: Requests, guard: LatencyGuard | None = None) -> None:
        self._config = config
        self._link = Link(config, client)
        self._control = Control(config, self._link)
        self._planner: Planner = TierOrder()
        self._alone = True
        self._pods = [Pods(config, client, scope) for scope in self._link.scopes()]
        self._services = Services(config, guard)
        self._turn = asyncio.Lock()
        self._trouble = ""
        self._holds = False
        self._budget_w: float | None = None
        self._until_s = 0.0
        self._tend_at_s = 0.0
        self._following: list[asyncio.Task[None]] = []
        self._tending: asyncio.Task[None] | None = None

    def plan_with(self, planner: Planner) -> None:
        """Use this planner from now on; without one the adapter goes by tier alone."""
        self._planner, self._alone = planner, False

    async def read(self) -> Sample:
        """Return what the cluster draws by the model, and what each tier could shed. Raises Unreachable, Refused or Garbled."""
        for task in (*self._following, *([self._tending] if self._tending else [])):
            if task.done():
                task.result()
        now = await self._look(sweep=False)
        full_w = now.workload.full_w
        shed_w = self._planner.shed_w(now.workload)
        return Sample(
            power_w=now.workload.power_w,
            available_w=full_w,
            lower_w=full_w - sum(shed_w),
            upper_w=full_w,
            tier_shed_w=shed_w,
            setpoint_w=self._budget_w,
            fault=self._trouble,
        )

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Keep the draw within ``setpoint.power_w`` for as long as the lease runs. Raises Unreachable (outcome unknown) or Refused."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            self._budget_w = setpoint.power_w
            self._until_s = loop.time() + setpoint.valid_for_s
            plan, report = await self._enforce(setpoint.power_w)
            if report.unreachable:
                raise Unreachable("; ".join(report.problems))
            now = await self._look()
            self._control.verify(plan, now, report)
            return self._read_back(setpoint.power_w, plan, now, report)

    async def release(self) -> None:
        """Let everything go on that we, or an earlier process, held down. Idempotent. Raises Unreachable, Refused or Garbled."""
        async with self._turn:
            self._budget_w, self._until_s = None, asyncio.get_running_loop().time()
            await self._restore()

    async def start(self) -> None:
        """Find what an earlier process left, and hold it for a while: whoever runs us may say by then what is to become of it."""
        loop = asyncio.get_running_loop()
        self._following += [asyncio.create_task(pods.follow()) for pods in self._pods]
        now = await self._look()
        self._until_s = loop.time() + (self._config.orphan_lease_s if now.is_held else 0.0)
        self._tending = asyncio.create_task(self._tend())
        if self._services.watched:
            self._following.append(asyncio.create_task(self._services.follow(self._tend_soon)))

    async def close(self, restore: bool) -> None:
        """End all watches; let everything go on, unless the next connection is to find it held."""
        if self._tending is not None:
            await _ended(self._tending)
        if restore:
            with contextlib.suppress(DeviceError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self.release()
        for task in self._following:
            await _ended(task)

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _look(self, sweep: bool = True) -> Picture:
        """Return the cluster as it is; ``sweep``: with what is held though it is not opted in any more."""
        things = await self._link.look(sweep)
        pods = [pod for one in self._pods for pod in await one.now()]
        nodes = await self._link.nodes()
        loop_s = asyncio.get_running_loop().time()
        self._services.meet(things, pods)
        barred, dropped = self._control.barred(loop_s), frozenset(self._control.dropped)
        rules = Rules(barred, dropped, self._alone, self._link.has("Workload"), self._services.floor)
        now = picture(self._config, things, pods, nodes, self._link.now_s, rules)
        self._services.note(now)
        self._holds = now.is_held
        return now

    def _notes(self, now: Picture) -> list[str]:
        """Return what keeps some of the cluster from giving: no fault of the whole, so it is told with each setpoint."""
        forbidden = [f"{kind} cannot be listed: {why}" for kind, why in sorted(self._link.forbidden.items())]
        return [*now.troubles, *forbidden, *left_alone(now)]

    async def _enforce(self, budget_w: float) -> tuple[Curtailment, Report]:
        problems: list[str] = []
        for _ in range(_TRIES):
            now = await self._look()
            plan = self._planner.plan(now.workload, budget_w, asyncio.get_running_loop().time())
            report = await self._control.carry_out(plan, now, budget_w, rests=self._alone)
            report.problems[:0] = problems
            problems = report.problems
            if not report.failed or report.unreachable:
                break
        self._trouble = ""
        self._tend_at_s = asyncio.get_running_loop().time() + self._config.tend_s
        return plan, report

    def _read_back(self, budget_w: float, plan: Curtailment, now: Picture, report: Report) -> Applied:
        """Return the budget when all of the plan is seen to be in force, else the power to expect. [W]"""
        lost_w = sum(
            target.job.full_w * (1.0 - plan.level_frac.get(key, 1.0 if key not in plan.paused else 0.0))
            for key, target in now.targets.items()
            if key in report.failed
        )
        expected_w = max(plan.expected_w, 0.0) + lost_w
        detail = [*_counted(plan, now), *report.problems, *self._notes(now)]
        return applied(budget_w, expected_w, detail)

    async def _restore(self) -> None:
        """Let go of everything that is held."""
        report = Report()
        for _ in range(_TRIES):
            now = await self._look()
            if not now.is_held:
                self._trouble = ""
                return
            report = await self._control.carry_out(_NOTHING, now, rests=self._alone)
        now = await self._look()
        self._trouble = "; ".join(report.problems)
        if now.is_held:
            why = f"not all is restored: {self._trouble or 'it is held again and again'}"
            raise Unreachable(why) if report.unreachable else Refused(why)

    def _tend_soon(self) -> None:
        self._tend_at_s = 0.0

    async def _tend(self) -> None:
        """Keep the lease, the longest pauses and the starts of new work; what fails is tried again in the next round."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LEASE_CHECK_S)
            ended = self._budget_w is not None and loop.time() >= self._until_s
            if not ended and loop.time() < self._tend_at_s:
                continue
            async with self._turn:
                try:
                    await self._round(loop.time())
                except DeviceError as error:
                    self._trouble = f"what is held cannot be looked after: {error}" if self._holds else ""
                    self._tend_at_s = loop.time() + 1.0

    async def _round(self, now_s: float) -> None:
        if now_s >= self._until_s:
            self._budget_w = None
        if self._budget_w is not None:
            await self._enforce(self._budget_w)
        elif now_s >= self._until_s:
            await self._restore()
        self._tend_at_s = asyncio.get_running_loop().time() + self._config.tend_s


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _counted(plan: Curtailment, now: Picture) -> list[str]:
    """Return how much of what a plan touches is seen to be so."""
    touched = [target for key, target in now.targets.items() if key in plan.paused or key in plan.level_frac]
    paused = [target for target in touched if target.job.paused]
    ending = sum(pod.ending for target in touched for pod in target.pods)
    left = sum(not pod.ending for target in paused for pod in target.pods)
    still = [f"{left} pods of paused work still run"] if left else []
    return [f"{len(paused)} paused, {len(touched) - len(paused)} slowed", f"{ending} pods ending", *still]


@asynccontextmanager
async def connect(config: KubernetesConfig) -> AsyncIterator[KubernetesCluster]:
    """Open a cluster; on the way out everything is given back, except after a lost link: then the next connection goes on."""
    library = await asyncio.to_thread(_library)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(library.client(config))
        guard = await stack.enter_async_context(watching(config.inference)) if config.inference else None
        cluster = KubernetesCluster(config, client, guard)
        yield await stack.enter_async_context(giving_back(cluster))


def _library() -> Any:
    try:
        return importlib.import_module("adapters._k8s_client")
    except ImportError as error:
        raise ConfigError(
            f"the Kubernetes adapter needs its extra: pip install 'vppd[kubernetes]' ({error})"
        ) from error


ADAPTER = Adapter(KubernetesConfig, connect)
