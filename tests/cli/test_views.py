"""Commands that show what the daemon says: each names a table that there is, and a site without the part says what is missing."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support import ROOT
from vppd.cli import app

SHOWN = re.findall(
    r'_show\(config, "(/api/v1/\w+)", as_json, "(vppd\.api\.\w+)", "(\w+)"\)',
    (ROOT / "vppd" / "cli.py").read_text(encoding="utf-8"),
)


@pytest.mark.parametrize(("path", "module", "table"), SHOWN)
def test_the_table_of_each_view_is_there(path: str, module: str, table: str) -> None:
    """A view is loaded only when it is asked for, so a misspelt one would be found by a person."""
    assert callable(getattr(import_module(module), table)), path


def test_all_views_were_found() -> None:
    """The pattern above sees the commands it is about."""
    assert {path.rpartition("/")[2] for path, _, _ in SHOWN} >= {
        "state",
        "orders",
        "forecasts",
        "plan",
        "bids",
        "market",
        "openadr",
    }


def test_bids_of_a_site_that_sells_nothing_are_refused(tmp_path: Path) -> None:
    """``vppd bids --xml`` says what is missing instead of writing an empty folder."""
    config = tmp_path / "vppd.toml"
    config.write_text(
        '[site]\nid = "dc1"\nagent_id = "a"\nimport_max_w = 1e6\n'
        '[[feeds]]\ntag = "main"\nmeter = "poi"\nimport_max_w = 1e6\n'
        '[[assets]]\nid = "poi"\nkind = "meter"\nfeed = "main"\nadapter = "modbus-sunspec"\n',
        encoding="utf-8",
    )
    result = CliRunner().invoke(app, ["bids", "-c", str(config), "--xml", str(tmp_path / "out")])
    assert "no table [market]" in str(result.exception)
    assert not (tmp_path / "out").exists()
