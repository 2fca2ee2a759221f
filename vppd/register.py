"""What the ledger's events add up to, in the terms admission and the cycle ask for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vppd.api.bids import bids_view
from vppd.core.bidding.bid import Offered
from vppd.core.state import Phase, Progress
from vppd.grid.verdict import COMMANDS, Stored
from vppd.ledger.projections import Owed, Projection
from vppd.model import Obligation, Order, OrderKind, Outbound, Recorded
from vppd.ports import Ledger
from vppd.runtime.intents import Intent

SIGNALS_KEPT = 20_000
"""Regulation signals whose signed data is remembered: half a day of one every two seconds."""
REJECTIONS_KEPT = 1_000
"""Rejected commands whose answer is remembered; an older one is judged anew."""


class Register:
    """Folds the ledger as it grows; implements ``grid.verdict.Seen``."""

    def __init__(self, ledger: Ledger) -> None:
        self.trading = asyncio.Lock()
        """Held by whoever changes what is offered or awarded, from the look at what is there to the commit; never while waiting long."""
        self._ledger = ledger
        self._projection = Projection()
        self._progress: dict[str, Progress] = {}
        self._ids: set[str] = set()
        self._signals: dict[str, int] = {}
        self._signals_signed: OrderedDict[str, None] = OrderedDict()
        self._receipts: dict[tuple[str, str], tuple[Outbound, ...]] = {}
        self._releases: set[tuple[str, str]] = set()
        self._rejections: OrderedDict[str, Stored] = OrderedDict()

    def catch_up(self) -> None:
        """Fold what has been appended since. Raises Garbled when the ledger makes no sense."""
        for recorded in self._ledger.events(after=self._projection.last_id):
            self._projection.fold(recorded)
            self._note(recorded)

    @property
    def orders(self) -> tuple[Order, ...]:
        """Accepted orders that have not been closed, in order of acceptance."""
        return self._projection.orders

    @property
    def progress(self) -> Mapping[str, Progress]:
        """How far the open orders have come, as far as it has been recorded."""
        return {o.order_id: self._progress[o.order_id] for o in self.orders if o.order_id in self._progress}

    @property
    def owed(self) -> tuple[Owed, ...]:
        """Messages still owed to the dispatcher, oldest first."""
        return self._projection.outbox

    @property
    def open_intents(self) -> tuple[Intent, ...]:
        """The newest setpoint of each asset of which nobody knows whether the device took it."""
        return tuple(Intent(i.intent_id, i.asset_id, i.power_w, i.cause) for i in self._projection.open_intents)

    @property
    def offers(self) -> Mapping[str, Offered]:
        """What was told to the market last of each bid, by its id; until some days after its interval."""
        return self._projection.trades.offers

    @property
    def obligations(self) -> tuple[Obligation, ...]:
        """What awards oblige us to, or did until some days ago, in the order of their award."""
        return tuple(self._projection.trades.obligations.values())

    def obligations_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return the obligations that are not over at ``at``, also those that begin later."""
        return tuple(found for found in self.obligations if not found.is_over(at))

    def unsettled_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return the obligations that are over at ``at`` and have no statement yet."""
        is_settled = self._projection.trades.is_settled
        return tuple(found for found in self.obligations if found.is_over(at) and not is_settled(found.award_id))

    def offered(self, bid_id: str) -> Offered | None:
        """Return what was told to the market last of a bid, and how much of it has been awarded."""
        return self.offers.get(bid_id)

    def winner(self, exclusive_group: str) -> str | None:
        """Return the bid of an exclusive group that has been awarded."""
        return self._projection.trades.winner(exclusive_group)

    def bids(self, at: datetime) -> dict[str, Any]:
        """Return what is offered and what is owed at ``at`` as plain JSON values."""
        return bids_view(self.offers.values(), self.obligations_at(at), at)

    @property
    def released(self) -> bool:
        """The operator has released the plant and not resumed."""
        return self._projection.released

    def note_signal(self, issuer: str, seq: int, jws_digest: str) -> None:
        """Remember a regulation signal; signals are not on disk."""
        self._signals[issuer] = seq
        self._signals_signed[jws_digest] = None
        while len(self._signals_signed) > SIGNALS_KEPT:
            self._signals_signed.popitem(last=False)

    def command(self, issuer: str, command_id: str) -> Stored | None:
        """Return the accepted command of that issuer with that id."""
        found = self._projection.command(issuer, command_id)
        if found is None or found.verdict != "accepted":
            return None
        # A release is over at once, and yet its issuer may rightly send it again until he has the receipt.
        live = self._projection.is_live(found) or (issuer, command_id) in self._releases
        return Stored(found.digest, live, self._receipts.get((issuer, command_id), ()))

    def rejection(self, digest: str) -> Stored | None:
        """Return the authenticated command with exactly this payload that was rejected lately."""
        return self._rejections.get(digest)

    def has_signed(self, jws_digest: str) -> bool:
        """Say whether a command with this signed data was ever accepted."""
        found = self._projection.command_signed(jws_digest)
        return found is not None and found.verdict == "accepted"

    def has_signal(self, jws_digest: str) -> bool:
        """Say whether a regulation signal with this signed data was taken lately."""
        return jws_digest in self._signals_signed

    def has_order(self, order_id: str) -> bool:
        """Say whether an order with this id was ever accepted, from whomever."""
        return order_id in self._ids

    def last_seq(self, issuer: str, sequence: str) -> int | None:
        """Return the highest accepted sequence number of the issuer."""
        return self._projection.last_seq(issuer) if sequence == COMMANDS else self._signals.get(issuer)

    def _note(self, recorded: Recorded) -> None:
        body, kind = recorded.event.body, recorded.event.kind
        if kind == "command_received":
            self._note_command(body)
        elif kind == "order_state":
            self._note_state(body)

    def _note_command(self, body: Mapping[str, Any]) -> None:
        receipts = tuple(
            Outbound(r["topic"], r["payload"].encode(), r.get("qos", 1)) for r in body.get("receipts") or ()
        )
        if body["verdict"] == "accepted":
            self._receipts[body["issuer"], body["command_id"]] = receipts
            self._ids.update(order["order_id"] for order in body["orders"])
            if body.get("award"):
                self._ids.add(body["award"]["award_id"])
            if {order["kind"] for order in body["orders"]} == {OrderKind.RELEASE}:
                self._releases.add((body["issuer"], body["command_id"]))
        elif body.get("authenticated"):
            self._rejections[body["digest"]] = Stored(body["digest"], live=False, receipts=receipts)
            while len(self._rejections) > REJECTIONS_KEPT:
                self._rejections.popitem(last=False)

    def _note_state(self, body: Mapping[str, Any]) -> None:
        phase = Phase(body["state"])
        if phase in (Phase.COMPLETED, Phase.ABORTED):
            self._progress.pop(body["order_id"], None)
            return
        since = datetime.fromisoformat(body["since"])
        self._progress[body["order_id"]] = Progress(phase, since, body["start_w"], body["baseline_w"])
