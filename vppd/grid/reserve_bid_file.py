"""Our open bids as files that an IEC 62325 market takes: one ``ReserveBid_MarketDocument`` per submission."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from vppd.config.market import MarketConfig, ReserveBidConfig
from vppd.core.bidding.bid import Bid, Offered
from vppd.errors import Refused
from vppd.grid.reserve_bid import Market, Party, reserve_bid
from vppd.products import ProductConfig

MOST_SERIES = 2_000
"""The smallest limit on time series in one document (Fingrid's)."""


def market_of(codes: ReserveBidConfig, site: str, price_limit_per_mwh: float | None = None) -> Market:
    """Return who bids to whom by ``[market.reserve_bid]``."""
    plain = Market(
        sender=Party(codes.sender, codes.sender_scheme),
        receiver=Party(codes.receiver, codes.receiver_scheme),
        domain=Party(codes.domain),
        acquiring=Party(codes.acquiring),
        resources=((site, Party(codes.resource, codes.resource_scheme)),),
    )
    if price_limit_per_mwh is None:
        return plain
    return Market(
        plain.sender,
        plain.receiver,
        plain.domain,
        plain.acquiring,
        plain.resources,
        price_limit_per_mwh=price_limit_per_mwh,
    )


def open_bids(offers: Iterable[Offered], products: Iterable[str], now: datetime) -> tuple[Bid, ...]:
    """Return the bids of these products that are on offer and whose gate is open, by slot."""
    names = frozenset(products)
    found = [o.bid for o in offers if o.state == "offered" and o.bid.product in names and now < o.gate_closes_at]
    return tuple(sorted(found, key=lambda bid: (bid.interval.start, bid.bid_id)))


def write_reserve_bids(
    offers: Iterable[Offered],
    market: MarketConfig,
    products: Iterable[ProductConfig],
    site: str,
    folder: Path,
    now: datetime,
) -> tuple[Path, ...]:
    """Write the open bids, a document for each product, and return the files; none when nothing is open.

    The same bids make the same document, name and id, so that it may be handed in again; a revision makes a new one. Raises Refused
    without ``[market.reserve_bid]``, for what the market would not take, and when a file cannot be written.
    """
    codes = market.reserve_bid
    if codes is None:
        raise Refused("the configuration has no table [market.reserve_bid] with the market's codes")
    limits = {product.name: product.price_limit_per_mwh for product in products}
    offered, written = tuple(offers), []
    for name in codes.products:
        bids = open_bids(offered, [name], now)
        if bids:
            document = document_id(bids)
            content = reserve_bid(bids, market_of(codes, site, limits.get(name)), document, now)
            if (count := content.count(b"<Bid_TimeSeries>")) > MOST_SERIES:
                raise Refused(
                    f"{count} time series of {name} are more than {MOST_SERIES}, the most a document may hold"
                )
            written.append(_write(folder / f"{name}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{document[:8]}.xml", content))
    return tuple(written)


def document_id(bids: Iterable[Bid]) -> str:
    """Return an id that follows from bids and their revisions, so that two submissions of the same are told apart from news."""
    return str(uuid5(NAMESPACE_OID, "/".join(f"{bid.bid_id}:{bid.revision}" for bid in bids)))


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    return path
