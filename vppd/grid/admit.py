"""Admission: one pure judgement on every message that comes in from the dispatcher's broker."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from vppd.grid import awards, dsx_flex, vpp_v1
from vppd.grid.envelope import Envelope, read_envelope, read_id
from vppd.grid.fields import stamp
from vppd.grid.reasons import Defect, Reason
from vppd.grid.routes import Route, route
from vppd.grid.site import Grant, Registry, authorise
from vppd.grid.strict_json import Json, parse_object
from vppd.grid.verdict import (
    COMMANDS,
    SIGNALS,
    About,
    Accepted,
    Conditions,
    Duplicate,
    Rejected,
    Seen,
    Verdict,
)
from vppd.model import Inbound, OrderKind


def admit(
    message: Inbound, at: datetime, registry: Registry, seen: Seen, conditions: Conditions | None = None
) -> Verdict:
    """Return what to do with ``message`` at the time ``at``; it raises nothing, whatever the message holds."""
    case = _Case(message, at, registry, seen, conditions or Conditions())
    try:
        return case.judge()
    except Defect as defect:
        return Rejected(case.about, defect.reason, defect.sentence)


class _Case:
    """One message being judged; ``about`` grows with what has been established."""

    def __init__(self, message: Inbound, at: datetime, registry: Registry, seen: Seen, conditions: Conditions) -> None:
        self._message, self._at, self._registry, self._seen = message, at, registry, seen
        self._conditions, self._rules = conditions, registry.rules
        self.about = About(topic=message.topic, digest=hashlib.sha256(message.payload).hexdigest())

    def judge(self) -> Verdict:
        """Return the verdict. Raises Defect for the first thing found wrong."""
        way = self._address()
        if self._message.retained:
            with suppress(Defect):
                self._open(way)
            raise Defect(Reason.RETAINED, "a retained message is history, not a command")
        envelope = self._open(way)
        data = self._authenticate(envelope)
        if known := self._known(way):
            return known
        self._check_sent(envelope, way)
        verdict = self._read(data, envelope, way)
        if verdict.is_command:
            self._check_conditions(verdict)
        return verdict

    def _address(self) -> Route:
        way = route(self._message.topic, self._registry.site)
        if way.issuer not in self._registry.grants:
            raise Defect(Reason.UNKNOWN_ISSUER, f"issuer {way.issuer[:64]!r} is not known here")
        self.about = replace(self.about, protocol=way.protocol, type=way.type, issuer=way.issuer)
        return way

    def _open(self, way: Route) -> Envelope:
        most = self._rules.max_payload_bytes
        if len(self._message.payload) > most:
            raise Defect(Reason.TOO_LARGE, f"the message is larger than {most} bytes")
        event = parse_object(self._message.payload, self._rules.max_depth)
        self.about = replace(self.about, command_id=read_id(event))
        envelope = read_envelope(event)
        self.about = replace(
            self.about, correlation_id=envelope.correlationid or envelope.id, traceparent=envelope.traceparent
        )
        if envelope.type != way.type:
            raise Defect(Reason.UNKNOWN_TYPE, f"{envelope.type[:64]!r} is not {way.type}, which this topic is for")
        if envelope.role not in way.roles or envelope.identifier != way.issuer:
            said = f"{envelope.role}/{envelope.identifier}"
            raise Defect(Reason.ISSUER_MISMATCH, f"the source says {said[:64]!r}, the topic {way.issuer!r}")
        return envelope

    def _authenticate(self, envelope: Envelope) -> dict[str, Json]:
        verified = self._registry.keys.verify(envelope.data, envelope.identifier)
        self.about = replace(self.about, authenticated=True, jws_digest=verified.digest)
        return parse_object(verified.payload, self._rules.max_depth)

    def _known(self, way: Route) -> Verdict | None:
        """Return a verdict when the very same message was judged before; raise Defect when it is a bent copy."""
        if way.type == vpp_v1.REGULATION:
            return None
        about = self.about
        if stored := self._seen.command(about.issuer, about.command_id):
            if stored.digest != about.digest:
                raise Defect(Reason.REPLAY, "another message with this id has been accepted")
            if not stored.live:
                raise Defect(Reason.REPLAY, "this command has been carried out or replaced")
            return Duplicate(about, stored.receipts)
        if stored := self._seen.rejection(about.digest):
            return Duplicate(about, stored.receipts)
        if self._seen.has_signed(about.jws_digest):
            raise Defect(Reason.REPLAY, "the same signed data has been accepted under another id")
        return None

    def _check_sent(self, envelope: Envelope, way: Route) -> None:
        age_s = (self._at - envelope.time).total_seconds()
        if age_s < -self._rules.future_s:
            raise Defect(Reason.NOT_YET_VALID, f"it was sent at {stamp(envelope.time)}, which is in the future")
        if way.protocol == "dsx_flex" and age_s > self._rules.max_age_s:
            raise Defect(Reason.EXPIRED, f"it was sent at {stamp(envelope.time)}, {age_s:.0f} s ago")

    def _read(self, data: dict[str, Json], envelope: Envelope, way: Route) -> Accepted:
        match way.type:
            case dsx_flex.LOAD_TARGET:
                return self._load_target(data, envelope)
            case dsx_flex.ENFORCEMENT:
                return Accepted(self.about, enforcement=dsx_flex.read_enforcement(data, envelope))
            case vpp_v1.ORDER:
                return self._order(data, envelope)
            case vpp_v1.REGULATION:
                return self._regulation(data, envelope)
            case _:
                return self._award(data, envelope)

    def _load_target(self, data: dict[str, Json], envelope: Envelope) -> Accepted:
        orders = dsx_flex.read_load_target(data, envelope, self._registry.site.feeds, self._at)
        for order in orders:
            authorise(order, self._grants)
        return Accepted(self.about, orders=orders)

    def _order(self, data: dict[str, Json], envelope: Envelope) -> Accepted:
        order = vpp_v1.read_order(data, envelope, self._registry.site, self._at)
        self._check_new(order.order_id, order.seq or 0, order.expires_at)
        authorise(order, self._grants)
        return Accepted(self.about, orders=(order,), seq=order.seq)

    def _regulation(self, data: dict[str, Json], envelope: Envelope) -> Accepted:
        signal = vpp_v1.read_regulation(data, envelope, self._registry.site)
        oldest = self._at - timedelta(seconds=self._rules.max_signal_age_s + self._rules.skew_s)
        if signal.sent_at < oldest:
            raise Defect(Reason.EXPIRED, f"the signal was sent at {stamp(signal.sent_at)}")
        if signal.sent_at - self._at > timedelta(seconds=self._rules.future_s):
            raise Defect(Reason.NOT_YET_VALID, f"the signal was sent at {stamp(signal.sent_at)}, in the future")
        if not signal.is_dated and self._seen.has_signal(self.about.jws_digest):
            raise Defect(Reason.REPLAY, "the same signed signal has been taken before")
        self._check_seq(signal.seq, SIGNALS)
        if not any(OrderKind.REGULATION in grant.kinds for grant in self._grants):
            raise Defect(Reason.UNAUTHORISED, f"issuer {signal.issuer!r} has no grant for regulation")
        return Accepted(self.about, regulation=signal, seq=signal.seq)

    def _award(self, data: dict[str, Json], envelope: Envelope) -> Accepted:
        award = vpp_v1.read_award(data, envelope, self._registry.site, self._at)
        self._check_new(award.award_id, award.seq, award.expires_at)
        if not self._rules.awards_from:
            raise Defect(Reason.NOT_ENABLED, "awards are not enabled at this site")
        if award.issuer != self._rules.awards_from:
            raise Defect(Reason.UNAUTHORISED, f"issuer {award.issuer!r} is not the market that is sold to here")
        offered = self._seen.offered(award.bid_id)
        group = offered.bid.exclusive_group if offered else ""
        found = awards.match(award, offered, self._seen.winner(group) if group else None, self._at)
        orders = awards.orders_of(found, award, envelope, self._at)
        return Accepted(self.about, orders=orders, award=award, obligation=found, seq=award.seq)

    def _check_new(self, order_id: str, seq: int, expires_at: datetime | None) -> None:
        self.about = replace(self.about, order_id=order_id)
        if expires_at is not None and self._at - expires_at > timedelta(seconds=self._rules.skew_s):
            raise Defect(Reason.EXPIRED, f"it expired at {stamp(expires_at)}")
        if self._seen.has_order(order_id):
            raise Defect(Reason.REPLAY, f"the id {order_id} has been used before")
        self._check_seq(seq, COMMANDS)

    def _check_seq(self, seq: int, sequence: str) -> None:
        last = self._seen.last_seq(self.about.issuer, sequence)
        if last is not None and seq <= last:
            raise Defect(Reason.SEQUENCE, f"seq {seq} does not follow {last}, the last one accepted")

    def _check_conditions(self, verdict: Accepted) -> None:
        if verdict.orders and all(order.kind is OrderKind.RELEASE for order in verdict.orders):
            return  # giving power back is never held up
        if not self._conditions.clock_ok:
            raise Defect(Reason.CLOCK_UNSYNCHRONISED, "our clock is not synchronised, so no times can be judged")
        if self._conditions.hold:
            raise Defect(Reason.HOLD, f"no new orders are taken now: {self._conditions.hold}")

    @property
    def _grants(self) -> tuple[Grant, ...]:
        return self._registry.grants[self.about.issuer]
