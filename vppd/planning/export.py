"""Open bids as documents of a market, from the ledger of a daemon that may be running."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from vppd.config.load import Config
from vppd.errors import ConfigError, Refused
from vppd.grid.reserve_bid_file import write_reserve_bids
from vppd.ledger.projections import project
from vppd.ledger.reader import read_ledger
from vppd.products import sold


def exported(config: Config, folder: Path, now: datetime) -> tuple[Path, ...]:
    """Write the open bids into ``folder`` and return the files, none when nothing is open.

    Raises Refused when this site sells nothing, has no codes of the market, or the ledger cannot be read; Garbled for a corrupt one.
    """
    if config.market is None:
        raise Refused("this site sells nothing: its configuration has no table [market]")
    try:
        with read_ledger(config.site.state_dir / "ledger.db") as reader:
            offers = project(reader.events()).trades.offers
    except ConfigError as error:
        raise Refused(f"the bids cannot be read: {error}") from error
    return write_reserve_bids(offers.values(), config.market, sold(config.market), config.site.id, folder, now)
