"""What the demo's daemon sells: a product of one minute, and the tables of ``vppd.toml`` that make it look ahead and offer."""

from __future__ import annotations

from pathlib import Path

from vppd.demo.tomlwriter import Value, dump

MARKET = "market"
"""Issuer name of the market in act 4."""
PRODUCT = "demo-minute"
SLOT_S = 60.0
GATE_S = 15.0
"""The gate closes so long before delivery. [s]"""
PRICE_PER_MWH = 200.0
"""What the daemon expects the market to pay."""


def trade(folder: Path) -> dict[str, Value]:
    """Return the tables for looking ahead, planning and selling.

    There is no history in a demo: what is foreseen is what was measured last, so the desk counts on a part of it. The plan is
    shown and not steered by, so that the acts before the market are about dispatch alone.
    """
    return {
        "forecast": {"step_s": 300.0, "horizon_h": 2.0, "every_s": 60.0},
        "planning": {"horizon_h": 2.0, "replan_s": 120.0, "time_limit_s": 2.0, "economics": False},
        "market": {
            "issuer": MARKET,
            "products": [PRODUCT],
            "products_dir": str(_products(folder)),
            "lead_s": GATE_S + SLOT_S / 2.0,
            "horizon_h": 0.1,
            "time_limit_s": 2.0,
            "expect": [{"product": PRODUCT, "price_per_mwh": PRICE_PER_MWH}],
        },
    }


def write_product(folder: Path) -> Path:
    """Write the product file and return its path."""
    path = _products(folder) / f"{PRODUCT}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    product: dict[str, Value] = {
        "name": PRODUCT,
        "title": "A minute of less consumption, for a demo",
        "market": "demo",
        "direction": "reduce",
        "dispatch": "scheduled",
        "activation_s": SLOT_S,
        "sustain_s": SLOT_S,
        "delivery_interval_s": SLOT_S,
        "min_bid_w": 10e3,
        "bid_step_w": 1e3,
        "divisible": True,
        "price_form": "pay-as-cleared",
        "price_limit_per_mwh": 1000.0,
        "availability_frac": 0.9,
        "sources": ["made up for the demo"],
        "gate": {"before_delivery_s": GATE_S},
    }
    path.write_text("# Written by vppd demo.\n" + dump(product), encoding="utf-8")
    return path


def _products(folder: Path) -> Path:
    return folder / "products"
