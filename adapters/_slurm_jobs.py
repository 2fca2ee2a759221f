"""Jobs and nodes as the adapter sees them, whichever way it asked; and what a job's own words and place say about its tier."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vppd.errors import Garbled

Json = Mapping[str, Any]

RUNNING = "RUNNING"
STOPPED = "STOPPED"
SUSPENDED = "SUSPENDED"
PENDING = "PENDING"
ENDING = ("COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
LIVE = (RUNNING, STOPPED, SUSPENDED)
_MARK = re.compile(r"\s*\bvpp:held=(\w+)")
_TIER = re.compile(r"\bvpp:tier=([0-3])\b")
_FAMILY = re.compile(r"\bvpp:family=([\w.-]+)")
_STOPSAFE = re.compile(r"\bvpp:stopsafe\b")
_REQUEUES = re.compile(r"\bvpp:requeue\b")
_GPUS = re.compile(r"(?:gres/|gres:|\b)gpu(?::[A-Za-z][\w.-]*)?[=:](\d+)")
_NO_VALUE = 0xFFFFFFFE
_NODE_OFF = ("POWERED_DOWN", "FUTURE")


@dataclass(frozen=True, slots=True)
class Job:
    """One job of any state."""

    id: int
    state: str
    partition: str
    user: str = ""
    qos: str = ""
    comment: str = ""
    nodes: tuple[str, ...] = ()
    cpus: int = 0
    gpus: int = 0
    held: bool = False
    """A pending job that nobody lets start."""
    priority: int = 0
    limit_min: int | None = None
    """Time limit; None for no limit. [min]"""

    @property
    def partitions(self) -> tuple[str, ...]:
        """Return where it is, or where it may start when it waits: one of several."""
        return tuple(self.partition.split(","))

    @property
    def mark(self) -> str:
        """Return what this adapter, or an earlier run of it, wrote into the comment: stop, suspend, hold or nothing."""
        found = _MARK.search(self.comment)
        return found[1] if found else ""

    @property
    def own_tier(self) -> int | None:
        """Return the tier the job names itself, if it does."""
        found = _TIER.search(self.comment)
        return int(found[1]) if found else None

    @property
    def family(self) -> str:
        """Return its class of work: by its own word, else what one user runs in one partition."""
        found = _FAMILY.search(self.comment)
        return found[1] if found else f"{self.partition}/{self.user}"

    @property
    def stopsafe(self) -> bool:
        """Say whether all of the job may be stopped at any time without harm, on several nodes too."""
        return len(self.nodes) == 1 or _STOPSAFE.search(self.comment) is not None

    @property
    def requeues(self) -> bool:
        """Say whether the job goes on from a checkpoint of its own when it is put back into the queue."""
        return _REQUEUES.search(self.comment) is not None

    def marked(self, what: str) -> str:
        """Return the comment with the mark put in (taken out when ``what`` is empty); the user's words stay."""
        bare = _MARK.sub("", self.comment)
        return f"{bare} vpp:held={what}".strip() if what else bare


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    name: str
    partitions: tuple[str, ...]
    cpus: int
    gpus: int = 0
    power_w: float | None = None
    """Measured power; None when nothing measures it. [W]"""
    on: bool = True
    """Not powered down."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Nodes kept free for a span of time."""

    name: str
    start: datetime
    end: datetime
    """Both aware UTC."""
    nodes: tuple[str, ...]


