"""slurmrestd: version negotiation, the token, and errors that hide in good replies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from adapters._slurm_jobs import Job, Json, Node, Reservation, job_from_json, node_from_json, reservation_from_json
from vppd.errors import Garbled, Refused, Unreachable

RESERVE = ("MAINT", "IGNORE_JOBS", "FLEX")
"""Flags of a reservation: jobs that run already go on, and reservations of others may lie on the same nodes."""
OLDEST, NEWEST = 38, 46
_WRAPPED = 39
"""From this version on numbers that may be unset are objects."""
_VERSION = re.compile(r"/slurm/v0\.0\.(\d+)/jobs/?$")
_NO_SUCH_JOB = (2017, 2021, 2084)
_BUSY = 2020
"""Slurm is still about an earlier signal of that job; it takes some ten milliseconds."""
_BUSY_TRIES, _BUSY_REST_S = 25, 0.04
_DENIED = (2002, 2010, 1007, 7001)
_UNSPECIFIED = -1
"""What Slurm 22.05 says to a bad token (at once), and when slurmctld is silent (after ten seconds: the time limit comes first)."""
_PAST = ("already completing", "already finished", "invalid job id")


class JobGone(Refused):
    """The job has ended or never was: there is nothing left to do for it."""


class Denied(Refused):
    """The token is not good for this."""


class _Busy(Refused):
    """Not now: the same question some milliseconds later gets another answer."""


class SlurmRest:
    """One slurmrestd, in the newest version that it and we know."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        user_name: str,
        token_file: Path | None,
        mint: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._user_name = user_name
        self._token_file = token_file
        self._mint = mint
        self._token = ""
        self._read_at = (0, 0)
        self._path = ""
        self._signal_flags: tuple[str, ...] = ("",)
        self._reserves = False
        self._wraps = False

    async def jobs(self) -> list[Job]:
        """Return every job. Raises Unreachable, Refused or Garbled."""
        return [job_from_json(body) for body in _rows(await self._ask("GET", "/jobs"), "jobs")]

    async def nodes(self) -> list[Node]:
        """Return every node. Raises Unreachable, Refused or Garbled."""
        return [node_from_json(body) for body in _rows(await self._ask("GET", "/nodes"), "nodes")]

    async def reservations(self) -> list[Reservation]:
        """Return every reservation. Raises Unreachable, Refused or Garbled."""
        rows = _rows(await self._ask("GET", "/reservations"), "reservations")
        return [reservation_from_json(body) for body in rows]

    async def reserves(self) -> bool:
        """Say whether this version can write reservations: v0.0.43 on. Raises Unreachable, Refused or Garbled."""
        await self._negotiated()
        return self._reserves

    async def reserve(self, wanted: Reservation, user_name: str, exists: bool) -> None:
        """Create a reservation, or change its nodes. Raises Unreachable or Refused."""
        body: dict[str, Any] = {"name": wanted.name, "node_list": list(wanted.nodes)}
        if not exists:
            span = {"start_time": wanted.start, "end_time": wanted.end}
            body |= {key: {"set": True, "number": round(at.timestamp())} for key, at in span.items()}
            body |= {"users": [user_name], "flags": list(RESERVE)}
        await self._ask("POST", "/reservation", json=body)

    async def unreserve(self, name: str) -> None:
        """Delete a reservation. Raises Unreachable or Refused."""
        await self._ask("DELETE", f"/reservation/{name}")

    async def update(self, job_id: int, body: Json) -> None:
        """Change a job. Raises JobGone or another DeviceError."""
        await self._negotiated()
        flat = dict(body)
        if "time_limit" in flat and self._wraps:
            flat["time_limit"] = {"set": True, "infinite": False, "number": flat["time_limit"]}
        await self._ask("POST", f"/job/{job_id}", json=flat)

    async def signal(self, job_id: int, name: str) -> None:
        """Send a signal to all of a job, as far as this version reaches. Raises JobGone or another DeviceError."""
        await self._negotiated()
        for flags in self._signal_flags:
            params = {"signal": name, **({"flags": flags} if flags else {})}
            await self._persist("DELETE", f"/job/{job_id}", params=params)

    async def _persist(self, method: str, path: str, **how: Any) -> None:
        """Make one request until Slurm is not busy with the job any more. Raises Unreachable when it stays so."""
        for _ in range(_BUSY_TRIES):
            try:
                await self._ask(method, path, **how)
            except _Busy:
                await asyncio.sleep(_BUSY_REST_S)
            else:
                return
        raise Unreachable(f"Slurm stays busy: {method} {path}")

    async def renew(self) -> None:
        """Mint a new token, where that has been arranged. Raises Unreachable or Refused."""
        if self._mint is not None:
            self._token = await self._mint()

    @property
    def reaches_steps(self) -> bool:
        """Say whether a signal reaches the processes of srun steps too: Slurm 22.05 stops the batch script alone."""
        return len(self._signal_flags) > 1

    async def _ask(self, method: str, path: str, **how: Any) -> Json:
        """Return the reply to one request; a refused token is read or minted again, once."""
        await self._negotiated()
        try:
            return await self._once(method, self._path + path, **how)
        except Denied:
            if not await self._fresh_token():
                raise
        except _Moved:
            self._path = ""
            await self._negotiated()
        return await self._once(method, self._path + path, **how)

    async def _once(self, method: str, path: str, **how: Any) -> Json:
        if not self._token:
            await self._fresh_token()
        headers = {"X-SLURM-USER-NAME": self._user_name, "X-SLURM-USER-TOKEN": self._token}
        try:
            reply = await self._client.request(method, self._url + path, headers=headers, **how)
        except httpx.RequestError as error:
            raise Unreachable(f"slurmrestd does not answer: {error or type(error).__name__}") from error
        return _judged(reply)

    async def _fresh_token(self) -> bool:
        """Take the token from its file when that has changed, or mint one; say whether there is a new one."""
        before = self._token
        if self._mint is not None:
            await self.renew()
        elif self._token_file is not None:
            self._token = await asyncio.to_thread(read_token, self._token_file)
        return self._token != before

    async def _negotiated(self) -> None:
        """Find the newest version that both sides know. Raises Refused when there is none."""
        if self._path:
            return
        try:
            document = await self._once("GET", "/openapi/v3")
        except _Moved:
            document = await self._once("GET", "/openapi.json")
        paths = document.get("paths") or {}
        found = {int(match[1]) for path in paths if (match := _VERSION.match(path))}
        known = [version for version in found if OLDEST <= version <= NEWEST]
        if not known:
            raise Refused(f"slurmrestd speaks {sorted(found)}, this adapter v0.0.{OLDEST} to v0.0.{NEWEST}")
        path = f"/slurm/v0.0.{max(known)}"
        self._signal_flags = ("", "FULL_JOB") if _takes_flags(paths, path) else ("",)
        self._wraps = max(known) >= _WRAPPED
        self._reserves = "post" in paths.get(f"{path}/reservation", {})
        self._path = path


