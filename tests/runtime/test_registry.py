"""Adapters by entry point, from real distributions in a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from vppd.config.plant import AssetConfig
from vppd.model import Kind
from vppd.runtime.registry import GROUP, Unusable, connections, installed

ACME = """
from contextlib import asynccontextmanager
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field
from vppd.errors import ConfigError
from vppd.ports import Adapter

class AcmeConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str
    port: int = Field(default=502, ge=1, le=65535)
    mode: Literal["fast", "slow"] = "fast"
    def model_post_init(self, _):
        if self.host == "nowhere":
            raise ConfigError("nowhere is no host")

@asynccontextmanager
async def connect(config):
    yield config

ADAPTER = Adapter(AcmeConfig, connect)
NOT_ONE = 42
"""
POINTS = "acme = acme_x:ADAPTER\nodd = acme_x:NOT_ONE\nbroken = acme_broken:ADAPTER\nmissing = acme_x:NOTHING"
Installer = Callable[..., Callable[[], Iterable[EntryPoint]]]


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    """``dist(name, points)``: install a distribution into a folder, and return how to find what is there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_x.py").write_text(ACME)
    (tmp_path / "acme_broken.py").write_text("import no_such_package_at_all\n")

    def install(name: str = "acme", points: str = POINTS) -> Callable[[], Iterable[EntryPoint]]:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
        return lambda: entry_points(group=GROUP)

    yield install
    for module in ("acme_x", "acme_broken"):
        sys.modules.pop(module, None)


def asset(adapter: str, **connection: Any) -> AssetConfig:
    """Return an asset with that adapter."""
    return AssetConfig(id=f"{adapter}-1", kind=Kind.METER, feed="main-a", adapter=adapter, connection=connection)


async def test_an_adapter_of_a_third_party_is_found_validated_and_opened(dist: Installer) -> None:
    """The config model's defaults are filled in, and connect is given the model."""
    opened = connections([asset("acme", host="10.0.0.7")], dist())
    async with opened["acme-1"]() as device:
        assert (getattr(device, "host", None), getattr(device, "port", None)) == ("10.0.0.7", 502)


def test_an_unknown_name_lists_what_is_installed(dist: Installer) -> None:
    """With the key of the asset."""
    with pytest.raises(Unusable) as caught:
        connections([asset("acne")], dist())
    (problem,) = caught.value.problems
    assert problem.key == "assets[0].adapter"
    assert "no adapter 'acne'" in problem.reason
    assert "acme" in problem.allowed


def test_every_mistake_in_every_asset_is_told_at_once(dist: Installer) -> None:
    """Missing, out of range, not one of, unknown key, the adapter's own word, and adapters that are none."""
    with pytest.raises(Unusable) as caught:
        connections(
            [
                asset("acme", port=0, mode="warp"),
                asset("acme", host="a", colour="red"),
                asset("acme", host="nowhere"),
                asset("odd"),
                asset("broken"),
                asset("missing"),
            ],
            dist(),
        )
    found = {problem.key: problem for problem in caught.value.problems}
    assert set(found) == {
        "assets[0].connection.host",
        "assets[0].connection.port",
        "assets[0].connection.mode",
        "assets[1].connection.colour",
        "assets[2].connection",
        "assets[3].adapter",
        "assets[4].adapter",
        "assets[5].adapter",
    }
    assert found["assets[0].connection.port"].allowed == ">= 1"
    assert found["assets[0].connection.mode"].allowed == "'fast' or 'slow'"
    assert found["assets[1].connection.colour"].allowed == "host, mode, port"
    assert found["assets[2].connection"].reason == "nowhere is no host"
    assert "no_such_package_at_all" in found["assets[4].adapter"].reason
    assert "not a vppd.ports.Adapter" in found["assets[3].adapter"].reason
    assert str(caught.value).count("\n") == 7


def test_a_name_offered_by_two_distributions_is_refused(dist: Installer) -> None:
    """Nobody may slip in front of somebody else's adapter."""
    dist()
    found = dist("evil", "acme = acme_broken:ADAPTER")
    with pytest.raises(Unusable, match="offered more than once: acme_broken:ADAPTER of evil, acme_x:ADAPTER of acme"):
        connections([asset("acme", host="a")], found)


def test_only_adapters_that_are_named_are_imported(dist: Installer) -> None:
    """A broken adapter that nobody uses does no harm, nor does listing it."""
    found = dist()
    assert {"acme", "broken"} <= set(installed(found))
    assert "acme_x" not in sys.modules
    connections([asset("acme", host="a")], found)
    assert "acme_broken" not in sys.modules


def test_listing_our_own_adapters_imports_none_of_them() -> None:
    """In a fresh interpreter."""
    code = "import sys; from vppd.runtime.registry import installed; installed(); print('pymodbus' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
