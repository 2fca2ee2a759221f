"""The Slurm commands of this machine: for what slurmrestd cannot do, and when it does not answer."""

from __future__ import annotations

import asyncio
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from adapters._slurm_jobs import PENDING, Job, Node, Reservation, expand, gpus_in, is_held, is_on, watts
from adapters._slurm_rest import RESERVE, Denied, JobGone, read_token
from vppd.errors import Garbled, Refused, Unreachable

# id, state, reason, partition, user, QOS, nodes, CPUs, GRES per node, limit, priority, comment
_COLUMNS = ("%A", "%T", "%r", "%P", "%u", "%q", "%N", "%C", "%b", "%l", "%Q", "%k")
_CHOICES = ("SQUEUE_", "SCANCEL_", "SLURM_CLUSTERS")
"""Settings in the environment that would hide jobs from the commands."""
_NOT_BY_TOKEN = ("suspend", "resume", "token")
"""The answers to these cannot be read without munge."""
_SCANCEL_S, _SCANCEL_TRIES = 0.5, 3
_LIMIT = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)$")
_DENIED = re.compile(r"access/permission denied|invalid user id|protocol authentication", re.IGNORECASE)
_GONE = re.compile(r"invalid job id|already complet|already finished", re.IGNORECASE)
_SILENT = re.compile(r"unable to contact|communication|connection|timed out|slurm_load", re.IGNORECASE)


class _Late(Unreachable):
    """A command that did not end in time."""


