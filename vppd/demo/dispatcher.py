"""A dispatcher of the kind the daemon serves: signs commands, sends them again until it holds a receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from vppd.errors import Refused, Unreachable
from vppd.grid.fields import stamp
from vppd.grid.issuer import Command, Issuer, Word, believed
from vppd.grid.issuer_line import Broker, Line, opened
from vppd.grid.reasons import Defect
from vppd.grid.receipts import RECEIPT
from vppd.grid.signing import KeyRing, Signer
from vppd.grid.strict_json import Json

RESEND_S = 3.0
"""Without a receipt a command is sent again after this long. [s]"""
GIVE_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class Parties:
    """Who orders, and of whom."""

    issuer: str
    vpp_id: str
    agent_id: str


@dataclass(slots=True)
class Dispatcher:
    """A connected dispatcher. Its methods belong to the event loop; paho's thread only hands messages over."""

    parties: Parties
    issuer: Issuer
    their_keys: KeyRing
    line: Line
    _receipts: dict[str, asyncio.Future[Word]] = field(default_factory=dict)

    def now(self) -> datetime:
        """Return the dispatcher's time."""
        return self.issuer.now()

    async def load_target(self, limits_w: Mapping[str, float | None], until: datetime) -> str:
        """Set the most import of each feed (None: no limit any more) and return the correlation id. [W] Raises Refused."""
        targets: list[Json] = [
            {
                "interval": {"end_time": stamp(until)},
                "feed_tags": [tag],
                "load_constraint": None if limit_w is None else {"value": round(limit_w, 1), "unit": "watt"},
                "strategy": {"best_effort": False},
            }
            for tag, limit_w in limits_w.items()
        ]
        topic = f"grid/v1/isv/{self.parties.issuer}/loadtarget/set"
        command = self.issuer.command("grid.loadtarget.set.v1", topic, "loadtarget", {"targets": targets})
        await self._until_receipt(command)
        return command.correlation_id

    async def order(
        self, kind: str, resource: str, power_w: float | None, until: datetime, ramp_s: float | None = None
    ) -> str:
        """Give one vpp/v1 order and return its id. [W] Raises Refused with the daemon's reason."""
        order_id = self.issuer.ids.uuid()
        data: dict[str, Json] = {
            "order_id": order_id,
            "seq": self.issuer.next_seq(),
            "expires_at": stamp(self.now() + timedelta(minutes=5)),
            "audience": self.parties.vpp_id,
            "resource": resource,
            "kind": kind,
            "interval": {"start_time": stamp(self.now()), "end_time": stamp(until)},
        }
        if power_w is not None:
            data["power"] = {"value": round(power_w, 1), "unit": "watt"}
        if ramp_s is not None:
            data["ramp_s"] = ramp_s
        command = self.issuer.command("vpp.order.set.v1", self._mine("order/set"), "order", data)
        await self._until_receipt(command)
        return order_id

    def signal(self, level_frac: float) -> None:
        """Send one regulation signal and forget it: the next one follows. [-1, 1]"""
        command = self.issuer.signal(self.parties.vpp_id, level_frac)
        self.line.publish(command.topic, command.payload, qos=0)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message from the broker; what is not the daemon's own word is not believed."""
        try:
            heard = believed(payload, self.parties.agent_id, self.their_keys)
        except Defect:
            return
        if heard.type == RECEIPT and topic == self._mine("receipt"):
            self._take_receipt(heard)

    def _take_receipt(self, heard: Word) -> None:
        waiting = self._receipts.get(str(heard.data.get("command_id")))
        if waiting and not waiting.done() and heard.data["status"] in ("accepted", "rejected"):
            waiting.set_result(heard)

    async def _until_receipt(self, command: Command) -> None:
        loop = asyncio.get_running_loop()
        self._receipts[command.id] = receipt = loop.create_future()
        try:
            for _ in range(int(GIVE_UP_S / RESEND_S)):
                self.line.publish(command.topic, command.payload)
                await asyncio.wait([receipt], timeout=RESEND_S)
                if receipt.done():
                    break
            else:
                raise Unreachable(f"no receipt for {command.topic} within {GIVE_UP_S:g} s")
        finally:
            del self._receipts[command.id]
        said = receipt.result().data
        if said["status"] == "rejected":
            raise Refused(f"{said.get('reason')}: {said.get('detail')}")

    def _mine(self, rest: str) -> str:
        return self.issuer.topic(self.parties.vpp_id, rest)


@asynccontextmanager
async def connected(
    broker: Broker, parties: Parties, signer: Signer, their_keys: KeyRing, now: Callable[[], datetime]
) -> AsyncIterator[Dispatcher]:
    """Hold a connected dispatcher that hears the daemon's receipts. Raises Unreachable."""
    issuer = Issuer(parties.issuer, signer, now)
    name = f"dispatcher-{parties.issuer}-{issuer.ids.hexes(8)}"
    line = Line(broker, name, [issuer.topic(parties.vpp_id, "receipt")])
    dispatcher = Dispatcher(parties, issuer, their_keys, line)
    async with opened(line, dispatcher.hear):
        yield dispatcher
