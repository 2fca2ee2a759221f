"""The telemetry file: cheap to fill, pruned, and readable for a replay."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest

from vppd.errors import ConfigError, Garbled
from vppd.ledger import telemetry as module
from vppd.ledger.telemetry import Frame, Retention, frames, open_telemetry

AT = datetime(2026, 7, 1, 12, 0, 0, 123_457, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A telemetry file that does not exist yet."""
    return tmp_path / "telemetry.db"


def _frame(n: int) -> Frame:
    return Frame("decision" if n % 2 else "reading", float(n), AT + timedelta(seconds=n), bytes([n % 256]) * 9)


def _size(path: Path) -> int:
    return path.stat().st_size


def _spoil(path: Path) -> None:
    path.write_bytes(b"rubbish " * 1_000)


async def test_frames_come_back_as_they_went_in(path: Path) -> None:
    """Kind, both times (to the microsecond) and bytes are read back in order, across pages and restarts."""
    for start in (0, 700):
        async with open_telemetry(path) as store:
            for n in range(start, start + 700):
                store.record(*_frame(n))
    assert list(frames(path)) == [_frame(n) for n in range(1_400)]


async def test_frames_can_be_read_while_more_are_written(path: Path) -> None:
    """A recording can be looked at while the daemon runs."""
    async with open_telemetry(path) as store:
        store.record(*_frame(1))
        await store.flush()
        assert list(frames(path)) == [_frame(1)]
        store.record(*_frame(2))


async def test_too_many_frames_push_out_the_oldest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded, the oldest frames give way, and the loss is counted."""
    monkeypatch.setattr(module, "QUEUE_MAX", 10)
    async with open_telemetry(path, Retention(flush_s=3600.0)) as store:
        for n in range(25):
            store.record(*_frame(n))
        assert store.dropped == 15
    assert list(frames(path)) == [_frame(n) for n in range(15, 25)]


async def test_old_frames_are_deleted(path: Path) -> None:
    """Only frames within ``keep_s`` of the newest stay."""
    async with open_telemetry(path, Retention(keep_s=10.0)) as store:
        for n in range(100):
            store.record(*_frame(n))
            if n % 20 == 19:
                await store.flush()
    kept = list(frames(path))
    assert kept[0].mono_s >= 69.0
    assert kept[-1] == _frame(99)


async def test_the_file_stays_within_its_size(path: Path) -> None:
    """Beyond ``max_bytes`` the oldest frames are deleted and their room is used again."""
    async with open_telemetry(path, Retention(max_bytes=200_000)) as store:
        for n in range(300):
            store.record("frame", float(n), AT, bytes(4_000))
            if n % 5 == 4:
                await store.flush()
    kept = [frame.mono_s for frame in frames(path)]
    assert kept == [float(n) for n in range(300 - len(kept), 300)]
    assert 20 <= len(kept) <= 60
    assert _size(path) < 400_000


async def test_a_damaged_file_is_put_aside(path: Path) -> None:
    """Telemetry is worth less than a start: rubbish is kept under another name and a new file begun."""
    _spoil(path)
    async with open_telemetry(path) as store:
        store.record(*_frame(1))
    assert list(frames(path)) == [_frame(1)]
    assert path.with_name("telemetry.db.damaged").read_bytes().startswith(b"rubbish")


async def test_there_is_one_recorder(path: Path) -> None:
    """Two daemons do not share a telemetry file."""
    async with open_telemetry(path):
        with pytest.raises(ConfigError, match="in use"):
            async with open_telemetry(path):
                pass


def test_a_foreign_file_is_garbled_for_a_reader(path: Path) -> None:
    """Replaying something that is no recording says so."""
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE other(x)")
    with pytest.raises(Garbled, match="frames"):
        list(frames(path))
