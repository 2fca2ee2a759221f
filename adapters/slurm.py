"""A Slurm cluster under a power budget: caps where it can, then stops by flex tier, and everything given back.

Slurm has no dead-man of its own: when this process dies, stopped jobs stay stopped until the next one starts and finds them, by the
journal or by the mark ``vpp:held=...`` in their comments. While the process lives, the lease is kept here: without renewal all jobs go on.
Caps fall back by themselves where the node agents know ``valid_for_s`` (``cap_lease``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from adapters._budget import applied
from adapters._giving_back import giving_back
from adapters._slurm_accounts import adopt
from adapters._slurm_capping import Capping
from adapters._slurm_config import SlurmConfig
from adapters._slurm_control import Control, Report
from adapters._slurm_jobs import Job
from adapters._slurm_journal import Journal
from adapters._slurm_link import SlurmLink
from adapters._slurm_plan import Plan, plan, shed_first, sheddable
from adapters._slurm_power import Picture, in_scope, picture
from adapters._slurm_requeue import Requeueing
from adapters._slurm_reserve import Reservations
from adapters._slurm_sources import Sources, sources
from adapters._slurm_workload import as_plan, workload
from vppd.errors import DeviceError, Garbled, Refused, Unreachable
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Adapter, Planner, Window

TEND_S = 1.0
_CLOSE_S = 10.0
_NAMED = 8
_NOTHING = Plan(frozenset())


class SlurmCluster:
    """One cluster, or some of its partitions. Polled, Controllable, Plannable and Reservable."""

    def __init__(self, config: SlurmConfig, link: SlurmLink, beside: Sources, journal: Journal) -> None:
        self._config = config
        self._link = link
        self._power = beside.power
        self._capping = capping = Capping(beside.caps, journal, beside.lease, beside.remembers)
        self._journal = journal
        self._planner: Planner | None = None
        self._control = Control(config, link, capping, journal)
        self._reservations = Reservations(config, link)
        self._requeueing = Requeueing(config)
        self._turn = asyncio.Lock()
        self._trouble = ""
        self._token_due_s = asyncio.get_running_loop().time() + config.token_life_s / 2.0
        self._tending: asyncio.Task[None] | None = None

    async def read(self) -> Sample:
        """Return what the cluster draws, what it would draw, and what each tier could shed. Raises Unreachable, Refused or Garbled."""
        if self._tending is not None and self._tending.done():
            self._tending.result()
        _, now = await self._look()
        shed_w = self._shed_w(now)
        return Sample(
            power_w=now.power_w,
            available_w=now.available_w,
            lower_w=now.available_w - sum(shed_w),
            upper_w=now.available_w,
            tier_shed_w=shed_w,
            setpoint_w=self._control.held.budget_w,
            fault=self._trouble,
            shed_first=shed_first(now),
        )

    def plan_with(self, planner: Planner) -> None:
        """Let this planner choose from now on, within what this adapter guards; without one the tiers alone decide."""
        self._planner = planner

    async def reserve(self, windows: Sequence[Window]) -> tuple[Applied, ...]:
        """Keep nodes free in these windows and no others [W]; without ``reserve_for_awards`` nothing is done.

        For whoever knows the awards (ports.Reservable); reservations outlive this process, and Slurm removes them when they are over.
        Raises Unreachable, Refused or Garbled.
        """
        if not self._config.reserve_for_awards:
            return tuple(Applied(None, "reserve_for_awards is false") for _ in windows)
        async with self._turn:
            jobs, nodes = await self._link.look()
            now_s, held = asyncio.get_running_loop().time(), self._control.held
            now = picture(self._config, jobs, nodes, held, {}, now_s)
            return await self._reservations.keep(windows, now, nodes)

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Keep the draw within ``setpoint.power_w`` for as long as the lease runs. Raises Unreachable (outcome unknown) or Refused."""
        async with self._turn:
            held = self._control.held
            held.budget_w, held.lease_s = setpoint.power_w, setpoint.valid_for_s
            held.until_s = asyncio.get_running_loop().time() + setpoint.valid_for_s
            wanted, report = await self._enforce(setpoint.power_w)
            await self._control.note_lease()
            return await self._read_back(setpoint.power_w, wanted, report)

    async def release(self) -> None:
        """Let every job go on that we, or an earlier process, held down. Idempotent. Raises Unreachable, Refused or Garbled."""
        async with self._turn:
            held = self._control.held
            held.budget_w, held.until_s = None, asyncio.get_running_loop().time()
            with contextlib.suppress(Refused):  # a full disk keeps nobody from going on
                await self._control.note_lease()
            await self._restore()

    async def start(self) -> None:
        """Find what an earlier process left, and hold it for one lease: whoever runs us may say by then what is to become of it."""
        now_s = asyncio.get_running_loop().time()
        try:
            held = self._control.held = self._journal.load(now_s)
        except Garbled as error:
            held, self._trouble = self._control.held, f"{error}; going by the marks of the jobs"
        released = bool(held) and held.budget_w is None
        jobs, _ = await self._look()
        adopt(self._config, held, jobs, now_s)
        if not held:
            held.budget_w, held.until_s = None, now_s + self._config.orphan_lease_s  # so long an alarm lasts
        elif not released:  # else an interrupted release goes on
            held.until_s = now_s + (held.lease_s or self._config.orphan_lease_s)
        self._tending = asyncio.create_task(self._tend())

    async def close(self, restore: bool) -> None:
        """End the watch over the lease; let every job go on, unless the next connection is to find them held."""
        if self._tending is not None:
            self._tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tending
        if restore:
            with contextlib.suppress(DeviceError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self.release()

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _look(self) -> tuple[list[Job], Picture]:
        now_s = asyncio.get_running_loop().time()
        jobs, nodes = await self._link.look()
        if self._power is not None:
            drawn_w = await self._power.look([node.name for node in nodes if in_scope(self._config, node.partitions)])
            nodes = [replace(node, power_w=drawn_w.get(node.name)) for node in nodes]
        control = self._control
        await self._capping.find([node.name for node in nodes], control.held, now_s)
        return jobs, picture(self._config, jobs, nodes, control.held, self._capping.known, now_s, control.barred(now_s))

    async def _enforce(self, budget_w: float) -> tuple[Plan, Report]:
        jobs, now = await self._look()
        wanted = self._requeueing.freezes(self._choose(now, budget_w), now, budget_w, self._control.held)
        report = await self._control.carry_out(wanted, now, jobs, asyncio.get_running_loop().time())
        self._trouble = ""
        if self._config.requeue_tiers:
            now_s = asyncio.get_running_loop().time()
            barred = self._control.barred(now_s)
            if back := self._requeueing.choose(wanted, now, jobs, budget_w, barred, now_s):
                told = await self._control.requeue(back, now_s)
                report = replace(report, problems=(*report.problems, *told))
        return wanted, report

    def _choose(self, now: Picture, budget_w: float) -> Plan:
        held = self._control.held
        if self._planner is None:
            return plan(now, budget_w, frozen=bool(held))
        cap_w = self._capping.in_force(held)
        wish = self._planner.plan(workload(now, cap_w), budget_w, asyncio.get_running_loop().time())
        return as_plan(now, wish, budget_w, cap_w, frozen=bool(held))

    def _shed_w(self, now: Picture) -> tuple[float, ...]:
        if self._planner is None:
            return sheddable(now)
        return self._planner.shed_w(workload(now, self._capping.in_force(self._control.held)))

    async def _read_back(self, budget_w: float, wanted: Plan, report: Report) -> Applied:
        """Return the budget when all of the plan is seen to be in force, else the power to expect. [W]"""
        _, now = await self._look()
        running = [load for load in now.loads.values() if load.id in wanted.stop and not load.stopped]
        spots = now.spots
        running_w = sum(spots[n].full_w[load.id] for load in running for n in load.nodes if n in spots)
        above_w = (max(spots[n].draw_w() - wanted.cap_w.get(n, 0.0), 0.0) for n in report.uncapped if n in spots)
        expected_w = wanted.expected_w + running_w + sum(above_w)
        detail = [f"{len(wanted.stop)} stopped, {len(wanted.cap_w)} capped", *wanted.refused, *report.problems]
        detail += [f"job {load.id}: still runs" for load in running]
        if missing := self._capping.missing(now.spots):
            detail.append(f"{len(missing)} nodes cannot be capped: {', '.join(missing[:_NAMED])}")
        return applied(budget_w, expected_w if wanted.freeze else budget_w, detail)

    async def _restore(self) -> None:
        """Let go of everything; in rounds, because each takes a second at most."""
        held = self._control.held
        while True:
            before = len(held.touched)
            jobs, now = await self._look()
            report = await self._control.carry_out(_NOTHING, now, jobs, asyncio.get_running_loop().time())
            self._trouble = "; ".join(report.problems)
            if not held or len(held.touched) >= before:
                break
        if held:
            why = f"not all is restored: {self._trouble or 'another round is needed'}"
            raise Refused(why) if report.refused else Unreachable(why)

    async def _tend(self) -> None:
        """Keep the lease, the longest pauses and the starts of new jobs; what fails is tried again in the next round."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TEND_S)
            async with self._turn:
                try:
                    await self._round(loop.time())
                except DeviceError as error:
                    self._trouble = f"held jobs cannot be looked after: {error}" if self._control.held else ""

    async def _round(self, now_s: float) -> None:
        held = self._control.held
        if self._config.renew_token and now_s >= self._token_due_s:
            await self._link.renew_token()
            self._token_due_s = now_s + self._config.token_life_s / 2.0
        if now_s >= held.until_s:
            held.budget_w = None
        if held.budget_w is not None:
            await self._enforce(held.budget_w)
        elif now_s >= held.until_s:
            self._trouble = ""
            if held:
                await self._restore()
            elif self._control.freed.watched(now_s):
                jobs, _ = await self._link.look()
                await self._control.take_back(jobs, frozenset(), now_s)


@asynccontextmanager
async def connect(config: SlurmConfig) -> AsyncIterator[SlurmCluster]:
    """Open a cluster; on the way out everything is given back, except after a lost link: then the next connection goes on."""
    timeout = httpx.Timeout(config.timeout_s)
    async with (
        httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
        connect_through(client, config) as cluster,
    ):
        yield cluster


@asynccontextmanager
async def connect_through(client: httpx.AsyncClient, config: SlurmConfig) -> AsyncIterator[SlurmCluster]:
    """Open a cluster through a given HTTP client."""
    async with sources(config, client) as beside:
        journal = Journal(config.journal)
        cluster = SlurmCluster(config, SlurmLink(config, client), beside, journal)
        try:
            async with giving_back(cluster):
                yield cluster
        finally:
            journal.close()


ADAPTER = Adapter(SlurmConfig, connect)
