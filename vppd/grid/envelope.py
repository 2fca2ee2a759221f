"""CloudEvents 1.0.2 in structured JSON, as DSX Flex has them: the envelope is not signed, its ``data`` is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from vppd.grid.fields import Fields, stamp, uuid4
from vppd.grid.ids import Ids
from vppd.grid.reasons import Defect, Reason
from vppd.grid.signing import Signer
from vppd.grid.strict_json import Json, dump
from vppd.model import Outbound

SPEC_VERSION = "1.0.2"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SOURCE = re.compile(r"//grid/v1/(isv|dsx-flex-agent|infra)/([^/]+)")
_LONGEST_TOKEN = 16_384


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of one event."""

    id: str
    role: str
    """isv, dsx-flex-agent or infra."""
    identifier: str
    """Who says it is the sender."""
    type: str
    time: datetime
    subject: str
    traceparent: str
    correlationid: str
    """Empty when the sender gave none."""
    data: str
    """JWS compact serialization."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a message of ours is about: the trace and correlation it carries on."""

    correlation_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """Builds signed messages of one agent."""

    vpp_id: str
    agent_id: str
    signer: Signer
    ids: Ids

    @property
    def source(self) -> str:
        """Return the CloudEvents source of our messages."""
        return f"//grid/v1/dsx-flex-agent/{self.agent_id}"

    def message(self, kind: Kind, data: dict[str, Json], at: datetime, context: Context | None = None) -> Outbound:
        """Return ``data`` signed, in an envelope dated ``at``, ready to publish."""
        context = context or Context()
        event: dict[str, Json] = {
            "specversion": SPEC_VERSION,
            "id": self.ids.uuid(),
            "source": self.source,
            "type": kind.type,
            "time": stamp(at),
            "datacontenttype": "application/json",
            "subject": kind.subject,
            "traceparent": next_traceparent(context.traceparent, self.ids),
        }
        if context.correlation_id:
            event["correlationid"] = context.correlation_id
        event["data"] = self.signer.sign(dump(data))
        return Outbound(kind.topic, dump(event), qos=kind.qos, retain=kind.retain)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of message of ours: where it goes and how."""

    type: str
    topic: str
    subject: str
    qos: int = 1
    retain: bool = False


def next_traceparent(traceparent: str, ids: Ids) -> str:
    """Return the W3C trace context with ourselves as parent: the same trace when there is one, else a new one."""
    if not _TRACEPARENT.fullmatch(traceparent):
        return f"00-{ids.hexes(32)}-{ids.hexes(16)}-01"
    _, trace, _, flags = traceparent.split("-")
    return f"00-{trace}-{ids.hexes(16)}-{flags}"


def read_id(event: dict[str, Json]) -> str:
    """Return the event's id, empty when it has no proper one."""
    value = event.get("id")
    try:
        return uuid4(value, "id") if isinstance(value, str) else ""
    except Defect:
        return ""


def read_envelope(event: dict[str, Json]) -> Envelope:
    """Return the attributes of an event; extension attributes are ignored. Raises Defect."""
    fields = Fields(event)
    fields.word("specversion", (SPEC_VERSION,))
    fields.word("datacontenttype", ("application/json",))
    source = _SOURCE.fullmatch(fields.text("source"))
    traceparent = fields.text("traceparent")
    if source is None or not _TRACEPARENT.fullmatch(traceparent):
        name = "source" if source is None else "traceparent"
        raise Defect(Reason.MALFORMED, f"{name} does not have the form that DSX Flex asks for")
    return Envelope(
        id=fields.uuid("id"),
        role=source[1],
        identifier=source[2],
        type=fields.text("type"),
        time=fields.time("time"),
        subject=fields.text("subject"),
        traceparent=traceparent,
        correlationid=fields.maybe(fields.uuid, "correlationid") or "",
        data=_token(event, fields),
    )


def _token(event: dict[str, Json], fields: Fields) -> str:
    if isinstance(event.get("data"), dict):
        raise Defect(Reason.BAD_SIGNATURE, "data is not signed")
    return fields.text("data", _LONGEST_TOKEN)
