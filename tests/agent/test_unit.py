"""The agent's systemd unit is valid, hardened, and puts the limits back however the agent ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, require

UNIT = ROOT / "systemd" / "vppd-agent.service"
PROGRAM = "/opt/vppd/.venv/bin/vppd"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with programs that exist on this machine, as verify insists."""
    unit, program = tmp_path / "vppd-agent.service", tmp_path / "vppd"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(PROGRAM) == 2
    unit.write_text(text.replace(PROGRAM, str(program)), encoding="utf-8")
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, offline."""
    tool = require("systemd-analyze", "the unit is checked with it")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_unit_is_valid(installed: Path) -> None:
    """Verify has nothing to say about our unit."""
    result = analyze("verify", "--man=no", str(installed))
    said = [line for line in result.stderr.splitlines() if "vppd-agent.service" in line]
    assert not said, said
    assert result.returncode == 0, result.stderr


def test_the_unit_is_as_hard_as_the_driver_allows(installed: Path) -> None:
    """The exposure is at most 2.2 (root and CAP_SYS_ADMIN cost most of it); without the call filter it is more."""
    assert analyze("security", "--offline=true", "--threshold=22", "--no-pager", str(installed)).returncode == 0
    softer = installed.read_text(encoding="utf-8").replace("SystemCallFilter", "#SystemCallFilter")
    installed.write_text(softer, encoding="utf-8")
    assert analyze("security", "--offline=true", "--threshold=22", "--no-pager", str(installed)).returncode == 1


def test_the_unit_restores_and_restarts() -> None:
    """A dead agent is followed by ``--restore`` with the same configuration, and started again but for a bad one."""
    body = UNIT.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0]
    service = dict(line.split("=", 1) for line in body.splitlines() if "=" in line and not line.startswith("#"))
    assert service["ExecStart"].split() == [PROGRAM, "agent", "-c", "/etc/vppd/agent.toml"]
    assert service["ExecStopPost"].split() == [*service["ExecStart"].split(), "--restore"]
    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) > 0
    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["StateDirectory"] == "vppd-agent"
