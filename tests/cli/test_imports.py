"""What the command line loads before it knows what is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "httpx paho numpy pydantic pymodbus rich.console highspy starlette"


@pytest.mark.parametrize("module", HEAVY.split())
def test_nothing_heavy_is_loaded_at_once(module: str) -> None:
    """Parsing the command line loads none of the libraries that only some commands need."""
    asked = f"import sys, vppd.cli; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False, timeout=60).returncode == 0
