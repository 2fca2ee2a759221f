"""What fits through the site's connection and its feeds beside what passes there anyway. Pure.

No order and no sale moves a node over its limit: what does not fit is simply not there. So it is looked at before it is sold, in
the same samples as what is sold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np

from vppd.config.load import Config
from vppd.config.plant import STORAGE, AssetConfig, SiteConfig
from vppd.core.bidding.lots import SYMMETRIC
from vppd.core.bidding.stock import Room, Stock
from vppd.model import Kind
from vppd.planning.trade.increases import given
from vppd.planning.trade.sight import Sight
from vppd.snapshot import Floats


class Slot(Protocol):
    """What is sold to be there within a time."""

    @property
    def activation_s(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Node:
    """A place where power passes a limit: the site's connection, or a feed."""

    tag: str
    feeds: frozenset[str]
    """The feeds that hang on it, itself if it is one."""
    import_max_w: float
    """Less the margin that is kept free. [W]"""
    export_max_w: float


def nodes_of(config: Config) -> tuple[Node, ...]:
    """Return the site's connection, and every feed."""
    part = 1.0 - config.site.margin_frac
    tags = frozenset(feed.tag for feed in config.feeds)
    site = Node(config.site.id, tags, part * config.site.import_max_w, part * config.site.export_max_w)
    feeds = (Node(f.tag, frozenset({f.tag}), part * f.import_max_w, part * f.export_max_w) for f in config.feeds)
    return site, *feeds


def rooms_of(
    nodes: Sequence[Node],
    assets: Sequence[AssetConfig],
    stocks: Sequence[Stock],
    sight: Sight,
    away: frozenset[str] = frozenset(),
) -> tuple[Room, ...]:
    """Return the room at each node for what its stocks could give; on assets that are ``away`` nobody counts to make any."""
    found = []
    for node in nodes:
        below = [asset for asset in assets if asset.feed in node.feeds]
        ids = {asset.id for asset in below}
        own = [stock for stock in stocks if stock.name.partition("/")[0] in ids]
        names = {way: frozenset(s.name for s in own if s.direction == way) for way in ("up", "down")}
        if names["down"]:
            found += _into(node, [s for s in own if s.direction == "down"], _most_drawn_w(node, below, sight, away))
        if names["up"]:
            room_w = node.export_max_w + _least_drawn_w(node, below, sight, away)
            found.append(Room(node.tag, "up", names["up"], np.asarray(room_w)))
    return (*found, *_in_a_hurry(stocks))


def _into(node: Node, own: Sequence[Stock], drawn_w: Floats) -> list[Room]:
    """Return the room for increases beside what would be drawn without the plan, and so for a signal, which counts from that."""
    names, waits_w = frozenset(stock.name for stock in own), _waits_w(own, drawn_w)
    found = [Room(node.tag, "down", names, np.asarray(node.import_max_w - (drawn_w - waits_w)))]
    if waits_w.any():
        signal = frozenset(stock.name for stock in own if not stock.one_way)
        found.append(Room(node.tag, "down", signal, np.asarray(node.import_max_w - drawn_w), of=SYMMETRIC))
    return found


def _waits_w(own: Sequence[Stock], like_w: Floats) -> Floats:
    """Return what of clusters the plan puts off, (i, h). [W]"""
    return np.asarray(
        sum((np.nan_to_num(stock.paths_w) for stock in own if stock.one_way), 0.0 * np.nan_to_num(like_w))
    )


def ramps_of(site: SiteConfig, stocks: Sequence[Stock], sold: Iterable[Slot]) -> tuple[Room, ...]:
    """Return what the site's ramps reach within each time that something is, or may be, sold to be there.

    A signal begins where work that the plan puts off runs: on the way there that takes a part of the ramp.
    """
    times_s = sorted({s.activation_s for s in sold if s.activation_s is not None and isfinite(s.activation_s)})
    found = []
    for way, ramp_w_per_s in (("up", site.ramp_down_w_per_s), ("down", site.ramp_up_w_per_s)):
        own = [stock for stock in stocks if stock.direction == way]
        names, signal = frozenset(s.name for s in own), frozenset(s.name for s in own if not s.one_way)
        for within_s in times_s if own else ():
            reach_w = np.full((1, own[0].paths_w.shape[1]), ramp_w_per_s * within_s)
            found.append(Room(f"ramp of {within_s:g} s", way, names, reach_w, within_s))
            if signal < names:
                left_w = reach_w - _waits_w(own, reach_w)
                found.append(Room(f"ramp of {within_s:g} s", way, signal, left_w, within_s, of=SYMMETRIC))
    return tuple(found)


