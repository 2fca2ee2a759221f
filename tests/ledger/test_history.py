"""The history file: means on a fixed grid, what feeds said, restarts, damage, full disks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import numpy as np
import pytest

from vppd.errors import ConfigError, Garbled, Unreachable
from vppd.ledger import history as module
from vppd.ledger.expendable import opened
from vppd.ledger.history import STEP_S, History, Issue, open_history
from vppd.ledger.history_reader import reading
from vppd.snapshot import Floats

AT = datetime(2026, 7, 1, 22, 0, tzinfo=UTC)
NAN = np.nan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A history file that does not exist yet."""
    return tmp_path / "history.db"


def step(n: int) -> datetime:
    """Return the beginning of the n-th 5-minute step."""
    return AT + timedelta(seconds=n * STEP_S)


def said(issued_at: datetime, *values: float, levels: tuple[float, ...] = ()) -> Issue:
    """Return something that a feed said."""
    rows = np.array(values).reshape(len(levels) or 1, -1)
    return Issue("weather", "generation/pv", issued_at, AT, 900.0, levels, rows)


def read(path: Path, name: str, start: datetime, step_s: float, steps: int) -> Floats:
    """Return means from the file."""
    with reading(path) as reader:
        return reader.array(name, start, step_s, steps)


def fill(history: History, name: str, values: Floats, first: int = 0) -> None:
    """Record one series step by step."""
    for n, value in enumerate(values.tolist()):
        history.record(step(first + n), (name,), np.array([value]))


async def test_means_come_back_over_midnight_and_restarts(path: Path) -> None:
    """What was recorded in two runs, on both sides of midnight, is one series; what was not is missing."""
    async with open_history(path) as history:
        fill(history, "load/a", np.arange(30.0))
    async with open_history(path) as history:
        fill(history, "load/a", np.arange(32.0, 40.0), first=32)
        history.record(step(3), ("load/b", "load/a"), np.array([7.0, NAN]))
    expected = np.concatenate([np.arange(30.0), [NAN, NAN], np.arange(32.0, 40.0), [NAN]])
    np.testing.assert_array_equal(read(path, "load/a", AT, STEP_S, 41), expected)
    np.testing.assert_array_equal(read(path, "load/b", step(2), STEP_S, 3), [NAN, 7.0, NAN])
    np.testing.assert_array_equal(read(path, "load/none", AT, STEP_S, 2), [NAN, NAN])


async def test_a_step_counts_from_half_on(path: Path) -> None:
    """Of three parts two are enough and one is not; of two, one is."""
    async with open_history(path) as history:
        fill(history, "x", np.array([1.0, NAN, 3.0, NAN, NAN, 9.0]))
    np.testing.assert_array_equal(read(path, "x", AT, 900.0, 2), [2.0, NAN])
    np.testing.assert_array_equal(read(path, "x", AT, 600.0, 3), [1.0, 3.0, 9.0])


async def test_a_grid_that_is_not_ours_is_an_error(path: Path) -> None:
    """Steps that do not consist of 5-minute steps cannot be told."""
    async with open_history(path) as history:
        fill(history, "x", np.ones(1))
    with reading(path) as reader:
        with pytest.raises(ValueError, match="not whole numbers"):
            reader.array("x", AT, 700.0, 1)
        with pytest.raises(ValueError, match="not whole numbers"):
            reader.array("x", AT + timedelta(seconds=1), 900.0, 1)


async def test_old_days_go(path: Path) -> None:
    """Days and issues that are older than what is kept are deleted when something new comes."""
    async with open_history(path, keep_days=3.0) as history:
        history.issue(said(AT, 1.0))
        for day in range(8):
            fill(history, "x", np.ones(1), first=288 * day)
            await history.flush()
    with reading(path) as reader:
        first = reader.first_day()
        assert first == datetime(2026, 7, 5, tzinfo=UTC)
        assert reader.newest_issue("weather", "generation/pv", step(10_000)) is None
        assert reader.names == ("x",)


async def test_issues_are_found_by_when_they_were_known(path: Path) -> None:
    """The back-test must not see what was said later; of two within a quarter of an hour the newer one is kept."""
    first, second = said(step(0), 1.0, 2.0), said(step(6), 1.0, NAN, 3.0, 4.0, levels=(0.1, 0.9))
    async with open_history(path) as history:
        history.issue(first)
        history.issue(said(step(6) - timedelta(seconds=1), 9.0))
        history.issue(said(step(6), 8.0))
        history.issue(second)
    with reading(path) as reader:
        assert reader.newest_issue("weather", "generation/pv", step(0) - timedelta(seconds=1)) is None
        assert reader.newest_issue("nobody", "generation/pv", step(9)) is None
        assert reader.newest_issue("weather", "generation/other", step(9)) is None
        early, late = (
            reader.newest_issue("weather", "generation/pv", step(2)),
            reader.newest_issue("weather", "generation/pv", step(9)),
        )
    assert early is not None
    assert late is not None
    assert (early.issued_at, early.levels, early.series) == (step(0), (), "generation/pv")
    np.testing.assert_array_equal(early.values, first.values)
    assert (late.issued_at, late.start, late.step_s, late.levels) == (step(6), AT, 900.0, (0.1, 0.9))
    np.testing.assert_array_equal(late.values, second.values)


