"""What a cluster has running and what is to become of it: the words between an adapter and whoever plans. Frozen, SI units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Knob(StrEnum):
    """How a job is slowed without being stopped."""

    NONE = "none"
    CAP = "cap"
    """Power limits of its nodes or GPUs."""
    CLOCK = "clock"
    """Locked clocks of its GPUs: the knob for decode, where no cap binds."""
    REPLICAS = "replicas"
    """Fewer replicas, in whole numbers."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job, gang or replica set that may be slowed or paused; all of it at once."""

    id: str
    tier: int
    """Flex tier 0-3; tier 0 is never touched."""
    full_w: float
    """What it draws at full speed, as measured where there is a measurement. [W]"""
    kept_w: float = 0.0
    """What it still draws while paused. [W]"""
    gpus: float = 1.0
    """Weight of its throughput: GPUs, or CPUs where it has none."""
    family: str = ""
    """Class of work: jobs of one family share what is learnt about their curve."""
    group: str = ""
    """Jobs of one group share nodes and are slowed alike; empty: it has its nodes for itself."""
    knob: Knob = Knob.NONE
    curve: tuple[tuple[float, float], ...] = ()
    """(power, throughput) as parts of full speed, deepest first, the last (1, 1); empty: the prior of the planner. [0-1]"""
    floor_frac: float = 1.0
    """The deepest level the knob allows, as a part of ``full_w``. [0-1]"""
    level_frac: float = 1.0
    """The level in force now, as read back. [0-1]"""
    power_w: float | None = None
    """Measured now; None: nobody measures it. [W]"""
    pausable: bool = False
    paused: bool = False
    """Paused by us."""
    restart_s: float = 0.0
    """After a pause it draws power and does nothing for so long. [s]"""
    checkpoint_s: float = 0.0
    """Work lost by pausing. [s]"""
    least_run_s: float = 0.0
    least_pause_s: float = 0.0
    most_pause_s: float = float("inf")
    slack_s: float = float("inf")
    """How much later it may end for its deadline. [s]"""


@dataclass(frozen=True, slots=True)
class Workload:
    """A cluster at one moment."""

    jobs: tuple[Job, ...]
    rest_w: float
    """What it draws beside the jobs: idle nodes, fans, work that is nobody's to touch. [W]"""
    power_w: float
    """What it draws now. [W]"""

    @property
    def full_w(self) -> float:
        """Return what it would draw if nothing were held back. [W]"""
        return self.rest_w + sum(job.full_w for job in self.jobs)


@dataclass(frozen=True, slots=True)
class Curtailment:
    """What is to be in force: every job that is not named runs at full speed."""

    level_frac: Mapping[str, float] = field(default_factory=dict)
    """Jobs to slow: power as a part of ``full_w``. [0-1]"""
    paused: frozenset[str] = frozenset()
    expected_w: float = 0.0
    """What the cluster then draws. [W]"""
    short_w: float = 0.0
    """What the budget would still need, and nobody may give. [W, >= 0]"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each touched job was chosen, in a short sentence."""
