"""A hall of GPU nodes and the jobs that run in it: power under caps, work done, starts and ends. Pure.

Jobs live in slots. A slot owns GPUs on one node or on several; when its job ends, the job that waits for the slot starts, unless it is
held. So the load stays level for as long as nobody intervenes, and every job can be followed from its start to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from vppd.sim.curves import gpu_power_w, throughput_frac
from vppd.snapshot import Floats, Ints

_GPU_LAG_S = 0.8
_NOISE_LAG_S = 15.0
_NOISE_FRAC = 0.015
_PAUSED_GPU_W = 90.0


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one job at a time."""

    nodes: tuple[int, ...]
    gpus_per_node: int
    tier: int
    job_class: int
    """Index into ``curves.CLASSES``."""

    @property
    def gpus(self) -> int:
        """Return the number of GPUs of the slot."""
        return len(self.nodes) * self.gpus_per_node


@dataclass(frozen=True, slots=True)
class HallSpec:
    """What a hall is built of."""

    name: str
    slots: tuple[Slot, ...]
    nodes: int = 32
    gpus_per_node: int = 8
    gpu_max_w: float = 700.0
    gpu_min_w: float = 200.0
    gpu_idle_w: float = 65.0
    node_idle_w: float = 1550.0
    """A node without its GPUs, nothing running. [W]"""
    node_busy_w: float = 2800.0
    """A node without its GPUs, all of them at work. [W]"""
    job_min_s: float = 1200.0
    job_max_s: float = 5400.0

    @property
    def node_max_w(self) -> float:
        """Return the most a node can draw. [W]"""
        return self.node_busy_w + self.gpus_per_node * self.gpu_max_w

    @property
    def node_min_cap_w(self) -> float:
        """Return the lowest cap a busy node can keep. [W]"""
        return self.node_busy_w + self.gpus_per_node * self.gpu_min_w


