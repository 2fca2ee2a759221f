"""What a configuration says of whom we sell to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_check import GOOD
from tests.grid.dispatcher import Key
from vppd.config.load import Config, examine
from vppd.grid.setup import grid_problems, registry_of

MARKET = """
[forecast]
[planning]
[market]
issuer = "tso"
products = ["nordic-mfrr"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the keys of the configuration."""
    (tmp_path / "tso.pem").write_bytes(Key("tso-1").public_pem())
    (tmp_path / "sign.pem").write_bytes(Key("dc1-1").private_pem())
    (tmp_path / "sign.pem").chmod(0o600)
    return tmp_path


def read(folder: Path, text: str) -> Config:
    """Return the configuration, which must be without mistakes."""
    path = folder / "vppd.toml"
    path.write_text(text, encoding="utf-8")
    config, problems = examine(path)
    assert config is not None
    assert not problems
    return config


def test_awards_are_taken_from_the_market_that_is_configured(folder: Path) -> None:
    """Without a market nobody awards."""
    for text, awards_from in ((GOOD, ""), (GOOD + MARKET, "tso")):
        config = read(folder, text)
        assert config.grid is not None
        assert registry_of(config, config.grid).rules.awards_from == awards_from
        assert grid_problems(config, config.grid) == ()
