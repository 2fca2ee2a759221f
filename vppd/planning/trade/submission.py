"""What ``vppd bids --xml`` does: open bids, read from the ledger of a daemon that may be running, as files for a market."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from vppd.config.load import Config
from vppd.errors import Refused
from vppd.grid.reserve_bid_file import write_reserve_bids
from vppd.ledger.projections import project
from vppd.ledger.reader import read_ledger
from vppd.products import sold


def submit(config: Config, folder: Path, now: datetime) -> tuple[Path, ...]:
    """Write the documents of all open bids into ``folder`` and return them; none when nothing is open.

    Raises Refused for what cannot be written, ConfigError without a ledger or with a bad product file, Garbled for a corrupt ledger.
    """
    if config.market is None:
        raise Refused("nothing is sold: the configuration has no table [market]")
    with read_ledger(config.site.state_dir / "ledger.db") as ledger:
        offers = project(ledger.events()).trades.offers
    return write_reserve_bids(offers.values(), config.market, sold(config.market), config.site.id, folder, now)
