"""Who draws what: the power of every node, shared out among its jobs, as measured or by the node model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from adapters._caps import Cap
from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import LIVE, RUNNING, STOPPED, SUSPENDED, Job, Node, tier_of
from adapters._slurm_journal import TOLERANCE_FRAC, Held

_STOPPED_BY_US = ("stop", "suspend")
_LAST_S = 3.0
"""A stopped job goes on when its account holds no more than this."""


@dataclass(frozen=True, slots=True)
class Load:
    """One live job, as the plan sees it."""

    id: int
    tier: int
    nodes: tuple[str, ...]
    credit_s: float
    stopped: bool
    """Stopped by us."""
    stoppable: bool
    """May be stopped, or stay so, now."""
    gpus: int = 1
    """Weight of its throughput: GPUs, or CPUs where it has none."""
    family: str = ""
    most_pause_s: float = 0.0
    """Longest pause its account allows, what has passed of the present one included. [s]"""


@dataclass(slots=True)
class Spot:
    """One node with what is on it; the loads' powers are those of full speed."""

    name: str
    power_w: float
    """Drawn now. [W]"""
    rest_w: float
    """What it draws with all its jobs stopped, but for what they keep then. [W]"""
    gpu_frac: float
    """Part of what a job draws that its GPUs draw; the rest does not follow a cap."""
    full_w: dict[int, float] = field(default_factory=dict)
    kept_w: dict[int, float] = field(default_factory=dict)
    """What a job still draws when stopped. [W]"""
    gpu_rest_w: dict[int, float] = field(default_factory=dict)
    """What the job's GPUs draw at rest; a cap counts that too. [W]"""
    now_w: dict[int, float] = field(default_factory=dict)
    """What each running job draws now, by the node's meter; empty without one. [W]"""
    floor_w: float = 0.0
    """Never capped below. [W]"""
    cappable: bool = False

    def draw_w(self, stopped: frozenset[int] = frozenset()) -> float:
        """Return what the node would draw without a cap and with these jobs stopped. [W]"""
        return self.rest_w + sum(self.kept_w[i] if i in stopped else w for i, w in self.full_w.items())


@dataclass(frozen=True, slots=True)
class Picture:
    """The cluster at one moment."""

    spots: Mapping[str, Spot]
    loads: Mapping[int, Load]

    @property
    def power_w(self) -> float:
        """Return what the cluster draws. [W]"""
        return sum(spot.power_w for spot in self.spots.values())

    @property
    def available_w(self) -> float:
        """Return what it would draw if nobody held it back. [W]"""
        return sum(spot.draw_w() for spot in self.spots.values())


def picture(
    config: SlurmConfig,
    jobs: Iterable[Job],
    nodes: Iterable[Node],
    held: Held,
    caps: Mapping[str, Cap],
    now_s: float,
    barred: frozenset[int] = frozenset(),
) -> Picture:
    """Return who draws what now, and what would be drawn if nothing were held down."""
    ours = {node.name: node for node in nodes if in_scope(config, node.partitions)}
    live = [job for job in jobs if job.state in LIVE and any(name in ours for name in job.nodes)]
    on: dict[str, list[Job]] = {name: [] for name in ours}
    for job in live:
        for name in job.nodes:
            if name in on:
                on[name].append(job)
    spots = {name: _spot(config, node, on[name], held, caps.get(name)) for name, node in ours.items()}
    return Picture(spots, {job.id: _load(config, job, held, now_s, barred) for job in live})


def in_scope(config: SlurmConfig, partitions: Iterable[str]) -> bool:
    """Say whether something in these partitions belongs to this asset."""
    return not config.partitions or any(name in config.partitions for name in partitions)


def job_tier(config: SlurmConfig, job: Job) -> int:
    """Return the tier of a job; one outside our partitions is not ours to touch."""
    if not in_scope(config, job.partitions):
        return 0
    return tier_of(job, config.default_tier, config.qos_tier, config.partition_tier)


def full_credit_s(config: SlurmConfig, tier: int) -> float:
    """Return the most an account holds: what the longest pause takes from it. [s of full stop]"""
    return config.max_pause_s.get(tier, 0.0) * (1.0 - TOLERANCE_FRAC[tier])


def held_by_us(job: Job, held: Held) -> str:
    """Return how we hold a job down, by the journal or by the mark in its comment; nothing when we do not."""
    touch = held.touched.get(job.id)
    return touch.what if touch else job.mark