class SlurmCommands:
    """scontrol, squeue and scancel, each run bounded in time; what our own user may not do is tried with the token."""

    def __init__(self, folder: str, slurm_conf: Path | None, timeout_s: float, token_file: Path | None = None) -> None:
        self._folder = Path(folder) if folder else None
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(_CHOICES)}
        if slurm_conf:
            self._environment["SLURM_CONF"] = str(slurm_conf)
        self._environment |= {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}
        self._timeout_s = timeout_s
        self._token_file = token_file

    async def jobs(self) -> list[Job]:
        """Return every job. Raises Unreachable, Refused or Garbled."""
        # Users write comments: what parts columns and records must be nothing they can know.
        column, record = (f"<{secrets.token_hex(8)}>" for _ in range(2))
        columns = record + column.join(_COLUMNS)
        text = await self._run("squeue", "--noheader", "--all", "--array", "--states=all", f"--format={columns}")
        return [_job(part.removesuffix("\n").split(column)) for part in text.split(record)[1:]]

    async def nodes(self) -> list[Node]:
        """Return every node. Raises Unreachable, Refused or Garbled."""
        text = await self._run("scontrol", "--all", "--oneliner", "show", "nodes")
        return [_node(line) for line in text.splitlines() if line.startswith("NodeName=")]

    async def comment(self, job_id: int, comment: str, limit_min: int | None = None) -> None:
        """Write a job's comment, and its time limit if given. Raises JobGone or another DeviceError."""
        limit = (f"TimeLimit={limit_min}",) if limit_min is not None else ()
        await self._run("scontrol", "update", f"JobId={job_id}", f"Comment={comment}", *limit)

    async def hold(self, job_id: int, held: bool) -> None:
        """Hold a pending job, or let it go. Raises JobGone or another DeviceError."""
        await self._run("scontrol", "hold" if held else "release", str(job_id))

    async def requeue(self, job_id: int) -> None:
        """Put a running job back into the queue, held. Raises JobGone or another DeviceError."""
        await self._run("scontrol", "requeuehold", str(job_id))

    async def signal_steps(self, job_ids: Iterable[int], name: str) -> None:
        """Signal the srun steps of jobs, not their batch scripts. Raises JobGone or another DeviceError."""
        await self._scancel(f"--signal={name}", *map(str, job_ids))

    async def signal_scripts(self, job_ids: Iterable[int], name: str) -> None:
        """Signal the batch scripts of jobs and their children. Raises JobGone or another DeviceError."""
        await self._scancel("--full", f"--signal={name}", *map(str, job_ids))

    async def suspend(self, job_id: int, suspended: bool) -> None:
        """Suspend a job, which frees its CPUs, or resume it. Raises JobGone or another DeviceError."""
        await self._run("scontrol", "suspend" if suspended else "resume", str(job_id))

    async def partition_state(self, name: str) -> str:
        """Return UP, DOWN, DRAIN or INACTIVE. Raises Unreachable, Refused or Garbled."""
        found = re.search(
            r"\bState=(\w+)", await self._run("scontrol", "--all", "--oneliner", "show", "partition", name)
        )
        if found is None:
            raise Garbled(f"scontrol names no state of partition {name}")
        return found[1]

    async def set_partition(self, name: str, state: str) -> None:
        """Set a partition UP or DOWN. Raises Unreachable or Refused."""
        await self._run("scontrol", "update", f"PartitionName={name}", f"State={state}")

    async def reservations(self) -> list[Reservation]:
        """Return every reservation. Raises Unreachable, Refused or Garbled."""
        text = await self._run("scontrol", "--all", "--oneliner", "show", "reservations")
        return [_reservation(line) for line in text.splitlines() if line.startswith("ReservationName=")]

    async def reserve(self, wanted: Reservation, user_name: str, exists: bool) -> None:
        """Create a reservation, or change its nodes. Raises Unreachable or Refused."""
        name, nodes = f"ReservationName={wanted.name}", f"Nodes={','.join(wanted.nodes)}"
        if exists:
            await self._run("scontrol", "update", name, nodes)
            return
        span = (f"StartTime={_clock(wanted.start)}", f"EndTime={_clock(wanted.end)}")
        await self._run(
            "scontrol", "create", "reservation", name, *span, nodes, f"Users={user_name}", f"Flags={','.join(RESERVE)}"
        )

    async def unreserve(self, name: str) -> None:
        """Delete a reservation. Raises Unreachable or Refused."""
        await self._run("scontrol", "delete", f"ReservationName={name}")

    async def token(self, user_name: str, life_s: int) -> str:
        """Return a new token for slurmrestd. Raises Unreachable or Refused."""
        text = await self._run("scontrol", "token", f"username={user_name}", f"lifespan={life_s}")
        if "=" not in text:
            raise Refused(f"scontrol mints no token: {text.strip()[:80]}")
        return text.strip().split("=", 1)[1]

    async def _scancel(self, *arguments: str) -> None:
        """Run scancel, which sleeps five seconds when Slurm is still about an earlier signal, for some milliseconds mostly."""
        for _ in range(_SCANCEL_TRIES - 1):
            try:
                await self._run("scancel", *arguments, for_s=_SCANCEL_S)
            except _Late:
                continue
            else:
                return
        await self._run("scancel", *arguments)

    async def _run(self, command: str, *arguments: str, for_s: float = math.inf) -> str:
        """Return what a command printed. Raises Unreachable (also past the time limit), JobGone, Denied or Refused."""
        try:
            return await self._once(command, *arguments, for_s=for_s, environment=self._environment)
        except Denied:
            if self._token_file is None or arguments[0] in _NOT_BY_TOKEN:
                raise
        token = await asyncio.to_thread(read_token, self._token_file)
        return await self._once(command, *arguments, for_s=for_s, environment={**self._environment, "SLURM_JWT": token})

    async def _once(self, command: str, *arguments: str, for_s: float, environment: Mapping[str, str]) -> str:
        program = str(self._folder / command) if self._folder else command
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise Refused(f"{program} cannot be run: {error.strerror}") from error
        limit_s = min(self._timeout_s, for_s)
        try:
            async with asyncio.timeout(limit_s):
                out, complaint = await process.communicate()
        except TimeoutError as error:
            raise _Late(f"{command} took longer than {limit_s:g} s") from error
        finally:
            await _ended(process)
        if process.returncode:
            raise _failure(command, complaint.decode(errors="replace") or out.decode(errors="replace"))
        return out.decode(errors="replace")


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a command that is not waited for any more; nothing is left running behind a cancellation."""
    if process.returncode is None:
        process.kill()
        await process.wait()


def _failure(command: str, said: str) -> Refused | Unreachable:
    text = f"{command}: {' '.join(said.split())[:200]}"
    if _GONE.search(said):
        return JobGone(text)
    if _DENIED.search(said):
        return Denied(text)
    return Unreachable(text) if _SILENT.search(said) else Refused(text)


def _job(fields: list[str]) -> Job:
    if len(fields) != len(_COLUMNS):
        raise Garbled(f"squeue printed {len(fields)} columns instead of {len(_COLUMNS)}")
    number, state, reason, partition, user, qos, hosts, cpus, gres, limit, priority, comment = fields
    nodes = tuple(expand(hosts))
    return Job(
        id=int(number),
        state=state,
        partition=partition,
        user=user,
        qos=_or_nothing(qos),
        comment=_or_nothing(comment),
        nodes=nodes,
        cpus=int(cpus),
        gpus=gpus_in(gres) * max(len(nodes), 1),
        held=state == PENDING and is_held(reason, int(priority)),
        priority=int(priority),
        limit_min=_minutes(limit),
    )


def _node(line: str) -> Node:
    said = dict(re.findall(r"(\w+)=(\S*)", line))
    draw = said.get("CurrentWatts", "")
    return Node(
        name=said["NodeName"],
        partitions=tuple(filter(None, said.get("Partitions", "").split(","))),
        cpus=int(said.get("CPUTot", 0)),
        gpus=gpus_in(f"{said.get('CfgTRES', '')},{said.get('Gres', '')}"),
        power_w=watts(int(draw)) if draw.isdecimal() else None,
        on=is_on(tuple(said.get("State", "").split("+"))),
    )


def _reservation(line: str) -> Reservation:
    said = dict(re.findall(r"(\w+)=(\S*)", line))
    try:
        start, end = (datetime.fromisoformat(said[key]).replace(tzinfo=UTC) for key in ("StartTime", "EndTime"))
        nodes = tuple(expand(_or_nothing(said.get("Nodes", ""))))
    except (KeyError, ValueError) as error:
        raise Garbled(f"a reservation scontrol describes makes no sense: {error!r}") from error
    return Reservation(said["ReservationName"], start, end, nodes)


def _clock(at: datetime) -> str:
    """Return a time as scontrol takes it, in UTC like everything in our environment; whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _or_nothing(text: str) -> str:
    return "" if text in ("(null)", "N/A") else text


def _minutes(text: str) -> int | None:
    """Return a limit such as ``1-02:30:00`` or ``5:00``; None for UNLIMITED. [min]"""
    found = _LIMIT.match(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + minutes + (1 if seconds else 0)
