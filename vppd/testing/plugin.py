"""pytest options that name an adapter and a connection: ``pytest -p vppd.testing.plugin --adapter NAME``."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from vppd.errors import ConfigError
from vppd.testing.conformance import Rig


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("vppd", "adapter conformance")
    group.addoption("--adapter", help="name of an installed adapter, e.g. modbus-sunspec")
    group.addoption("--connection", help="TOML file that holds the connection table of the device")
    group.addoption("--setpoint", type=float, default=None, help="power that may be commanded [W, + = consumption]")


@pytest.fixture
def live_rig(request: pytest.FixtureRequest) -> Rig:
    """The device named on the command line."""
    name, path = request.config.getoption("--adapter"), request.config.getoption("--connection")
    if not name or not path:
        pytest.skip("give --adapter NAME and --connection FILE")
    known = {point.name: point for point in entry_points(group="vppd.adapters")}
    if name not in known:
        raise ConfigError(f"no adapter {name!r} (installed: {', '.join(sorted(known))})")
    connection = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    return Rig(known[name].load(), connection, setpoint_w=request.config.getoption("--setpoint"))