async def test_there_is_one_writer_and_readers_do_not_mind_it(path: Path) -> None:
    """A second daemon is turned away; a reader sees what has been written so far."""
    async with open_history(path) as history:
        fill(history, "x", np.ones(2))
        await history.flush()
        with pytest.raises(ConfigError, match="in use"):
            async with open_history(path):
                pass
        assert read(path, "x", AT, STEP_S, 3)[1] == 1.0
    with pytest.raises(ConfigError, match="no such file"), reading(path.with_name("other.db")):
        pass


@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_damaged_file_is_put_aside(path: Path, when: str) -> None:
    """History is worth less than a start: rubbish is kept under another name and a new file begun; nothing new is lost."""
    if when == "before":
        rubbish(path)
    async with open_history(path) as history:
        fill(history, "x", np.ones(1))
        await history.flush()
        if when == "during":
            spoil(path)
            fill(history, "x", np.ones(1), first=1)
            await history.flush()
            fill(history, "x", np.ones(1), first=2)
            await history.flush()
        assert not history.fault
    assert path.with_name("history.db.damaged").exists()
    assert np.isfinite(read(path, "x", AT, STEP_S, 3)).any()


def rubbish(path: Path) -> None:
    """Write what is no database."""
    path.write_bytes(b"rubbish " * 1_000)


def spoil(path: Path) -> None:
    """Overwrite the tables of a file that is in use, as a failing disk would."""
    with apsw.Connection(str(path)) as db:
        db.execute("DROP TABLE days; CREATE TABLE days(id TEXT, other TEXT)")
    db.close()


def test_a_short_row_is_garbled(path: Path) -> None:
    """A day that has not 288 values is not believed."""
    with apsw.Connection(str(path)) as db:
        db.execute(module.SCHEMA)
        db.execute("INSERT INTO series VALUES(1, 'x')")
        db.execute("INSERT INTO days VALUES(?, ?)", (module.row_of(module.slot_of(AT) // 288, 1), b"short"))
    db.close()
    with pytest.raises(Garbled, match="5 bytes"):
        read(path, "x", AT, STEP_S, 1)


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A disk that takes nothing while the list is not empty."""
    faults: list[str] = []

    def open_file(path: Path, schema: str) -> apsw.Connection:
        if faults:
            raise Unreachable(faults[0])
        return opened(path, schema)

    monkeypatch.setattr(module, "opened", open_file)
    return faults


async def test_a_disk_that_comes_back_gets_what_waited(path: Path, stubborn: list[str]) -> None:
    """Nothing is lost over a fault shorter than a day, and the fault is told while it lasts."""
    stubborn.append("disk full")
    async with open_history(path) as history:
        fill(history, "x", np.array([1.0]))
        await history.flush()
        assert history.fault == "disk full"
        stubborn.clear()
        fill(history, "x", np.array([2.0]), first=1)
        await history.flush()
        assert not history.fault
        assert history.dropped == 0
    np.testing.assert_array_equal(read(path, "x", AT, STEP_S, 2), [1.0, 2.0])


async def test_what_waits_too_long_gives_way(path: Path, stubborn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded, the oldest goes, and the loss is counted."""
    monkeypatch.setattr(module, "WAITING_MAX", 4)
    stubborn.append("disk full")
    async with open_history(path) as history:
        for n in range(10):
            fill(history, "x", np.array([float(n)]), first=n)
            await history.flush()
        assert history.dropped == 6
        stubborn.clear()
        await history.flush()
        history.record(step(10), ("x",), np.array([10.0]))
    assert np.flatnonzero(np.isfinite(read(path, "x", AT, STEP_S, 11))).tolist() == [6, 7, 8, 9, 10]


async def test_a_first_start_can_be_read_at_once(path: Path) -> None:
    """Before anything has been measured there is a file, and nothing in it: forecasts need not wait for a first mean."""
    async with open_history(path) as history:
        await history.flush()
        assert np.isnan(read(path, "load/a", AT, STEP_S, 3)).all()
