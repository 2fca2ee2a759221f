"""Forty jobs in four tiers on a real Slurm, the diaries they keep, and what a diary says about the promise made to its job."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.integration.slurm_room import Daemon, Dispatcher
from tests.integration.slurm_work import paced, paced_result
from tests.servers.slurm import SlurmServer, until

BASE_W, IDLE_W, JOB_W = 16_000.0, 1_000.0, 2_000.0
"""The rest of the room; a node with nothing on it; a job of one CPU. [W]"""
NODES, CPUS = 4, 10
TIERS = (0, 1, 2, 3)
TOLERANCE_FRAC = (0.0, 0.10, 0.25, 0.50)
"""What the tiers promise: average slow-down."""
SETTLED_S = 2.0
"""Meter and cluster are read once a second each, so that a fall may be corrected once."""
CORRECTED_S = 5.0
"""Longest time above the target that corrects itself. [s]"""
OVER = "over"
"""The file that lets the long jobs come to their end."""


@dataclass(frozen=True)
class Diary:
    """What one job wrote down."""

    steps_at_s: tuple[float, ...]
    pauses: tuple[tuple[float, float], ...]
    """From the last burst before a pause to the moment it was let go on, wall clock. [s]"""

    @classmethod
    def read(cls, path: Path) -> Diary:
        """Read the diary of a job; it is empty before the job has started."""
        lines = path.read_text(encoding="ascii").split("\n")[:-1] if path.exists() else []
        steps_at_s: list[float] = []
        pauses: list[tuple[float, float]] = []
        for line in lines:
            stamp, what = line.split()
            if what != "on":
                steps_at_s.append(float(stamp))
                continue
            since_s = steps_at_s[-1] if steps_at_s else float(stamp)
            if pauses and pauses[-1][0] == since_s:
                del pauses[-1]
            pauses.append((since_s, float(stamp)))
        return cls(tuple(steps_at_s), tuple(pauses))

    @cached_property
    def longest_gap_s(self) -> float:
        """Return the longest time without a burst for which no pause accounts. [s]"""
        paused = {since_s for since_s, _ in self.pauses}
        steps = zip(self.steps_at_s, self.steps_at_s[1:], strict=False)
        return max((then_s - at_s for at_s, then_s in steps if at_s not in paused), default=0.0)

    def worst_s(self, window_s: float, dead_s: Sequence[tuple[float, float]]) -> float:
        """Return how long the job stood still in the window in which it stood longest, while anybody could have let it go. [s]

        That window begins with a pause or ends with one. ``dead_s``: from when till when nobody could. [s]
        """
        begins_s = [since_s for since_s, _ in self.pauses] + [end_s - window_s for _, end_s in self.pauses]
        return max((self._lost_s(at_s, at_s + window_s, dead_s) for at_s in begins_s), default=0.0)

    def _lost_s(self, from_s: float, to_s: float, dead_s: Sequence[tuple[float, float]]) -> float:
        lost = [(max(since_s, from_s), min(end_s, to_s)) for since_s, end_s in self.pauses]
        both = [(max(a_s, c_s), min(b_s, d_s)) for a_s, b_s in lost for c_s, d_s in dead_s]
        return sum(max(b_s - a_s, 0.0) for a_s, b_s in lost) - sum(max(b_s - a_s, 0.0) for a_s, b_s in both)


@dataclass
class Hall:
    """The jobs; also what the meter asks, which goes by their processes alone."""

    server: SlurmServer
    chance: random.Random
    tier_of: dict[int, int] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    """Jobs that found no place at first."""
    drawing: frozenset[int] = frozenset()
    """Jobs that can run now."""
    _pid_of: dict[int, int] = field(default_factory=dict)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        """Return where the jobs write."""
        return self.server.base / "out"

    @property
    def power_w(self) -> float:
        """Return what the meter sees. [W]"""
        return BASE_W + NODES * IDLE_W + JOB_W * len(self.drawing)

    def look(self) -> None:
        """Look again which jobs can run; the meter does so in a thread of its own."""
        with self._one_at_a_time:
            for path in self.folder.glob("pid.*"):
                job = int(path.suffix[1:])
                if job not in self._pid_of and (text := path.read_text(encoding="ascii").strip()):
                    self._pid_of[job] = int(text)
            self.drawing = frozenset(job for job, pid in self._pid_of.items() if _can_run(pid))

    def fill(self) -> None:
        """Take every place, by ten jobs of each tier of which some are short, and let some more wait."""
        places = NODES * CPUS
        for place in range(places):
            tier = place % len(TIERS)
            short = place >= places - 8
            bursts = self.chance.randint(60, 200) if short else 100
            self._submit(tier, paced(bursts, "" if short else OVER))
        until(lambda: len(self._on()) == places, "all places are taken", 60.0, self._on)
        self.waiting = [self._submit(tier, paced(40, OVER)) for tier in (3, 2, 1) * 4]

    def started(self) -> frozenset[int]:
        """Return those who waited and have begun."""
        return frozenset(job for job in self.waiting if (self.folder / f"pid.{job}").exists())

    def ended(self) -> frozenset[int]:
        """Return those who have come to a result."""
        return frozenset(int(path.suffix[1:]) for path in self.folder.glob("result.*"))

    def diaries(self) -> dict[int, Diary]:
        """Return the diaries of all jobs."""
        return {job: Diary.read(self.folder / f"diary.{job}") for job in self.tier_of}

    def finish(self) -> None:
        """Let the long jobs end, and see each job COMPLETED at its first run, with the right result and its own comment."""
        (self.folder / OVER).touch()
        until(lambda: self.ended() == self.tier_of.keys(), "all have a result", 90.0, lambda: self.drawing)
        until(lambda: not self.server.run("squeue", "-h"), "the queue is empty", 30.0)
        for job, tier in self.tier_of.items():
            shown = self.server.show(job)
            assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "0"), shown
            assert shown["Comment"].strip() == f"vpp:tier={tier} mine"
            bursts, result = map(int, (self.folder / f"result.{job}").read_text(encoding="ascii").split())
            assert result == paced_result(bursts)
            assert bursts == len(Diary.read(self.folder / f"diary.{job}").steps_at_s)

    def _submit(self, tier: int, script: str) -> int:
        job = self.server.submit(script, f"--comment=vpp:tier={tier} mine", "-t10")
        self.tier_of[job] = tier
        return job

    def _on(self) -> frozenset[int]:
        self.look()
        return self.drawing


def _can_run(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "TtZX"
    return False


@dataclass
class Rounds:
    """Event after event, and what was seen."""

    hall: Hall
    daemon: Daemon
    dispatcher: Dispatcher
    falls_s: list[float] = field(default_factory=list)
    rises_s: list[float] = field(default_factory=list)
    dead_s: list[tuple[float, float]] = field(default_factory=list)
    """From when till when nobody could let a job go on, wall clock. [s]"""

    def fall_to(self, target_w: float, for_s: float = 15.0) -> None:
        """Wait until the feed draws no more than its target, and goes on doing so. [W]"""
        began_s = below_s = time.monotonic()
        while (now_s := time.monotonic()) - below_s < SETTLED_S:
            if self.hall.power_w > target_w:
                below_s = now_s
            assert now_s - began_s < for_s, self._seen(target_w)
            time.sleep(0.1)
        self.falls_s.append(below_s - began_s)

    def hold(self, target_w: float, before: frozenset[int], for_s: float) -> None:
        """See for some time that the feed stays at its target, and that nobody who waits has begun since ``before``. [W]

        When a job ends meter and cluster differ for one reading, and a job or two may go on: that has to be put right at once.
        """
        now_s = began_s = below_s = time.monotonic()
        while now_s - began_s < for_s or below_s < now_s:
            time.sleep(0.2)
            now_s = time.monotonic()
            if self.hall.power_w <= target_w:
                below_s = now_s
            assert now_s - below_s < CORRECTED_S, self._seen(target_w)
            fresh = self.hall.started() - before
            assert not fresh, self._seen(target_w, fresh)

    def outage(self, end: Callable[[], None], start: Callable[[], None]) -> None:
        """Take something away that no job can be let go without, and bring it back."""
        since_s = time.time()
        end()
        time.sleep(1.0)
        start()
        self.dead_s.append((since_s, time.time()))

    def rise(self, for_s: float = 60.0) -> None:
        """Wait until no job is held down any more, and the daemon has read so from meter and cluster alike."""
        began_s = time.monotonic()

        def held() -> list[str]:
            return self.hall.server.run("squeue", "-h", "-t", "STOPPED", "-o", "%A").split()

        until(lambda: not held(), "all go on", for_s, held)
        self.rises_s.append(time.monotonic() - began_s)
        until(self._is_read, "meter and cluster are read", for_s, self.daemon.state)

    def _is_read(self) -> bool:
        hall = self.daemon.asset()
        read_w = self.daemon.state()["power_w"]
        return bool(read_w == self.hall.power_w and hall["power_w"] == hall["available_w"] == read_w - BASE_W)

    def _seen(self, target_w: float, fresh: frozenset[int] = frozenset()) -> str:
        log = "\n".join(self.daemon.log().splitlines()[-10:])
        jobs = "\n".join(str(self.hall.server.show(job)) for job in fresh)
        return f"round {len(self.falls_s)}: {self.hall.power_w:g} W of {target_w:g} W\n{log}\n{jobs}"
