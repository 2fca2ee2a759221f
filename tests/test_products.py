"""The shipped products, and `vppd products`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vppd.cli import app
from vppd.config.table import InvalidConfig
from vppd.products import products_in, shipped

EXPECTED = {
    "caiso-pdr", "eu-afrr", "eu-fcr", "eu-mfrr", "gb-dfs", "guangdong-day-ahead", "guangdong-direct-control",
    "guangdong-hourly", "hunan-load", "neso-dc", "neso-dm", "neso-dr", "nordic-ffr", "nordic-mfrr", "pjm-regulation",
    "texas-large-load",
}  # fmt: skip
PLANT = """
[site]
id = "dc1"
agent_id = "dc1-agent"
import_max_w = 30e6
telemetry_s = 2.0
[[feeds]]
tag = "main"
meter = "poi"
import_max_w = 30e6
[[assets]]
id = "poi"
kind = "meter"
feed = "main"
adapter = "modbus-sunspec"
[[assets]]
id = "ups"
kind = "ups"
feed = "main"
adapter = "modbus-sunspec"
rated_charge_w = 2e6
rated_discharge_w = 2e6
capacity_wh = 1e6
reserve_frac = 0.3
[[assets]]
id = "hall"
kind = "cluster"
feed = "main"
adapter = "slurm"
rated_w = 9e6
min_w = 4e6
"""


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """A site with a UPS and a hall."""
    path = tmp_path / "vppd.toml"
    path.write_text(PLANT, encoding="utf-8")
    return path


def test_the_products_are_shipped_with_their_sources() -> None:
    """Every product names its source, and each file says in its head where the numbers are from."""
    found = {product.name: product for product in products_in(shipped())}
    assert found.keys() == EXPECTED
    assert all(product.sources for product in found.values())
    for file in shipped().glob("*.toml"):
        assert "# Source: " in file.read_text(encoding="utf-8"), file


def test_products_says_what_qualifies_and_what_fails_by_how_much(plant: Path) -> None:
    """A UPS of 2 MW and a hall sell mFRR; Dynamic Containment fails at its telemetry, Hunan by the missing power."""
    done = CliRunner().invoke(app, ["products", "-c", str(plant), "--json"])
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["nordic-mfrr"]["qualifies"]
    assert rows["nordic-mfrr"]["offer_w"] == 7e6
    assert [s["requirement"] for s in rows["neso-dc"]["shortcomings"]] == ["local response", "telemetry"]
    (hunan,) = rows["hunan-load"]["shortcomings"]
    assert (hunan["requirement"], hunan["have"], hunan["need"]) == ("power", 7e6, 10e6)
    (texas,) = rows["texas-large-load"]["shortcomings"]
    assert (texas["requirement"], texas["have"], texas["need"]) == ("site size", 30e6, 75e6)


def test_the_table_is_readable(plant: Path) -> None:
    """The table puts the sellable first and says how much is short."""
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["products", "-c", str(plant)]).stdout
    assert shown.index("nordic-mfrr") < shown.index("hunan-load")
    assert "7 MW of 10 MW, 3 MW short" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'name = "other"\ntitle = "x"\nmarket = "x"\ndirection = "reduce"\nsources = ["x"]\n',
            "name: must be the name",
        ),
        ('name = "p"\ntitle = "x"\nmarket = "x"\ndirection = "up"\nsources = ["x"]\n', "direction"),
        ('name = "p"\nactivation = 1\n', "activation: unknown key"),
        ("name = \n", "is not valid TOML"),
    ],
)
def test_a_bad_product_file_says_where(tmp_path: Path, text: str, expected: str) -> None:
    """File, key and reason are named."""
    (tmp_path / "p.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig, match=expected) as caught:
        products_in(tmp_path)
    assert "p.toml" in str(caught.value)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """No product at all is a mistake in the option, not an answer."""
    with pytest.raises(InvalidConfig, match="holds no product"):
        products_in(tmp_path)
