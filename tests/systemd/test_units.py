"""The systemd unit is valid, hardened, and says what the daemon does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, require

UNIT = ROOT / "systemd" / "vppd.service"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with an ExecStart that exists on this machine, as verify insists."""
    unit = tmp_path / "vppd.service"
    program = tmp_path / "vppd"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    text = UNIT.read_text(encoding="utf-8")
    assert "/opt/vppd/.venv/bin/vppd" in text
    unit.write_text(text.replace("/opt/vppd/.venv/bin/vppd", str(program)), encoding="utf-8")
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, offline."""
    tool = require("systemd-analyze", "the unit is checked with it")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_unit_is_valid(installed: Path) -> None:
    """systemd-analyze verify has nothing to say about our unit."""
    result = analyze("verify", "--man=no", str(installed))
    said = [line for line in result.stderr.splitlines() if "vppd.service" in line]
    assert not said, said
    assert result.returncode == 0, result.stderr


def test_the_unit_is_hardened(installed: Path) -> None:
    """The exposure of the unit is at most 1.2 (the threshold is in tenths)."""
    result = analyze("security", "--offline=true", "--threshold=12", "--no-pager", str(installed))
    assert result.returncode == 0, result.stdout[-400:] + result.stderr


def test_a_softer_unit_would_be_found(installed: Path) -> None:
    """Without its system call filter the unit misses the threshold."""
    text = installed.read_text(encoding="utf-8").replace("SystemCallFilter", "#SystemCallFilter")
    installed.write_text(text, encoding="utf-8")
    result = analyze("security", "--offline=true", "--threshold=12", "--no-pager", str(installed))
    assert result.returncode == 1


def test_the_unit_says_what_the_daemon_does() -> None:
    """The unit waits for READY, is fed a watchdog, reloads on HUP, and does not restart on a bad configuration."""
    body = UNIT.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0]
    service = dict(line.split("=", 1) for line in body.splitlines() if "=" in line and not line.startswith("#"))
    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) > 0
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["ExecStart"].split()[1:] == ["run", "-c", "/etc/vppd/vppd.toml"]
    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"] == "2 4"
