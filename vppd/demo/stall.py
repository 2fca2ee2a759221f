"""The market of the last act: a process of its own that talks MQTT alone, and what it has written down."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vppd.demo.children import Children, until
from vppd.demo.dispatcher import Parties
from vppd.demo.keys import KeyPair
from vppd.errors import Garbled
from vppd.grid.issuer_line import Broker

UP_S = 30.0
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Sold:
    """The one award of the act."""

    power_w: float
    price: str
    """Clearing price, exact. [per MWh]"""
    currency: str
    start: datetime
    end: datetime
    state: str
    reason: str
    offered_w: float
    delivered_wh: float | None
    """By the daemon's own statement, never more than obliged; None while there is none. [Wh]"""
    obliged_wh: float | None
    owed: str

    @property
    def is_settled(self) -> bool:
        """Say whether its statement has come."""
        return self.delivered_wh is not None


@dataclass(frozen=True, slots=True)
class Stall:
    """Where the market is opened."""

    processes: Children
    line: Broker
    parties: Parties
    keys: KeyPair
    issuer: str
    jwks: Path

    @property
    def results(self) -> Path:
        """Return where the market writes what it comes to."""
        return self.processes.folder / "market.json"

    @asynccontextmanager
    async def opened(self, need: str) -> AsyncIterator[None]:
        """Hold a market that buys one slot. Raises Failed when it does not come up."""
        self.results.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "vppd.market", "--broker", f"{self.line.host}:{self.line.port}"]
        argv += ["--mqtt", self.line.protocol, "--issuer", self.issuer, "--key", str(self.keys.private)]
        argv += ["--kid", self.keys.kid, "--seller", f"{self.parties.vpp_id}:{self.parties.agent_id}:{self.jwks}"]
        argv += ["--need", need, "--slots", "1", "--json", str(self.results)]
        child = await self.processes.start("market", argv)
        try:
            await until("the market", self._is_up, child, UP_S)
            yield
        finally:
            await self.processes.end(child)

    async def wait(self, ready: Callable[[Sold], bool], within_s: float) -> Sold | None:
        """Return the award as soon as it is ``ready``, as it is when the time is over, None when there is none."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while True:
            sold = await asyncio.to_thread(self.sold)
            if (sold is not None and ready(sold)) or loop.time() >= deadline_s:
                return sold
            await asyncio.sleep(LOOK_S)

    def sold(self) -> Sold | None:
        """Return the award, None while there is none. Raises Garbled for results that nobody can read."""
        try:
            return read_sold(json.loads(self.results.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Garbled(f"the market's results cannot be read: {error}") from error

    async def _is_up(self) -> bool:
        return await asyncio.to_thread(self.results.exists)


def read_sold(results: dict[str, Any]) -> Sold | None:
    """Return the first award of a market's results. Raises KeyError, TypeError or ValueError."""
    if not results["awards"]:
        return None
    award, account = results["awards"][0], results["awards"][0]["account"]
    slot = next(slot for slot in results["slots"] if slot["start"] == award["start"])
    return Sold(
        power_w=float(award["power_w"]),
        price=award["price"],
        currency=award["currency"],
        start=datetime.fromisoformat(award["start"]),
        end=datetime.fromisoformat(award["end"]),
        state=award["state"],
        reason=award["reason"],
        offered_w=float(slot["offered_w"]),
        delivered_wh=float(account["delivered_wh"]) if account else None,
        obliged_wh=float(account["obliged_wh"]) if account else None,
        owed=account["owed"] if account else "",
    )
