"""The ledger under kill -9, I/O errors and a full disk: nothing acknowledged is lost, nothing is acknowledged falsely."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import ROOT, absent, require
from vppd.errors import Unreachable
from vppd.ledger.reader import read_ledger
from vppd.ledger.sqlite import open_ledger
from vppd.ledger.telemetry import frames, open_telemetry
from vppd.model import Event
from vppd.ports import Ledger

KILLS = int(os.environ.get("VPPD_KILLS", "100"))
AT = datetime(2026, 7, 1, tzinfo=UTC)


def _command(path: Path, count: int, callers: int = 1) -> list[str]:
    return [sys.executable, "-m", "tests.faults.ledger_writer", str(path), str(count), str(callers)]


def _recorded(path: Path) -> list[int]:
    """Return the numbers in the ledger after a restart and a full check of file and chain."""

    async def restarted() -> list[int]:
        async with open_ledger(path) as ledger:
            ledger.verify()
            return [recorded.event.body["n"] for recorded in ledger.events()]

    return asyncio.run(restarted())


def _acknowledged(lines: Iterator[str] | list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("ok ") and line.endswith("\n")]


def _killed_after(path: Path, count: int) -> list[int]:
    """Run the writer, kill it when it has acknowledged ``count`` events, and return all it acknowledged."""
    with subprocess.Popen(_command(path, 10_000, 4), stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
        lines += process.stdout.readlines()
    return _acknowledged(lines)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """After each of many kills at random moments every acknowledged event is there once, and the chain holds."""
    path, chance, acknowledged = tmp_path / "ledger.db", random.Random(20260701), set[int]()
    for _ in range(KILLS):
        acknowledged.update(_killed_after(path, chance.randrange(60)))
        recorded = _recorded(path)
        assert acknowledged <= set(recorded)
        assert len(recorded) == len(set(recorded))
    record_property("kills", KILLS)
    record_property("acknowledged", len(acknowledged))
    assert len(acknowledged) > 10 * KILLS


def _strace() -> str:
    program = require("strace", "it injects faults at the n-th system call")
    if subprocess.run([program, "-o", os.devnull, "true"], check=False, capture_output=True).returncode:
        absent("strace may not trace here (ptrace is not permitted)")
    return program


def _injected(path: Path, fault: str, count: int = 12) -> list[str]:
    traced = [_strace(), "-f", "-qq", "-o", os.devnull, "-P", f"{path}-wal", "-P", str(path), "-e", f"inject={fault}"]
    done = subprocess.run([*traced, *_command(path, count)], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    return done.stdout.splitlines(keepends=True)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_no_moment_of_a_commit_is_a_bad_one_to_die(tmp_path: Path, call: str) -> None:
    """Killed at the n-th write or sync of the file, for every n: nothing acknowledged is missing."""
    for n in range(1, 40, 3 if call == "pwrite64" else 1):
        path = tmp_path / f"{call}-{n}.db"
        acknowledged = _acknowledged(_injected(path, f"{call}:signal=KILL:when={n}"))
        if len(acknowledged) == 12:
            assert n > 3, "the fault must have hit something"
            return
        assert set(acknowledged) <= set(_recorded(path))


@pytest.mark.slow
def test_a_failing_sync_is_never_acknowledged(tmp_path: Path) -> None:
    """With EIO from fdatasync the caller gets Unreachable, later calls succeed, and the file stays whole."""
    path = tmp_path / "ledger.db"
    lines = _injected(path, "fdatasync:error=EIO:when=6+3", count=30)
    failed = [line.split()[1:] for line in lines if line.startswith("no ")]
    assert len(failed) >= 3, f"a commit that does not wait for the disk would not notice: {lines}"
    assert {name for _, name in failed} == {"Unreachable"}
    acknowledged = _acknowledged(lines)
    assert len(acknowledged) + len(failed) == 30
    recorded = _recorded(path)
    assert [n for n in recorded if n in acknowledged] == acknowledged
    assert len(recorded) == len(set(recorded))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount the small file system that fills up")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _event(n: int) -> Event:
    return Event("orders", "noted", AT, {"n": n, "padding": "x" * 2_000}, str(n))


async def _append_for_ever(ledger: Ledger, acknowledged: list[int]) -> None:
    while True:
        await ledger.append(_event(len(acknowledged)))
        acknowledged.append(len(acknowledged))


async def test_a_full_disk_gives_no_false_receipt_and_heals(small_disk: Path) -> None:
    """On a full disk append raises Unreachable; with room again it succeeds, and all that was acknowledged is there."""
    path, ballast, acknowledged = small_disk / "ledger.db", small_disk / "ballast", list[int]()
    ballast.write_bytes(bytes(150_000))
    async with open_ledger(path) as ledger:
        with pytest.raises(Unreachable, match="full"):
            await _append_for_ever(ledger, acknowledged)
        n = len(acknowledged)
        assert n > 10
        assert [r.event.body["n"] for r in ledger.events()] == acknowledged
        ballast.unlink()
        await ledger.append(_event(n), _event(n + 1))
    with read_ledger(path) as reader:
        assert [recorded.event.body["n"] for recorded in reader.events()] == [*acknowledged, n, n + 1]


async def test_a_full_telemetry_disk_never_blocks_orders(small_disk: Path, tmp_path: Path) -> None:
    """Telemetry that cannot be written is dropped and counted; the ledger beside it goes on."""
    async with open_ledger(tmp_path / "ledger.db") as ledger, open_telemetry(small_disk / "telemetry.db") as telemetry:
        for n in range(60):
            telemetry.record("frame", 1.0, AT, os.urandom(20_000))
            await asyncio.gather(telemetry.flush(), ledger.append(_event(n)))
        assert telemetry.dropped > 10
        assert "full" in telemetry.fault
        assert ledger.verify().id == 60


async def test_a_telemetry_disk_that_is_full_at_the_start_stops_nobody(small_disk: Path) -> None:
    """Opening succeeds, frames are dropped until there is room, then they are kept."""
    path, ballast = small_disk / "telemetry.db", small_disk / "ballast"
    ballast.write_bytes(bytes(600_000))
    async with open_telemetry(path) as telemetry:
        telemetry.record("frame", 1.0, AT, b"lost")
        await telemetry.flush()
        assert (telemetry.dropped, bool(telemetry.fault)) == (1, True)
        ballast.unlink()
        telemetry.record("frame", 2.0, AT, b"kept")
        await telemetry.flush()
        assert (telemetry.dropped, telemetry.fault) == (1, "")
    assert [frame.blob for frame in frames(path)] == [b"kept"]