class _Moved(Refused):
    """The address is not known to the other side."""


def _judged(reply: httpx.Response) -> Json:
    """Return the body of a good reply; 200 may hold errors, and a bad token may be a 500."""
    if reply.status_code == httpx.codes.NOT_FOUND and "json" not in reply.headers.get("content-type", ""):
        raise _Moved(f"{reply.request.url.path}: not known to slurmrestd")
    if reply.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise Denied(f"slurmrestd refuses the token (HTTP {reply.status_code})")
    try:
        body = reply.json()
    except ValueError as error:
        if reply.is_server_error:
            raise Unreachable(f"slurmrestd is out of order (HTTP {reply.status_code})") from error
        raise Garbled(f"slurmrestd answered no JSON (HTTP {reply.status_code})") from error
    if not isinstance(body, dict):
        raise Garbled("slurmrestd answered something else than an object")
    for error_body in body.get("errors") or ():
        raise _failure(error_body if isinstance(error_body, dict) else {"error": str(error_body)})
    if reply.is_error:
        raise Refused(f"slurmrestd: HTTP {reply.status_code}")
    return body


def _failure(error: Mapping[str, Any]) -> Refused:
    """Return what an entry of ``errors`` means for us."""
    number = error.get("error_number", 0)
    text = " ".join(str(error[key]) for key in ("description", "error") if error.get(key))
    said = f"Slurm: {text or 'an error without words'} ({number})"
    if number in _NO_SUCH_JOB or any(past in text.lower() for past in _PAST):
        return JobGone(said)
    if number == _BUSY:
        return _Busy(said)
    if number in _DENIED:
        return Denied(said)
    if number == _UNSPECIFIED:
        return Denied(f"{said}; Slurm says so when it does not accept the token")
    return Refused(said)


def _rows(body: Json, name: str) -> list[Json]:
    rows = body.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Garbled(f"slurmrestd's answer has no list of {name}")
    return rows


def _takes_flags(paths: Mapping[str, Any], path: str) -> bool:
    """Say whether signals take flags (v0.0.40 on): without one they reach the steps, with FULL_JOB the batch script."""
    delete = paths.get(f"{path}/job/{{job_id}}", {}).get("delete", {})
    return any(isinstance(p, dict) and p.get("name") == "flags" for p in delete.get("parameters") or ())


def read_token(path: Path) -> str:
    """Return the token in a file. Raises Refused."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the token file {path} cannot be read: {error}") from error
