"""A ledger that has been tampered with: nothing is written, and the daemon says so and ends."""

from __future__ import annotations

import asyncio
import subprocess
import sysconfig
from datetime import UTC, datetime
from pathlib import Path

import apsw

from vppd.ledger.sqlite import open_ledger
from vppd.model import Event

CORRUPT = 4
CONFIG = """
[site]
id = "dc1"
agent_id = "dc1-agent"
state_dir = "state"
socket = "vppd.sock"
import_max_w = 1e6

[[feeds]]
tag = "main-a"
meter = "poi-a"
import_max_w = 1e6

[[assets]]
id = "poi-a"
kind = "meter"
feed = "main-a"
adapter = "modbus-sunspec"
connection = { host = "127.0.0.1", port = 1 }
"""


async def write_two_entries(path: Path) -> None:
    """Make a ledger of two entries."""
    async with open_ledger(path) as ledger:
        for action in ("release", "resume"):
            await ledger.append(Event("plant", "operator", datetime.now(UTC), {"action": action, "by": "test"}))


def test_a_tampered_ledger_ends_the_daemon_before_it_writes_anything(tmp_path: Path) -> None:
    """The daemon exits with 4, which systemd is told not to restart, and names the corruption."""
    (tmp_path / "vppd.toml").write_text(CONFIG, encoding="utf-8")
    path = tmp_path / "state" / "ledger.db"
    asyncio.run(write_two_entries(path))
    db = apsw.Connection(str(path))
    db.execute("DROP TRIGGER events_are_fixed")
    db.execute("UPDATE events SET record = CAST(replace(CAST(record AS TEXT), 'test', 'mallory') AS BLOB) WHERE id = 1")
    db.close()
    command = [str(Path(sysconfig.get_path("scripts")) / "vppd"), "run", "-c", str(tmp_path / "vppd.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == CORRUPT
    assert "ledger_corrupt" in done.stderr
