"""The ledger file: durable, append-only, one writer, tamper-evident."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vppd.errors import ConfigError, Garbled, Refused, Unreachable
from vppd.ledger import database
from vppd.ledger.reader import Head, read_ledger
from vppd.ledger.sqlite import open_ledger
from vppd.model import Event
from vppd.ports import Ledger

AT = datetime(2026, 7, 1, tzinfo=UTC)


def _event(n: int, stream: str = "orders", key: str = "") -> Event:
    return Event(stream, "noted", AT, {"n": n}, key)


def _numbers(path: Path) -> list[int]:
    with read_ledger(path) as reader:
        reader.verify()
        return [recorded.event.body["n"] for recorded in reader.events()]


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _content(path: Path) -> bytes:
    return path.read_bytes()


@contextmanager
def _raw(path: Path) -> Iterator[apsw.Connection]:
    """Open the file as an attacker would, with the triggers out of the way."""
    with closing(apsw.Connection(str(path))) as db:
        db.execute("DROP TRIGGER IF EXISTS events_are_fixed; DROP TRIGGER IF EXISTS events_stay")
        yield db


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger that does not exist yet, in a folder that does not either."""
    return tmp_path / "state" / "ledger.db"


async def _filled(path: Path, count: int = 5) -> None:
    async with open_ledger(path) as ledger:
        for n in range(count):
            await ledger.append(
                _event(n, "orders" if n % 2 else "setpoints", key=hashlib.sha256(bytes([n])).hexdigest())
            )


async def test_events_survive_a_restart_in_order(path: Path) -> None:
    """What was appended is read back, numbered from 1, by this process and the next."""
    async with open_ledger(path) as ledger:
        port: Ledger = ledger
        await port.append(_event(0), _event(1))
        await port.append(_event(2))
        assert [(r.id, r.event) for r in ledger.events()] == [(1, _event(0)), (2, _event(1)), (3, _event(2))]
    async with open_ledger(path) as ledger:
        await ledger.append(_event(3))
        assert [r.id for r in ledger.events()] == [1, 2, 3, 4]
        assert ledger.verify() == ledger.head() == Head(4, list(ledger.events())[-1].hash)


async def test_streams_and_starting_points_select(path: Path) -> None:
    """A stream, a starting point or both narrow what is read, across pages."""
    async with open_ledger(path) as ledger:
        await ledger.append(*(_event(n, "orders" if n % 3 else "setpoints") for n in range(2_000)))
        assert [r.event.body["n"] for r in ledger.events("setpoints")] == list(range(0, 2_000, 3))
        assert [r.id for r in ledger.events(after=1_990)] == list(range(1_991, 2_001))
        assert [r.id for r in ledger.events("orders", after=1_994)] == [1_995, 1_997, 1_998, 2_000]
        assert list(ledger.events("nothing")) == []


async def test_reading_goes_on_while_events_are_added(path: Path) -> None:
    """A reader in the middle of the ledger neither blocks the writer nor misses what comes."""
    async with open_ledger(path) as ledger:
        await ledger.append(*(_event(n) for n in range(600)))
        reading = ledger.events()
        next(reading)
        await ledger.append(_event(600))
        assert [r.event.body["n"] for r in reading] == list(range(1, 601))


async def test_callers_that_wait_together_share_commits(path: Path) -> None:
    """A thousand concurrent calls take far fewer transactions than a thousand."""
    async with open_ledger(path) as ledger:
        with _raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            calls = [asyncio.create_task(ledger.append(_event(n))) for n in range(1_000)]
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
            await asyncio.gather(*calls)
            assert [r.event.body["n"] for r in ledger.events()] == list(range(1_000))
            frames = other.wal_checkpoint()[0]
    assert frames < 300, "one commit writes at least one frame, so a commit for each would show"


