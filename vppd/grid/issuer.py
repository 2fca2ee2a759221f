"""An issuer's half of the conversation, for the demo and the local market: signs commands, believes only what a plant has signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from vppd.grid.envelope import SPEC_VERSION, next_traceparent, read_envelope
from vppd.grid.fields import stamp
from vppd.grid.ids import Ids, RandomIds
from vppd.grid.reasons import Defect, Reason
from vppd.grid.signing import KeyRing, Signer
from vppd.grid.strict_json import Json, dump, parse_object


@dataclass(frozen=True, slots=True)
class Command:
    """A command on the wire; sending it again means sending these bytes again."""

    id: str
    topic: str
    payload: bytes
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A message of a plant whose signature holds."""

    type: str
    correlation_id: str
    data: dict[str, Json]


@dataclass(slots=True)
class Issuer:
    """Whoever may order: its name in topics, its key, and its sequence numbers, which go on from run to run."""

    name: str
    signer: Signer
    now: Callable[[], datetime]
    ids: Ids = field(default_factory=RandomIds)
    seq: int = 0

    def next_seq(self) -> int:
        """Return a number higher than all before: they start at the time of day in milliseconds since 1970."""
        self.seq = max(self.seq + 1, int(self.now().timestamp() * 1000))
        return self.seq

    def topic(self, vpp: str, rest: str) -> str:
        """Return this issuer's topic at a plant."""
        return f"vpp/v1/{vpp}/issuer/{self.name}/{rest}"

    def command(self, type_: str, topic: str, subject: str, data: dict[str, Json]) -> Command:
        """Return the signed command in its envelope."""
        command_id, correlation_id = self.ids.uuid(), self.ids.uuid()
        event: dict[str, Json] = {
            "specversion": SPEC_VERSION,
            "id": command_id,
            "source": f"//grid/v1/isv/{self.name}",
            "type": type_,
            "time": stamp(self.now()),
            "datacontenttype": "application/json",
            "subject": subject,
            "traceparent": next_traceparent("", self.ids),
            "correlationid": correlation_id,
            "data": self.signer.sign(dump(data)),
        }
        return Command(command_id, topic, dump(event), correlation_id)

    def signal(self, vpp: str, level_frac: float) -> Command:
        """Return a regulation signal; nobody answers it, the next one follows. [-1, 1]"""
        data: dict[str, Json] = {
            "seq": self.next_seq(),
            "sent_at": stamp(self.now()),
            "audience": vpp,
            "signal": round(level_frac, 4),
        }
        return self.command("vpp.regulation.v1", self.topic(vpp, "regulation"), "regulation", data)


def believed(payload: bytes, agent: str, keys: KeyRing) -> Word:
    """Return what an agent said. Raises Defect for what is not its own signed word."""
    envelope = read_envelope(parse_object(payload))
    if envelope.identifier != agent:
        raise Defect(Reason.ISSUER_MISMATCH, f"{envelope.identifier[:64]!r} is not {agent!r}")
    return Word(envelope.type, envelope.correlationid, parse_object(keys.verify(envelope.data, agent).payload))