def job_from_json(body: Json) -> Job:
    """Return a job out of slurmrestd's words, v0.0.38 and later. Raises Garbled."""
    try:
        state = _state(body["job_state"])
        alloc = body.get("tres_alloc_str") or body.get("tres_req_str") or ""
        return Job(
            id=_number(body["job_id"]) or 0,
            state=state,
            partition=str(body.get("partition") or ""),
            user=str(body.get("user_name") or ""),
            qos=str(body.get("qos") or ""),
            comment=_comment(body.get("comment")),
            nodes=tuple(expand(body.get("nodes") or "")),
            cpus=_number(body.get("cpus")) or 0,
            gpus=gpus_in(alloc),
            held=state == PENDING and is_held(str(body.get("state_reason") or ""), _number(body.get("priority"))),
            priority=_number(body.get("priority")) or 0,
            limit_min=_number(body.get("time_limit")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"a job slurmrestd describes makes no sense: {error!r}") from error


def node_from_json(body: Json) -> Node:
    """Return a node out of slurmrestd's words. Raises Garbled."""
    try:
        energy = body.get("energy") or {}
        partitions = body.get("partitions") or ()
        return Node(
            name=str(body["name"]),
            partitions=tuple(partitions.split(",") if isinstance(partitions, str) else partitions),
            cpus=_number(body.get("cpus")) or 0,
            gpus=gpus_in(f"{body.get('tres') or ''},{body.get('gres') or ''}"),
            power_w=watts(_number(energy.get("current_watts"))),
            on=is_on(_flags(body.get("state")) + _flags(body.get("state_flags"))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Garbled(f"a node slurmrestd describes makes no sense: {error!r}") from error


def reservation_from_json(body: Json) -> Reservation:
    """Return a reservation out of slurmrestd's words. Raises Garbled."""
    try:
        start, end = (datetime.fromtimestamp(_number(body[key]) or 0, UTC) for key in ("start_time", "end_time"))
        return Reservation(str(body["name"]), start, end, tuple(expand(body.get("node_list") or "")))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Garbled(f"a reservation slurmrestd describes makes no sense: {error!r}") from error


def tier_of(job: Job, default: int, qos_tier: Mapping[str, int], partition_tier: Mapping[str, int]) -> int:
    """Return a job's flex tier: its own word, else its QOS's, else its least tolerant partition's, else the default."""
    if job.own_tier is not None:
        return job.own_tier
    return qos_tier.get(job.qos, min(partition_tier.get(name, default) for name in job.partitions))


def is_held(reason: str, priority: int | None) -> bool:
    """Say whether a pending job is held, by anybody."""
    return priority == 0 or reason.startswith("JobHeld")


def is_on(flags: tuple[str, ...]) -> bool:
    """Say whether a node draws power, by its state words; one that Slurm calls down mostly does."""
    return not any(flag in _NODE_OFF for flag in flags)


def gpus_in(text: str) -> int:
    """Return the number of GPUs in a TRES or GRES string: ``gres/gpu=4``, ``gpu:h100:8(S:0-1)``."""
    found = _GPUS.search(text)
    return int(found[1]) if found else 0


def watts(power_w: int | None) -> float | None:
    """Return a node's power; Slurm says 0 where nothing measures it. [W]"""
    return float(power_w) if power_w else None


def expand(hosts: str) -> Iterator[str]:
    """Yield the names of a Slurm host list such as ``gpu[01-03,7],login``. Raises ValueError."""
    if hosts.count("[") != hosts.count("]"):
        raise ValueError(f"{hosts} is not a host list")
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", hosts):
        opening = item.find("[")
        if opening < 0:
            yield item.strip()
            continue
        closing = item.index("]", opening)
        for middle in _ranges(item[opening + 1 : closing]):
            yield from expand(item[:opening] + middle + item[closing + 1 :])


def _ranges(text: str) -> Iterator[str]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not last:
            yield first
            continue
        for number in range(int(first), int(last) + 1):
            yield str(number).zfill(len(first))


def _state(value: object) -> str:
    """Return one word for a job's state; newer versions give a list, and STOPPED is a flag beside RUNNING."""
    words = _flags(value)
    for word in (STOPPED, SUSPENDED):
        if word in words:
            return word
    return words[0] if words else ""


def _flags(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(re.split(r"[+, ]+", value.upper()))
    return tuple(str(word).upper() for word in value) if isinstance(value, list) else ()


def _number(value: object) -> int | None:
    """Return a number given plainly or as {"set", "infinite", "number"}; None for no value."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set", True) and not value.get("infinite") else None
    if value is None or value == "":
        return None
    number = int(float(str(value)))
    return None if number >= _NO_VALUE else number


def _comment(value: object) -> str:
    return str(value.get("job") or "") if isinstance(value, dict) else str(value or "")