def _load(config: SlurmConfig, job: Job, held: Held, now_s: float, barred: frozenset[int]) -> Load:
    tier = job_tier(config, job)
    full_s = full_credit_s(config, tier)
    account = held.credits.get(job.id)
    credit_s = account.at(now_s, tier, full_s) if account else full_s
    stopped = job.state in (STOPPED, SUSPENDED) and held_by_us(job, held) in _STOPPED_BY_US
    lasts_s = credit_s / (1.0 - TOLERANCE_FRAC[tier])
    may = tier > 0 and config.stop_method != "hold" and job.stopsafe and job.id not in barred
    may = may and (stopped or job.state == RUNNING)
    touch = held.touched.get(job.id)
    return Load(
        id=job.id,
        tier=tier,
        nodes=job.nodes,
        credit_s=credit_s,
        stopped=stopped,
        stoppable=may and lasts_s > (_LAST_S if stopped else config.min_pause_s),
        gpus=job.gpus or max(job.cpus, 1),
        family=job.family,
        most_pause_s=max(lasts_s - _LAST_S, 0.0) + (now_s - touch.since_s if stopped and touch else 0.0),
    )


def _spot(config: SlurmConfig, node: Node, jobs: list[Job], held: Held, cap: Cap | None) -> Spot:
    weight = {job.id: _weight(node, job) for job in jobs}
    active = {job.id for job in jobs if job.state == RUNNING}
    rest_w = config.node_idle_w if node.on else 0.0
    spot = Spot(node.name, 0.0, rest_w, _gpu_frac(config, node), floor_w=_floor_w(config, node, cap))
    for job in jobs:
        gpus = job.gpus / max(len(job.nodes), 1)
        spot.kept_w[job.id] = gpus * max(config.gpu_stopped_w - config.gpu_idle_w, 0.0)
        spot.gpu_rest_w[job.id] = gpus * config.gpu_idle_w
    kept_w = sum(w for i, w in spot.kept_w.items() if i not in active)
    model_w = (config.node_max_w - config.node_idle_w) * min(1.0, sum(weight[i] for i in active))
    measured_w = node.power_w if config.power_source != "model" else None
    spot.power_w = rest_w + kept_w + model_w if measured_w is None else measured_w
    if measured_w is not None:
        spot.rest_w = rest_w = min(rest_w, max(measured_w - kept_w, 0.0))
    share_w = _shares(max(spot.power_w - rest_w - kept_w, 0.0), {i: weight[i] for i in active})
    spot.now_w = share_w if measured_w is not None else {}
    spot.full_w = _full(config, spot, jobs, share_w, weight, held)
    spot.cappable = cap is not None
    return spot


def _full(
    config: SlurmConfig,
    spot: Spot,
    jobs: list[Job],
    share_w: Mapping[int, float],
    weight: Mapping[int, float],
    held: Held,
) -> dict[int, float]:
    """Return what each job draws at full speed: as measured, or as it did before the node was touched. [W]"""
    before_w = held.full_w.get(spot.name)
    full_w: dict[int, float] = {}
    for job in jobs:
        model_w = (config.node_max_w - config.node_idle_w) * weight[job.id]
        if before_w is None:
            ours = held_by_us(job, held) in _STOPPED_BY_US and job.state != RUNNING
            full_w[job.id] = model_w if ours else share_w.get(job.id, spot.kept_w[job.id])
        else:
            full_w[job.id] = before_w.get(job.id, model_w)
    return full_w


def _weight(node: Node, job: Job) -> float:
    """Return the part of the node that a job has."""
    spread = max(len(job.nodes), 1)
    if node.gpus and job.gpus:
        return job.gpus / spread / node.gpus
    return job.cpus / spread / node.cpus if node.cpus else 0.0


def _shares(power_w: float, weight: Mapping[int, float]) -> dict[int, float]:
    """Return power split by weight; in equal parts where nothing weighs. [W]"""
    total = sum(weight.values())
    if total <= 0.0:
        return {i: power_w / len(weight) for i in weight}
    return {i: power_w * w / total for i, w in weight.items()}


def _gpu_frac(config: SlurmConfig, node: Node) -> float:
    if not node.gpus:
        return 1.0
    span_w = max(config.node_max_w - config.node_idle_w, 1.0)
    return min(1.0, node.gpus * (config.gpu_max_w - config.gpu_idle_w) / span_w)


def _floor_w(config: SlurmConfig, node: Node, cap: Cap | None) -> float:
    """Return the lowest cap: half of what the GPUs may draw, and never lower than the agent itself allows. [W]"""
    following_w = min(node.gpus * config.gpu_max_w, config.node_max_w) if node.gpus else config.node_max_w
    floor_w = config.node_max_w - following_w * (1.0 - config.cap_floor_frac)
    return max(floor_w, cap.min_cap_w if cap else 0.0)
