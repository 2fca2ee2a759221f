"""What the adapter asks of a cluster: by REST where that answers and can, else by command line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import httpx

from adapters._slurm_cli import SlurmCommands
from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import Job, Node, Reservation
from adapters._slurm_rest import JobGone, SlurmRest
from vppd.errors import DeviceError, Refused, Unreachable

T = TypeVar("T")
Failures = Mapping[int, DeviceError]
"""Jobs that could not be changed, and why. A job that has ended meanwhile is not among them."""
_SIGNALS = {True: "STOP", False: "CONT"}
_AT_ONCE = 8
_REST_REST_S = 5.0
"""After REST failed to answer, the command line is asked at once for this long."""


class SlurmLink:
    """One cluster."""

    def __init__(self, config: SlurmConfig, client: httpx.AsyncClient) -> None:
        self._commands: SlurmCommands | None = None
        self._rest: SlurmRest | None = None
        self._rest_again_s = 0.0
        self._ask_watts = config.power_source == "slurm"
        mint: Callable[[], Awaitable[str]] | None = None
        if config.command_line:
            self._commands = SlurmCommands(
                config.command_folder, config.slurm_conf, config.command_timeout_s, config.token_file
            )
            if config.renew_token:
                mint = partial(self._commands.token, config.user_name, config.token_life_s)
        if config.url:
            self._rest = SlurmRest(client, config.url, config.user_name, config.token_file, mint)

    async def look(self) -> tuple[list[Job], list[Node]]:
        """Return every job and every node. Raises Unreachable, Refused or Garbled."""
        return await self._either(self._look_by_rest, self._look_by_command)

    async def mark(self, job: Job, comment: str, limit_min: int | None = None) -> bool:
        """Write a job's comment and, if given and permitted, its time limit; say whether the limit was written."""
        if limit_min is not None:
            try:
                await self._update(job.id, comment, limit_min)
            except JobGone:
                raise
            except Refused:
                pass  # an owner's token may not extend a limit; the comment alone is written below
            else:
                return True
        await self._update(job.id, comment, None)
        return False

    async def hold(self, job_id: int, held: bool) -> None:
        """Hold a pending job, or let it go. Raises JobGone or another DeviceError."""
        await self._either(
            lambda rest: rest.update(job_id, {"hold": held}), lambda commands: commands.hold(job_id, held)
        )

    async def requeue(self, job_id: int) -> None:
        """Put a running job back into the queue, held. Raises JobGone or another DeviceError."""
        await self._sure_commands().requeue(job_id)

    async def stop(self, job_ids: Iterable[int], stopped: bool) -> Failures:
        """Stop or continue every process of jobs, those of srun steps included where that can be done."""
        ids, signal = tuple(job_ids), _SIGNALS[stopped]
        failed: dict[int, DeviceError] = {}
        # The steps first: slurmrestd says at once when Slurm is still about an earlier signal, scancel sleeps over it.
        await self._signal_steps(ids, signal, failed)
        return {**failed, **await each(ids, partial(self._signal_script, signal))}

    async def stop_steps(self, job_ids: Iterable[int]) -> Failures:
        """Stop the srun steps of jobs once more: one that was being launched when its job was stopped has missed the signal."""
        failed: dict[int, DeviceError] = {}
        await self._signal_steps(tuple(job_ids), _SIGNALS[True], failed)
        return failed

    async def suspend(self, job_ids: Iterable[int], suspended: bool) -> Failures:
        """Suspend jobs, which frees their CPUs, or resume them."""
        if self._commands is None:
            raise Refused("slurmrestd cannot suspend; command_line is false")
        return await each(job_ids, partial(self._suspend_one, suspended))

    async def partition_state(self, name: str) -> str:
        """Return UP, DOWN, DRAIN or INACTIVE. Raises Unreachable, Refused or Garbled."""
        return await self._sure_commands().partition_state(name)

    async def set_partition(self, name: str, state: str) -> None:
        """Set a partition UP or DOWN. Raises Unreachable or Refused."""
        await self._sure_commands().set_partition(name, state)

    async def reservations(self) -> list[Reservation]:
        """Return every reservation. Raises Unreachable, Refused or Garbled."""
        return await self._either(lambda rest: rest.reservations(), lambda commands: commands.reservations())

    async def reserve(self, wanted: Reservation, user_name: str, exists: bool) -> None:
        """Create a reservation, or change its nodes. Raises Unreachable or Refused."""
        if self._rest is not None and (self._commands is None or await self._reserves(self._rest)):
            await self._rest.reserve(wanted, user_name, exists)
        else:
            await self._sure_commands().reserve(wanted, user_name, exists)

    async def unreserve(self, name: str) -> None:
        """Delete a reservation. Raises Unreachable or Refused."""
        if self._rest is not None and (self._commands is None or await self._reserves(self._rest)):
            await self._rest.unreserve(name)
        else:
            await self._sure_commands().unreserve(name)

    async def renew_token(self) -> None:
        """Mint a new token, where that has been arranged. Raises Unreachable or Refused."""
        if self._rest is not None:
            await self._rest.renew()

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _either(
        self, by_rest: Callable[[SlurmRest], Awaitable[T]], by_command: Callable[[SlurmCommands], Awaitable[T]]
    ) -> T:
        """Ask REST; when it does not answer, the command line: every request may be repeated without harm."""
        now_s = asyncio.get_running_loop().time()
        if self._rest is not None and (now_s >= self._rest_again_s or self._commands is None):
            try:
                return await by_rest(self._rest)
            except Unreachable:
                if self._commands is None:
                    raise
                self._rest_again_s = asyncio.get_running_loop().time() + _REST_REST_S
        return await by_command(self._sure_commands())

    @staticmethod
    async def _reserves(rest: SlurmRest) -> bool:
        try:
            return await rest.reserves()
        except Unreachable:
            return False

    def _sure_commands(self) -> SlurmCommands:
        if self._commands is None:
            raise Refused("slurmrestd cannot do this; command_line is false")
        return self._commands

    async def _look_by_rest(self, rest: SlurmRest) -> tuple[list[Job], list[Node]]:
        jobs, nodes = await rest.jobs(), await rest.nodes()
        if self._ask_watts and self._commands is not None and not any(node.power_w for node in nodes):
            drawn_w = {node.name: node.power_w for node in await self._commands.nodes()}
            self._ask_watts = any(
                drawn_w.values()
            )  # v0.0.38 does not tell; when scontrol cannot either, it is asked once
            nodes = [replace(node, power_w=drawn_w.get(node.name)) for node in nodes]
        return jobs, nodes

    @staticmethod
    async def _look_by_command(commands: SlurmCommands) -> tuple[list[Job], list[Node]]:
        return await commands.jobs(), await commands.nodes()

    async def _update(self, job_id: int, comment: str, limit_min: int | None) -> None:
        body = {"comment": comment, **({} if limit_min is None else {"time_limit": limit_min})}
        await self._either(
            lambda rest: rest.update(job_id, body), lambda commands: commands.comment(job_id, comment, limit_min)
        )

    async def _signal_script(self, signal: str, job_id: int) -> None:
        await self._either(
            lambda rest: rest.signal(job_id, f"SIG{signal}"),
            lambda commands: commands.signal_scripts((job_id,), signal),
        )

    async def _signal_steps(self, ids: tuple[int, ...], signal: str, failed: dict[int, DeviceError]) -> None:
        """Reach the processes of srun steps, which Slurm 22.05 leaves running when REST stops their job."""
        if not ids or self._commands is None or (self._rest is not None and self._rest.reaches_steps):
            return
        try:
            await self._commands.signal_steps(ids, signal)
        except JobGone:
            failed.update(await each(ids, lambda job_id: self._sure_commands().signal_steps((job_id,), signal)))
        except DeviceError as error:
            failed.update(dict.fromkeys(ids, error))

    async def _suspend_one(self, suspended: bool, job_id: int) -> None:
        await self._sure_commands().suspend(job_id, suspended)


async def each(
    job_ids: Iterable[int], change: Callable[[int], Awaitable[object]], at_once: int = _AT_ONCE
) -> dict[int, DeviceError]:
    """Change jobs, several at once, and return those that could not be changed; one that is gone needs no change."""
    failed: dict[int, DeviceError] = {}
    gate = asyncio.Semaphore(at_once)

    async def one(job_id: int) -> None:
        async with gate:
            try:
                await change(job_id)
            except JobGone:
                return
            except DeviceError as error:
                failed[job_id] = error

    async with asyncio.TaskGroup() as group:
        for job_id in job_ids:
            group.create_task(one(job_id))
    return failed