def unknown(nodes: Sequence[Node], stocks: Sequence[Stock], assets: Sequence[AssetConfig], sight: Sight) -> list[str]:
    """Return the feeds with something that could draw more, and whose load nobody foresees."""
    able = {stock.name.partition("/")[0] for stock in stocks if stock.direction == "down"}
    wanted = {asset.feed for asset in assets if asset.id in able}
    return [n.tag for n in nodes if n.feeds == {n.tag} and n.tag in wanted and sight.median(f"load/{n.tag}") is None]


def _most_drawn_w(node: Node, below: Sequence[AssetConfig], sight: Sight, away: frozenset[str]) -> Floats:
    """Return what is drawn by forecast and plan before any sale, (i, h): NaN where the load is not foreseen. [W]"""
    nothing = np.zeros((1, sight.steps.count))
    drawn_w: Floats = nothing
    for feed in sorted(node.feeds):
        load_w = sight.high(f"load/{feed}")
        drawn_w = drawn_w + (nothing * np.nan if load_w is None else load_w)
    for asset in below:
        if asset.kind is Kind.CLUSTER:
            demand_w, expected_w = sight.high(f"compute/{asset.id}"), sight.median(f"compute/{asset.id}")
            if demand_w is None or expected_w is None:
                drawn_w = drawn_w + asset.rated_w
            else:  # what has waited runs beside what has not
                drawn_w = drawn_w + demand_w + np.nan_to_num(np.maximum(sight.planned_w(asset.id) - expected_w, 0.0))
        elif asset.kind in (Kind.PV, Kind.WIND):
            given_w = None if asset.id in away else given(asset, sight)
            drawn_w = drawn_w - (nothing if given_w is None else given_w)
        elif asset.kind in STORAGE:
            drawn_w = drawn_w + np.nan_to_num(np.maximum(sight.planned_w(asset.id), 0.0))
    return drawn_w


def _least_drawn_w(node: Node, below: Sequence[AssetConfig], sight: Sight, away: frozenset[str]) -> Floats:
    """Return what is drawn at least, (i, h); generation that is not foreseen gives all it can, load and compute are 0. [W]"""
    drawn_w: Floats = np.zeros((1, sight.steps.count))
    names = [f"load/{feed}" for feed in sorted(node.feeds)]
    names += [f"compute/{asset.id}" for asset in below if asset.kind is Kind.CLUSTER and asset.id not in away]
    for name in names:
        low_w = sight.low(name)
        drawn_w = drawn_w if low_w is None else drawn_w + low_w
    for asset in below:
        if asset.kind in (Kind.PV, Kind.WIND):
            given_w = sight.high(f"generation/{asset.id}")
            drawn_w = drawn_w - (asset.rated_w if given_w is None else given_w)
        elif asset.kind in STORAGE:
            drawn_w = drawn_w + np.nan_to_num(np.minimum(sight.planned_w(asset.id), 0.0))
    return drawn_w


def _in_a_hurry(stocks: Sequence[Stock]) -> list[Room]:
    """Return what is left of the increases until clusters whose work the plan puts off draw what they would without it.

    A signal is counted from that; until they do, something faster has to draw it for them.
    """
    down = [stock for stock in stocks if stock.direction == "down"]
    late, fast = [stock for stock in down if stock.one_way], [stock for stock in down if not stock.one_way]
    found = []
    for response_s in sorted({stock.response_s for stock in late}):
        waits_w = sum((stock.paths_w for stock in late if stock.response_s >= response_s), np.zeros(1))
        there_w = sum((stock.paths_w for stock in fast if len(stock.paths_w)), np.zeros(1))
        names, within_s = frozenset(stock.name for stock in fast), float(np.nextafter(response_s, 0.0))
        if names:
            room_w = np.asarray(there_w - waits_w)
            found.append(Room(f"{response_s:g} s", "down", names, room_w, within_s, of=SYMMETRIC))
    return found