async def test_the_file_is_opened_to_survive_a_power_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writing connection says synchronous=FULL (2) in WAL mode."""
    opened: list[apsw.Connection] = []
    plain = apsw.Connection

    def spy(*args: object, **more: object) -> apsw.Connection:
        opened.append(plain(*args, **more))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(apsw, "Connection", spy)
    async with open_ledger(path) as ledger:
        await ledger.append(_event(1))
        assert opened[0].pragma("synchronous") == 2
        assert opened[0].pragma("journal_mode") == "wal"


async def test_a_weaker_setting_is_not_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the file opened with synchronous=NORMAL, the ledger would not start."""
    plain = database.writable
    monkeypatch.setattr("vppd.ledger.sqlite.writable", lambda path, _: plain(path, "normal"))
    with pytest.raises(ConfigError, match="durable"):
        async with open_ledger(path):
            pass


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.7.0"])
async def test_a_faulty_sqlite_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Versions with the WAL-reset bug are refused at the start."""
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    with pytest.raises(ConfigError, match=r"3\.51\.3"):
        async with open_ledger(path):
            pass


async def test_a_key_occurs_once_for_ever(path: Path) -> None:
    """A taken key is Refused and writes nothing, also after a restart and also within one call."""
    async with open_ledger(path) as ledger:
        await ledger.append(_event(0, key="tso/1"))
        with pytest.raises(Refused, match="tso/1"):
            await ledger.append(_event(1), _event(2, key="tso/1"))
        with pytest.raises(Refused, match="tso/2"):
            await ledger.append(_event(3, key="tso/2"), _event(4, key="tso/2"))
    async with open_ledger(path) as ledger:
        with pytest.raises(Refused):
            await ledger.append(_event(5, key="tso/1"))
        await ledger.append(_event(6, key="tso/2"))
    assert _numbers(path) == [0, 6]


async def test_only_one_of_many_gets_the_key(path: Path) -> None:
    """Of concurrent callers with one key exactly one wins; the others in the same commit are not harmed."""
    async with open_ledger(path) as ledger:
        calls = [ledger.append(_event(n, key="same" if n % 2 else f"own{n}")) for n in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if answer is None] == [0, 1, *range(2, 20, 2)]
    assert all(isinstance(answer, Refused) for answer in answers if answer is not None)
    assert _numbers(path) == [0, 1, *range(2, 20, 2)]


async def test_a_cancelled_call_is_written_once(path: Path) -> None:
    """Cancelling a caller neither loses nor doubles its events."""
    async with open_ledger(path) as ledger:
        with _raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(ledger.append(_event(1, key="a")))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            other.execute("ROLLBACK")
        await ledger.append(_event(2))
        with pytest.raises(Refused):
            await ledger.append(_event(1, key="a"))
    assert _numbers(path) == [1, 2]


async def test_leaving_writes_what_still_waits(path: Path) -> None:
    """The end of the context is a flush, also when its callers have gone."""
    async with open_ledger(path) as ledger:
        tasks = [asyncio.create_task(ledger.append(_event(n))) for n in range(50)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert _numbers(path) == list(range(50))


async def test_a_busy_file_is_unreachable_and_heals(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock held by somebody else is an error to retry, and the retry succeeds."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    async with open_ledger(path) as ledger:
        with _raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unreachable, match="locked"):
                await ledger.append(_event(1))
            other.execute("ROLLBACK")
        await ledger.append(_event(1))
    assert _numbers(path) == [1]


async def test_there_is_one_writer(path: Path) -> None:
    """A second writer is told who holds the file; after the first has gone it may."""
    async with open_ledger(path):
        with pytest.raises(ConfigError, match="in use by another vppd"):
            async with open_ledger(path):
                pass
    async with open_ledger(path):
        pass


async def test_nobody_else_can_read_the_files(path: Path) -> None:
    """The folder is 0700, every file in it 0600."""
    async with open_ledger(path) as ledger:
        await ledger.append(_event(1))
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_another_programs_file_is_not_touched(path: Path) -> None:
    """A file of a newer vppd or of another program is a configuration error."""
    _put(path, b"")
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(ConfigError, match="newer vppd"):
        async with open_ledger(path):
            pass


async def test_a_file_that_is_no_database_is_garbled(path: Path) -> None:
    """Rubbish in place of the ledger stops the start instead of being overwritten."""
    rubbish = b"rubbish " * 1_000
    _put(path, rubbish)
    with pytest.raises(Garbled):
        async with open_ledger(path):
            pass
    with pytest.raises(Garbled), read_ledger(path) as reader:
        reader.head()
    assert _content(path) == rubbish


def test_a_ledger_that_is_not_there_is_not_made(path: Path) -> None:
    """Reading never creates a file."""
    with pytest.raises(ConfigError, match="no such file"), read_ledger(path):
        pass
    assert not path.exists()


async def test_a_closed_ledger_takes_nothing(path: Path) -> None:
    """Appending after the end is a bug and says so."""
    async with open_ledger(path) as ledger:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await ledger.append(_event(1))


async def test_the_database_itself_refuses_changes(path: Path) -> None:
    """UPDATE and DELETE on events fail, whoever tries."""
    await _filled(path)
    with closing(apsw.Connection(str(path))) as db:
        for statement in ("UPDATE events SET stream = 'x'", "DELETE FROM events"):
            with pytest.raises(apsw.ConstraintError, match="never"):
                db.execute(statement)


async def test_any_changed_byte_of_any_event_is_found(tmp_path: Path) -> None:
    """Flip one bit in any column of any event: verify fails."""
    clean = tmp_path / "clean.db"
    await _filled(clean)
    content = _content(clean)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def check(data: st.DataObject) -> None:
        column = data.draw(st.sampled_from(["record", "hash", "stream", "key"]))
        number = data.draw(st.integers(1, 5))
        copy = tmp_path / "copy.db"
        copy.write_bytes(content)
        with _raw(copy) as db:
            old = db.execute(f"SELECT CAST({column} AS BLOB) FROM events WHERE id = ?", (number,)).get
            place, bit = data.draw(st.integers(0, len(old) - 1)), data.draw(st.integers(0, 7))
            new = bytes(byte ^ (1 << bit) if i == place else byte for i, byte in enumerate(old))
            kind = "BLOB" if column in ("record", "hash") else "TEXT"
            db.execute(f"UPDATE events SET {column} = CAST(? AS {kind}) WHERE id = ?", (new, number))
        with read_ledger(copy) as reader, pytest.raises(Garbled):
            reader.verify()

    check()


async def test_any_changed_byte_of_a_record_in_the_file_is_found(tmp_path: Path) -> None:
    """The same in the file itself, under SQLite's feet."""
    clean = tmp_path / "clean.db"
    await _filled(clean)
    content = _content(clean)
    with read_ledger(clean) as reader:
        records = [f'"n":{recorded.event.body["n"]}'.encode() for recorded in reader.events()]

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(records), st.integers(0, 4), st.integers(0, 7))
    def check(record: bytes, offset: int, bit: int) -> None:
        place = content.index(record) + min(offset, len(record) - 1)
        copy = tmp_path / "copy.db"
        copy.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
        with read_ledger(copy) as reader, pytest.raises(Garbled):
            reader.verify()

    check()


