"""What ``vppd products`` says a site could sell: how much less, how much more, or both ways alike."""

from __future__ import annotations

import io
import json

from rich.console import Console

from vppd.api.products import product_rows, products_table
from vppd.testing.cycles import two_feeds


def test_each_product_says_how_much_in_which_direction() -> None:
    """Of one that goes either way each that the site has enough for; JSON says the same as the table."""
    rows = {row["name"]: row for row in json.loads(json.dumps(product_rows(two_feeds(telemetry_s=2.0))))}
    regulation, reserve = rows["pjm-regulation"], rows["eu-mfrr"]
    assert (regulation["direction"], regulation["offers_w"]) == ("symmetric", {"symmetric": 450e3})
    assert (reserve["direction"], reserve["qualifies"], reserve["offers_w"]) == ("either", True, {"reduce": 1e6})
    out = io.StringIO()
    products_table(list(rows.values()), Console(file=out, width=200))
    text = out.getvalue()
    assert "0.45 MW both ways" in text
    assert "1 MW less" in text
    assert " more" not in text
