"""What tests ask of the machine: a binary, a free port, the shared specifications."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent


def require(binary: str, why: str) -> str:
    """Return the path of ``binary``; without it the test skips with ``why``, and fails where CI=true."""
    found = shutil.which(binary, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        absent(f"{binary} is not installed: {why} (`make setup` installs it)")
    return found


def shared(*parts: str) -> Path:
    """Return a path in the folder of shared specifications and data; without it the test skips, also where CI=true."""
    path = Path(os.environ.get("VPPD_SHARED", ROOT.parent / "shared")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not in the shared folder (set VPPD_SHARED to where it is)")
    return path


def free_port() -> int:
    """Return a TCP port on loopback that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def absent(reason: str) -> NoReturn:
    """Skip the test with ``reason``; fail it where CI=true, because there everything has been installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