@pytest.mark.parametrize("number", [1, 3])
async def test_a_removed_event_is_found_on_reading(path: Path, number: int) -> None:
    """A gap breaks the chain for a plain reader too."""
    await _filled(path)
    with _raw(path) as db:
        db.execute("DELETE FROM events WHERE id = ?", (number,))
    with read_ledger(path) as reader, pytest.raises(Garbled, match="chain"):
        list(reader.events())


async def test_a_cut_end_shows_against_a_published_head(path: Path) -> None:
    """A shortened ledger is a valid chain; the head published before it was cut gives it away."""
    await _filled(path)
    with read_ledger(path) as reader:
        head, older = reader.verify(), [r.hash for r in reader.events()][2]
    with _raw(path) as db:
        db.execute("DELETE FROM events WHERE id = 5")
    with read_ledger(path) as reader:
        assert reader.verify(Head(3, older)).id == 4
        with pytest.raises(Garbled, match="event 5 is not the one"):
            reader.verify(head)


async def test_a_broken_chain_stops_the_daemon_that_reads_it(path: Path) -> None:
    """The daemon's own replay at the start raises Garbled, before anything is decided."""
    await _filled(path)
    with _raw(path) as db:
        db.execute("UPDATE events SET record = CAST(record || ' ' AS BLOB) WHERE id = 3")
    async with open_ledger(path) as ledger:
        with pytest.raises(Garbled, match="event 3"):
            list(ledger.events())
