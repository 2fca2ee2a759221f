"""A market and a power plant with a wire between them, on a clock that is moved by hand."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from tests.grid.schemas import check
from tests.market.plant import AGENT, ISSUER, NOW, VPP, Keys, Plant
from vppd.grid.ids import SeededIds
from vppd.grid.issuer import Issuer
from vppd.grid.signing import KeyRing, PinnedKey
from vppd.market.link import Clerk
from vppd.market.market import Market
from vppd.market.rivals import Crowd
from vppd.market.rounds import Deal, Demand, Rules
from vppd.model import Outbound
from vppd.runtime.clock import FakeClock

GATE = NOW + timedelta(minutes=30)
START = NOW + timedelta(hours=1)
PRODUCT_END = NOW + timedelta(hours=1, minutes=15)


class Rig:
    """The wire carries a message when told to; regulation signals, which nobody answers, are noted."""

    def __init__(self, keys: Keys, need: str = "60 %", **more: Any) -> None:
        self.clock, self.plant, self.out = FakeClock(NOW), Plant(keys), list[tuple[str, bytes]]()
        self.levels: list[float] = []
        pem = keys.agent.public.read_bytes()
        ring = KeyRing([PinnedKey.from_pem(AGENT, "agent-1", "ES256", pem)])
        issuer = Issuer(ISSUER, keys.market.signer(), self.clock.now, SeededIds(more.pop("ids", 1)))
        clerk = Clerk(issuer, {VPP: (AGENT, ring)})
        rules = more.pop("rules", None) or Rules(ISSUER, Demand.read(need), crowd=more.pop("crowd", Crowd()))
        self.market = Market(rules, clerk, self, self.clock.mono_s, **more)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Take what the market sends."""
        if qos == 0:
            assert json.loads(payload)["type"] == "vpp.regulation.v1"
            self.levels.append(check(Outbound(topic, payload, 0))["signal"])
        else:
            self.out.append((topic, payload))

    def say(self, *messages: Outbound) -> None:
        """Let the plant say something."""
        for message in messages:
            self.market.hear(message.topic, message.payload)

    def at(self, at: datetime, *, carry: bool = True) -> None:
        """Let the clock come to a time; what the market sends then is answered, until it is silent."""
        self.clock.advance((at - self.clock.now()).total_seconds())
        self.market.tick()
        while carry and self.out:
            self.say(*self.plant.answer(*self.out.pop(0), self.clock.now()))
            self.market.tick()

    @property
    def deal(self) -> Deal:
        """Return the only award."""
        (deal,) = self.market.memory.deals.values()
        return deal
