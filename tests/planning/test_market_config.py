"""The table [market]: mistakes that would only show when an award fails to come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vppd.config.load import examine
from vppd.config.market import MarketConfig
from vppd.config.table import InvalidConfig
from vppd.products import shipped, sold

SITE = """
[site]
id = "dc1"
agent_id = "dc1-agent"
import_max_w = 1e6
[[feeds]]
tag = "main"
meter = "poi"
import_max_w = 1e6
[[assets]]
id = "poi"
kind = "meter"
feed = "main"
adapter = "modbus-sunspec"
[grid.broker]
host = "127.0.0.1"
insecure_lab = true
[grid.signing]
kid = "k"
key_file = "k.pem"
[[grid.issuers]]
id = "tso"
[[grid.issuers.keys]]
kid = "tso-1"
alg = "ES256"
public_key_file = "tso.pem"
[forecast]
[planning]
[market]
issuer = "tos"
products = ["nordic-mfrr"]
products_dir = "products"
"""


def test_an_issuer_that_nobody_knows_is_a_mistake(tmp_path: Path) -> None:
    """Its awards would be refused; paths are those beside the file."""
    path = tmp_path / "vppd.toml"
    path.write_text(SITE, encoding="utf-8")
    config, problems = examine(path)
    (found,) = [problem for problem in problems if problem.key == "market.issuer"]
    assert "'tos'" in found.reason
    assert found.allowed == "tso"
    assert config is not None
    assert config.market is not None
    assert config.market.products_dir == tmp_path / "products"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"products": ["a", "a"]}, "names a twice"),
        ({"expect": [{"product": "b", "price_per_mwh": 1.0}]}, "not among products"),
        ({"products": []}, "at least 1"),
        ({"expect": [{"product": "a", "price_per_mwh": 1.0}] * 2}, r"a \(down\), a \(up\) twice"),
        (
            {
                "expect": [
                    {"product": "a", "price_per_mwh": 1.0},
                    {"product": "a", "direction": "up", "price_per_mwh": 1.0},
                ]
            },
            r"names a \(up\) twice",
        ),
        ({"expect": [{"product": "a", "direction": "both", "price_per_mwh": 1.0}]}, "'up' or 'down'"),
        ({"signal_sustain_s": 0.0}, "greater than or equal"),
        ({"lead_s": 0.0}, "greater than or equal"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(changes: dict[str, Any], why: str) -> None:
    """Each with its reason."""
    with pytest.raises(ValidationError, match=why):
        MarketConfig.model_validate({"issuer": "tso", "products": ["a"], **changes})


def test_products_are_found_in_their_order_or_named(tmp_path: Path) -> None:
    """A name without a file says which ones there are."""
    market = MarketConfig(issuer="tso", products=("nordic-mfrr", "gb-dfs"))
    assert [product.name for product in sold(market)] == ["nordic-mfrr", "gb-dfs"]
    with pytest.raises(InvalidConfig, match=r"there is no moon-reserve .*nordic-mfrr"):
        sold(MarketConfig(issuer="tso", products=("moon-reserve",), products_dir=shipped()))


def test_expectations_may_differ_by_direction() -> None:
    """What is said of one direction says nothing of the other; without a direction it is said of all."""
    up = {"product": "a", "direction": "up", "price_per_mwh": 5.0}
    table = {"issuer": "tso", "products": ["a", "b"], "expect": [up, {"product": "b", "price_per_mwh": 7.0}]}
    market = MarketConfig.model_validate(table)
    assert [getattr(market.expected("a", way), "price_per_mwh", None) for way in ("", "up", "down")] == [5.0, 5.0, None]
    assert [getattr(market.expected("b", way), "price_per_mwh", None) for way in ("up", "symmetric")] == [7.0, 7.0]
