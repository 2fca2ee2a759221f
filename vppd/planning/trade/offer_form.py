"""One round of offering as a JSON document and back: what the desk asks of its worker, and the answer. Pure."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from math import inf, isinf
from typing import Any

import numpy as np

from vppd.core.bidding.bid import Bid
from vppd.core.bidding.offering import Unsold
from vppd.core.bidding.stock import Room, Sale, Stock
from vppd.model import Interval, Obligation
from vppd.planning.trade.shelf import Shelf, Steps
from vppd.snapshot import Floats

ENDLESS = "endless"
"""JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be offered: products in slots, what can be given, and what is sold already."""

    sales: tuple[Sale, ...]
    shelf: Shelf
    held: tuple[Obligation, ...]
    limit_s: float
    """For the solver. [s]"""


@dataclass(frozen=True, slots=True)
class Answer:
    """The bids, and what is missing behind what has been sold."""

    bids: tuple[Bid, ...]
    unsold: tuple[Unsold, ...]
    short_w: Mapping[str, float]
    """By award (or offer past its gate): how much of it is not there as surely as it ought to be. [W, > 0]"""
    status: str


def question_form(asked: Question) -> dict[str, Any]:
    """Return the question as plain JSON values; arrays as base64, so that they take the loop no time."""
    steps = asked.shelf.steps
    return {
        "sales": [_sale_form(sale) for sale in asked.sales],
        "stocks": [_stock_form(stock) for stock in asked.shelf.stocks],
        "rooms": [_room_form(room) for room in asked.shelf.rooms],
        "held": [sold.to_body() for sold in asked.held],
        "steps": {"start": steps.start.isoformat(), "step_s": steps.step_s, "count": steps.count},
        "limit_s": asked.limit_s,
    }


def question(form: Mapping[str, Any]) -> Question:
    """Return the question that ``question_form`` described. Raises KeyError, TypeError or ValueError for anything else."""
    steps = Steps(datetime.fromisoformat(form["steps"]["start"]), form["steps"]["step_s"], form["steps"]["count"])
    return Question(
        tuple(_sale(entry) for entry in form["sales"]),
        Shelf(
            steps, tuple(_stock(entry) for entry in form["stocks"]), {}, tuple(_room(entry) for entry in form["rooms"])
        ),
        tuple(Obligation.from_body(body) for body in form["held"]),
        form["limit_s"],
    )


def answer_form(given: Answer) -> dict[str, Any]:
    """Return the answer as plain JSON values."""
    return {
        "bids": [bid.to_body() for bid in given.bids],
        "unsold": [
            {"product": left.product, "reason": left.reason, "direction": left.direction, **_ends(left.interval)}
            for left in given.unsold
        ],
        "short_w": dict(given.short_w),
        "status": given.status,
    }


def answer(form: Mapping[str, Any]) -> Answer:
    """Return the answer that ``answer_form`` described. Raises KeyError, TypeError or ValueError for anything else."""
    return Answer(
        tuple(Bid.from_body(body) for body in form["bids"]),
        tuple(Unsold(left["product"], _interval(left), left["reason"], left["direction"]) for left in form["unsold"]),
        dict(form["short_w"]),
        form["status"],
    )


def _ends(interval: Interval) -> dict[str, str]:
    assert interval.end is not None
    return {"start": interval.start.isoformat(), "end": interval.end.isoformat()}


def _interval(form: Mapping[str, Any]) -> Interval:
    return Interval(datetime.fromisoformat(form["start"]), datetime.fromisoformat(form["end"]))


def _sale_form(sale: Sale) -> dict[str, Any]:
    form = {f.name: _finite(getattr(sale, f.name)) for f in fields(sale) if f.name != "interval"}
    return form | _ends(sale.interval)


def _sale(form: Mapping[str, Any]) -> Sale:
    rest: dict[str, Any] = {k: inf if v == ENDLESS else v for k, v in form.items() if k not in ("start", "end")}
    return Sale(interval=_interval(form), **rest)


def _stock_form(stock: Stock) -> dict[str, Any]:
    form = {f.name: _finite(getattr(stock, f.name)) for f in fields(stock) if f.name not in ("paths_w", "energy_wh")}
    energy = None if stock.energy_wh is None else _array_form(stock.energy_wh)
    return form | {"paths_w": _array_form(stock.paths_w), "energy_wh": energy}


def _stock(form: Mapping[str, Any]) -> Stock:
    rest: dict[str, Any] = {k: inf if v == ENDLESS else v for k, v in form.items() if k not in ("paths_w", "energy_wh")}
    energy_wh = None if form["energy_wh"] is None else _array(form["energy_wh"])
    return Stock(paths_w=_array(form["paths_w"]), energy_wh=energy_wh, **rest)


def _room_form(room: Room) -> dict[str, Any]:
    form = {f.name: _finite(getattr(room, f.name)) for f in fields(room) if f.name not in ("names", "room_w")}
    return form | {"names": sorted(room.names), "room_w": _array_form(room.room_w)}


def _room(form: Mapping[str, Any]) -> Room:
    rest: dict[str, Any] = {k: inf if v == ENDLESS else v for k, v in form.items() if k not in ("names", "room_w")}
    return Room(names=frozenset(form["names"]), room_w=_array(form["room_w"]), **rest)


def _finite(value: Any) -> Any:
    return ENDLESS if isinstance(value, float) and isinf(value) else value


def _array_form(array: Floats) -> dict[str, Any]:
    data = np.ascontiguousarray(array, dtype="<f8").tobytes()
    return {"shape": list(array.shape), "f8": b64encode(data).decode("ascii")}


def _array(form: Mapping[str, Any]) -> Floats:
    return np.frombuffer(b64decode(form["f8"]), dtype="<f8").reshape(form["shape"]).astype(np.float64)
