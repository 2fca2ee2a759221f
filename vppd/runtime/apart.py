"""Long sums in a process of their own: a solver that hangs or dies takes nothing of the daemon with it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vppd.errors import Refused, Unreachable

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The control loop needs the other processors."""
TOLD_BYTES = 2_000


async def apart(module: str, document: Mapping[str, Any], limit_s: float) -> Any:
    """Return what ``python -m module`` makes of a JSON document: one on its standard input, one on its standard output.

    Raises Unreachable when there is no answer within ``limit_s`` or the process dies (try again), and Refused with its last words
    when it ends with a status that is not 0. Whatever happens, the process is gone afterwards.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | ONE_THREAD,
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit_s):
            said, complaint = await process.communicate(json.dumps(document, allow_nan=False).encode())
    except TimeoutError as error:
        raise Unreachable(f"{module} gave no answer within {limit_s:g} s") from error
    finally:
        await _ended(process)
    status, words = process.returncode or 0, complaint.decode(errors="replace")[-TOLD_BYTES:].strip()
    if status < 0:
        raise Unreachable(f"{module} was ended by signal {-status}: {words}")
    if status > 0:
        raise Refused(f"{module} ended with status {status}: {words}")
    try:
        return json.loads(said)
    except ValueError as error:
        raise Refused(f"{module} did not answer in JSON: {error}") from error


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Kill what still runs and wait for it, also while being cancelled: a stray solver would keep a processor busy."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    waiting = asyncio.ensure_future(process.wait())
    try:
        await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await waiting
        raise
