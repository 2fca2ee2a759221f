"""What the Slurm adapter keeps on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters._slurm_journal import Credit, Held, Journal, Touch
from vppd.errors import Garbled

HELD = Held(
    budget_w=5000.0,
    lease_s=30.0,
    until_s=130.0,
    touched={7: Touch("stop", 100.0, 60), 8: Touch("hold", 101.0)},
    credits={7: Credit(300.0, 100.0, 1.0)},
    full_w={"n1": {7: 1500.0}},
    old_cap_w={"n2": None, "n3": 8000.0},
    cap_w={"n2": 6000.0, "n3": 6000.0},
    partitions={"flex": "UP"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal goes, in a folder that is not there yet."""
    return tmp_path / "state" / "journal.json"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """A journal."""
    opened = Journal(path)
    yield opened
    opened.close()


def mode_and_files(path: Path) -> tuple[int, list[str]]:
    """Return who may read the file, and what lies in its folder."""
    return path.stat().st_mode & 0o777, [p.name for p in path.parent.iterdir()]


def boot_again(path: Path) -> None:
    """Let the file come from another boot."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))


async def test_comes_back_whole(journal: Journal, path: Path) -> None:
    """What was saved is what is loaded, and nobody else may read the file."""
    await journal.save(HELD)
    assert journal.load(120.0) == HELD
    assert mode_and_files(path) == (0o600, [path.name])


async def test_times_of_another_boot_say_nothing(journal: Journal, path: Path) -> None:
    """After a restart of the machine the accounts of touched jobs are empty, so that they go on at once."""
    await journal.save(HELD)
    boot_again(path)
    held = journal.load(5.0)
    assert held.until_s == 5.0
    assert held.touched[7] == Touch("stop", 5.0, 60)
    assert held.credits[7] == Credit(0.0, 5.0, 1.0)


def test_none_is_nothing_held(journal: Journal) -> None:
    """Without a file nothing is held."""
    assert not journal.load(0.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "touched": 3}'])
def test_a_broken_file_is_garbled(journal: Journal, path: Path, text: str) -> None:
    """A file that makes no sense is Garbled, by its name."""
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(Garbled, match=r"journal\.json"):
        journal.load(0.0)


def test_account_by_tier() -> None:
    """An account empties while a job is stopped and fills at the rate its tier accepts."""
    account = Credit(100.0, 0.0, 1.0)
    assert account.at(40.0, 3, 900.0) == pytest.approx(80.0)
    assert Credit(80.0, 40.0, 0.0).at(60.0, 3, 900.0) == pytest.approx(90.0)
    assert Credit(80.0, 40.0, 0.25).at(1e6, 2, 900.0) == pytest.approx(80.0)
    assert Credit(80.0, 40.0, 0.0).at(1e6, 2, 900.0) == 900.0
