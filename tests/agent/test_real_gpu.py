"""On a machine with a GPU: our readings and limits are those of ``nvidia-smi``. Nothing is changed."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
FIELDS = (
    "uuid", "index", "name", "power.draw", "power.limit", "power.min_limit", "power.max_limit", "power.default_limit",
    "enforced.power.limit", "utilization.gpu", "temperature.gpu", "clocks.sm",
)  # fmt: skip
EXACT = {
    "power.limit": "cap_w",
    "power.min_limit": "min_cap_w",
    "power.max_limit": "max_cap_w",
    "power.default_limit": "default_cap_w",
    "enforced.power.limit": "enforced_cap_w",
}
NEAR = {"power.draw": ("power_w", 60.0), "temperature.gpu": ("temperature_c", 5.0), "clocks.sm": ("clock_mhz", 2000.0)}
"""What moves between two looks, and how far apart they may be."""


def smi(*options: str) -> list[dict[str, str]]:
    """Return what nvidia-smi says of every GPU; skip where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        pytest.skip("there is no GPU here (no nvidia-smi): nothing to compare with")
    asked = [tool, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits", *options]
    result = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        pytest.skip(f"there is no GPU here: {(result.stdout + result.stderr).strip()[:200]}")
    rows = csv.reader(io.StringIO(result.stdout), skipinitialspace=True)
    return [dict(zip(FIELDS, row, strict=True)) for row in rows]


def ours(folder: Path) -> dict[str, Any]:
    """Return what ``vppd agent --once`` says of every device."""
    path = folder / "agent.toml"
    path.write_text('site = "s"\nnode = "n"\n[broker]\nhost = "b"\ninsecure_lab = true\n', encoding="utf-8")
    line = [sys.executable, "-c", "from vppd.cli import main; main()", "agent", "--once", "-c", str(path)]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    devices: dict[str, Any] = json.loads(result.stdout)["devices"]
    return devices


def number(text: str) -> float | None:
    """Return a value of nvidia-smi; ``[N/A]`` and the like are None."""
    try:
        return float(text)
    except ValueError:
        return None


def test_readings_and_limits_are_those_of_nvidia_smi(tmp_path: Path) -> None:
    """Same GPUs, same names; limits equal to the hundredth of a watt it prints; what moves is near; nothing was set."""
    before = smi()
    said = ours(tmp_path)
    assert {row["uuid"] for row in before} == {name for name, device in said.items() if device["kind"] == "gpu"}
    for row in before:
        device = said[row["uuid"]]
        assert (device["name"], device["index"]) == (row["name"], int(row["index"]))
        for field, key in EXACT.items():
            assert device.get(key) == pytest.approx(number(row[field]), abs=0.01), field
        for field, (key, apart) in NEAR.items():
            theirs = number(row[field])
            assert (key in device) == (theirs is not None), field
            assert theirs is None or abs(device[key] - theirs) <= apart, field
    assert [row["power.limit"] for row in smi()] == [row["power.limit"] for row in before]