class End(StrEnum):
    """How a job left its slot."""

    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that ended in the last step."""

    job_id: int
    how: End
    done_gpu_s: float


@dataclass(frozen=True, slots=True, eq=False)
class HallCommands:
    """What the hall has been told, as it stands now."""

    cap_w: Floats
    """(nodes,) cap on each node, inf for none. [W]"""
    paused: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()
    cancelled: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class HallState:
    """Slots in columns: one array place per slot; 0 is no job."""

    job: Ints
    queued: Ints
    """(slots,) the job that waits for the slot."""
    done_gpu_s: Floats
    total_gpu_s: Floats
    gpu_w: Floats
    """(slots,) what each GPU of the slot draws. [W]"""
    noise_frac: Floats
    power_w: Floats
    """(nodes,) what each node draws. [W]"""
    next_id: int
    ended: tuple[Ended, ...] = ()
    completed: int = 0
    cancelled: int = 0
    work_gpu_s: float = 0.0
    """Work of all jobs so far, the lost included. [GPU s at full speed]"""
    lost_gpu_s: float = 0.0
    """Work of jobs that were killed. [GPU s]"""

    @property
    def total_w(self) -> float:
        """Return what the hall draws. [W]"""
        return float(self.power_w.sum())


class Hall:
    """The constant arrays of a hall, and its laws of motion; it holds no state."""

    def __init__(self, spec: HallSpec, seed: int, first_id: int) -> None:
        self.spec = spec
        self._seed = seed
        self._first_id = first_id
        self._gpus = np.array([s.gpus for s in spec.slots], dtype=np.float64)
        self._class = np.array([s.job_class for s in spec.slots], dtype=np.int64)
        share = np.zeros((spec.nodes, len(spec.slots)))
        for column, slot in enumerate(spec.slots):
            share[list(slot.nodes), column] = slot.gpus_per_node
        self._node_gpus = share
        self._on_node = share.T > 0.0
        self._free_gpus = spec.gpus_per_node - share.sum(axis=1)

    def no_commands(self) -> HallCommands:
        """Return commands that hold nothing back."""
        return HallCommands(np.full(self.spec.nodes, np.inf))

    def start(self) -> HallState:
        """Return the hall in the middle of a day: every slot busy, every job somewhere between start and end."""
        n = len(self.spec.slots)
        ids = np.arange(self._first_id, self._first_id + n)
        total_gpu_s = np.array([self._job_gpu_s(int(i), slot) for slot, i in enumerate(ids)])
        begun_frac = np.random.default_rng((self._seed, self._first_id)).uniform(0.05, 0.9, n)
        uncapped = np.full(n, self.spec.gpu_max_w)
        state = HallState(
            job=ids,
            queued=ids + n,
            done_gpu_s=total_gpu_s * begun_frac,
            total_gpu_s=total_gpu_s,
            gpu_w=gpu_power_w(self._class, uncapped, self.spec.gpu_max_w),
            noise_frac=np.zeros(n),
            power_w=np.zeros(self.spec.nodes),
            next_id=self._first_id + 2 * n,
            work_gpu_s=float((total_gpu_s * begun_frac).sum()),
        )
        return replace(state, power_w=self._node_power_w(state.gpu_w, state.job > 0))

    def step(
        self, state: HallState, commands: HallCommands, gauss: Floats, dt_s: float, plant_dt_s: float
    ) -> HallState:
        """Return the hall ``dt_s`` later: power follows in ``dt_s``, work goes on for ``plant_dt_s``; ``gauss`` is (slots,)."""
        active = (state.job > 0) & ~_among(state.job, commands.paused)
        cap_w = self._gpu_cap_w(commands.cap_w)
        noise_frac = _wander(state.noise_frac, gauss, dt_s)
        target_w = gpu_power_w(self._class, cap_w, self.spec.gpu_max_w) * (1.0 + noise_frac)
        target_w = np.where(
            active, np.minimum(target_w, cap_w), np.where(state.job > 0, _PAUSED_GPU_W, self.spec.gpu_idle_w)
        )
        gpu_w = state.gpu_w + (target_w - state.gpu_w) * (1.0 - np.exp(-dt_s / _GPU_LAG_S))
        speed_frac = np.where(active, throughput_frac(self._class, cap_w, self.spec.gpu_max_w), 0.0)
        left_gpu_s = state.total_gpu_s - state.done_gpu_s
        gain_gpu_s = np.minimum(speed_frac * self._gpus * plant_dt_s, left_gpu_s)
        moved = replace(
            state,
            done_gpu_s=state.done_gpu_s + gain_gpu_s,
            gpu_w=gpu_w,
            noise_frac=noise_frac,
            power_w=self._node_power_w(gpu_w, active),
            ended=(),
            work_gpu_s=state.work_gpu_s + float(gain_gpu_s.sum()),
        )
        return self._turn_over(moved, commands)

    def _gpu_cap_w(self, node_cap_w: Floats) -> Floats:
        """Return the cap per GPU of each slot: a job on several nodes goes at the pace of the slowest. [W]"""
        per_gpu_w = np.clip(
            (node_cap_w - self.spec.node_busy_w) / self.spec.gpus_per_node, self.spec.gpu_min_w, self.spec.gpu_max_w
        )
        result: Floats = np.where(self._on_node, per_gpu_w[None, :], np.inf).min(axis=1)
        return result

    def _node_power_w(self, gpu_w: Floats, active: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
        """Return what each node draws with its GPUs, fans and processors. [W]"""
        spec = self.spec
        busy_frac = self._node_gpus @ active.astype(np.float64) / spec.gpus_per_node
        result: Floats = (
            self._node_gpus @ gpu_w
            + self._free_gpus * spec.gpu_idle_w
            + spec.node_idle_w
            + (spec.node_busy_w - spec.node_idle_w) * busy_frac
        )
        return result

    def _turn_over(self, state: HallState, commands: HallCommands) -> HallState:
        """Return the hall after jobs that are finished or cancelled have left and waiting ones have started."""
        finished = (state.job > 0) & (state.done_gpu_s >= state.total_gpu_s)
        killed = _among(state.job, commands.cancelled) & ~finished
        waiting = (state.queued > 0) & ~_among(state.queued, commands.held)
        startable = ((state.job == 0) | finished | killed) & waiting
        if not (finished.any() or killed.any() or startable.any() or _among(state.queued, commands.cancelled).any()):
            return state
        return self._replace_jobs(state, commands, finished, killed)

    def _replace_jobs(
        self,
        state: HallState,
        commands: HallCommands,
        finished: np.ndarray[tuple[int], np.dtype[np.bool_]],
        killed: np.ndarray[tuple[int], np.dtype[np.bool_]],
    ) -> HallState:
        """Return the hall with the slots of ended jobs freed and filled again, slot by slot."""
        job, queued = state.job.copy(), state.queued.copy()
        done_gpu_s, total_gpu_s = state.done_gpu_s.copy(), state.total_gpu_s.copy()
        ended: list[Ended] = []
        next_id = state.next_id
        for slot in range(len(job)):
            if finished[slot] or killed[slot]:
                how = End.COMPLETED if finished[slot] else End.CANCELLED
                ended.append(Ended(int(job[slot]), how, float(done_gpu_s[slot])))
                job[slot], done_gpu_s[slot], total_gpu_s[slot] = 0, 0.0, 0.0
            if int(queued[slot]) in commands.cancelled:
                ended.append(Ended(int(queued[slot]), End.CANCELLED, 0.0))
                queued[slot], next_id = next_id, next_id + 1
            if job[slot] == 0 and int(queued[slot]) not in commands.held:
                job[slot] = queued[slot]
                total_gpu_s[slot] = self._job_gpu_s(int(job[slot]), slot)
                queued[slot], next_id = next_id, next_id + 1
        lost_gpu_s = sum(e.done_gpu_s for e in ended if e.how is End.CANCELLED)
        return replace(
            state,
            job=job,
            queued=queued,
            done_gpu_s=done_gpu_s,
            total_gpu_s=total_gpu_s,
            next_id=next_id,
            ended=tuple(ended),
            completed=state.completed + sum(e.how is End.COMPLETED for e in ended),
            cancelled=state.cancelled + sum(e.how is End.CANCELLED for e in ended),
            lost_gpu_s=state.lost_gpu_s + lost_gpu_s,
        )

    def _job_gpu_s(self, job_id: int, slot: int) -> float:
        """Return the size of a job, the same for the same seed and id. [GPU s]"""
        draw = np.random.default_rng((self._seed, job_id)).uniform(self.spec.job_min_s, self.spec.job_max_s)
        return float(draw) * self.spec.slots[slot].gpus


def default_slots() -> tuple[Slot, ...]:
    """Return 38 slots on 32 nodes of 8 GPUs: a quarter of the nodes for each flex tier, no node shared between tiers."""
    slots = [Slot((n,), 8, 0, 1) for n in range(8)]
    slots += [Slot((n,), 8, 1, n % 2) for n in range(8, 12)]
    slots += [Slot((12, 13), 8, 1, 2), Slot((14, 15), 8, 1, 2)]
    slots += [Slot((n,), 4, 2, n % 3) for n in range(16, 22) for _ in range(2)]
    slots += [Slot((22,), 8, 2, 0), Slot((23,), 8, 2, 1)]
    slots += [Slot((n,), 4, 3, n % 3) for n in range(24, 28) for _ in range(2)]
    slots += [Slot((28, 29), 8, 3, 2), Slot((30, 31), 8, 3, 2)]
    return tuple(slots)


def _among(jobs: Ints, ids: frozenset[int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which of the jobs are in the set."""
    if not ids:
        return np.zeros(len(jobs), dtype=np.bool_)
    return np.isin(jobs, list(ids))


def _wander(noise_frac: Floats, gauss: Floats, dt_s: float) -> Floats:
    """Return the noise ``dt_s`` later: it keeps its size and forgets within seconds."""
    keep_frac = float(np.exp(-dt_s / _NOISE_LAG_S))
    spread_frac = _NOISE_FRAC * float(np.sqrt(1.0 - keep_frac**2))
    result: Floats = noise_frac * keep_frac + gauss * spread_frac
    return result
