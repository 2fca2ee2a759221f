"""A dispatcher that shares no code with the daemon: plain paho, ``cryptography``, and the AsyncAPI files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.grid.dispatcher import Key, event, watts
from tests.grid.schemas import check
from vppd.model import Outbound

PATIENCE_S = 15.0
TERMINAL = ("accepted", "rejected")
_COMMANDS = re.compile(r"grid/v1/isv/.*|vpp/v1/[^/]+/issuer/[^/]+/(order/set|regulation|bid/award)")
_BUS = "BMS/v1/"


def now(seconds: float = 0.0) -> str:
    """Return a wire time that many seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Sent:
    """A command as it went out."""

    topic: str
    payload: bytes
    event: Mapping[str, Any] = field(default_factory=dict)
    order_id: str = ""

    @property
    def digest(self) -> str:
        """Return what a receipt knows it by."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def correlation(self) -> str:
        """Return its correlation id."""
        return str(self.event["correlationid"])


@dataclass(frozen=True, slots=True)
class Said:
    """A message that the daemon published; ``type`` and ``data`` are empty where it is no event."""

    topic: str
    payload: bytes
    retained: bool
    mono_s: float
    type: str
    correlation: str
    data: Mapping[str, Any]

    @classmethod
    def read(cls, message: paho.MQTTMessage) -> Said:
        """Return the message with its data unpacked, its signature not yet looked at."""
        content: dict[str, Any] = json.loads(message.payload) if message.payload[:1] == b"{" else {}
        parts = str(content.get("data", "")).split(".")
        data = json.loads(_bytes(parts[1])) if len(parts) == 3 else {}
        kind, correlation = content.get("type", ""), content.get("correlationid", "")
        return cls(message.topic, bytes(message.payload), message.retain, time.monotonic(), kind, correlation, data)


class Dispatcher:
    """A plain paho client and a key; it hears everything on the broker and keeps it."""

    def __init__(self, demo: Mapping[str, Any], protocol: str) -> None:
        self.vpp, self.agent, issuer = demo["vpp_id"], demo["agent_id"], demo["issuer"]
        self.issuer, self.key = issuer["id"], Key(issuer["kid"])
        found = serialization.load_pem_private_key(Path(issuer["private_key"]).read_bytes(), None)
        assert isinstance(found, ec.EllipticCurvePrivateKey)
        self.key.private = found
        self.said: list[Said] = []
        self._seq = int(time.time())
        self._news, self._ready = threading.Condition(), threading.Event()
        version = MQTTProtocolVersion.MQTTv5 if protocol == "5" else MQTTProtocolVersion.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _userdata, message: self._hear(message)
        host, _, port = demo["broker"].rpartition(":")
        self._broker = (host, int(port))

    def __enter__(self) -> Self:
        self._client.connect(*self._broker)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None

    def _hear(self, message: paho.MQTTMessage) -> None:
        if _COMMANDS.fullmatch(message.topic) or message.topic.startswith(_BUS):
            return
        with self._news:
            self.said.append(Said.read(message))
            self._news.notify_all()

    @property
    def target_topic(self) -> str:
        """Return where load targets go."""
        return f"grid/v1/isv/{self.issuer}/loadtarget/set"

    @property
    def order_topic(self) -> str:
        """Return where orders go."""
        return f"vpp/v1/{self.vpp}/issuer/{self.issuer}/order/set"

    def order_data(self, kind: str, resource: str, power_w: float | None, span_s: float = 600.0) -> dict[str, Any]:
        """Return the data of an order from now on, with the next seq."""
        self._seq += 1
        data = {
            "order_id": str(uuid.uuid4()),
            "seq": self._seq,
            "expires_at": now(60.0),
            "resource": resource,
            "kind": kind,
            "interval": {"start_time": now(), "end_time": now(span_s)},
        }
        return data if power_w is None else {**data, "power": watts(round(power_w, 1))}

    def envelope(self, kind: str, data: Any, **changes: Any) -> dict[str, Any]:
        """Return ``data`` (or a token that is given as text) in an envelope of now."""
        token = data if isinstance(data, str) else self.key.jws(data)
        return event(kind, token, **{"source": f"//grid/v1/isv/{self.issuer}", "time": now(), **changes})

    def load_target(self, limits_w: Mapping[str, float | None]) -> Sent:
        """Set the most import of each feed; None lifts it. [W]"""
        targets = [
            {"interval": {}, "feed_tags": [tag], "load_constraint": None if w is None else watts(round(w, 1))}
            for tag, w in limits_w.items()
        ]
        return self.send(self.target_topic, self.envelope("grid.loadtarget.set.v1", {"targets": targets}))

    def order(self, kind: str, resource: str, power_w: float | None = None, **changes: Any) -> Sent:
        """Give an order. [W]"""
        data = {**self.order_data(kind, resource, power_w), **changes}
        return self.send(self.order_topic, self.envelope("vpp.order.set.v1", data))

    def signal(self, level_frac: float, **more: Any) -> Sent:
        """Send a regulation signal, by default with nothing in it but the level. [-1, 1]"""
        topic = f"vpp/v1/{self.vpp}/issuer/{self.issuer}/regulation"
        return self.send(topic, self.envelope("vpp.regulation.v1", {"signal": level_frac, **more}), qos=0)

    def send(self, topic: str, content: Mapping[str, Any] | bytes, *, qos: int = 1, retain: bool = False) -> Sent:
        """Publish an event, or raw bytes."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        known = {} if isinstance(content, bytes) else content
        self._client.publish(topic, raw, qos, retain).wait_for_publish(PATIENCE_S)
        data = _payload(known)
        return Sent(topic, raw, known, data.get("order_id", ""))

    def again(self, sent: Sent) -> Sent:
        """Publish the same bytes again."""
        return self.send(sent.topic, sent.payload)

    def wait(self, what: str, test: Callable[[Said], bool], since: int = 0, within_s: float = PATIENCE_S) -> Said:
        """Return the first message from number ``since`` on that passes."""
        deadline_s = time.monotonic() + within_s
        with self._news:
            while True:
                for said in self.said[since:]:
                    if test(said):
                        return said
                since = len(self.said)
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"{what} did not come within {within_s:g} s"
                self._news.wait(left_s)

    def receipts(self, sent: Sent, since: int = 0) -> list[Mapping[str, Any]]:
        """Return the receipts of a command, waiting for the last one."""
        mine = f"vpp/v1/{self.vpp}/issuer/{self.issuer}/receipt"

        def is_ours(said: Said) -> bool:
            return said.topic == mine and said.data.get("command_digest") == sent.digest

        self.wait(
            f"the receipt for {sent.payload[:300]!r}", lambda s: is_ours(s) and s.data["status"] in TERMINAL, since
        )
        return [said.data for said in self.said[since:] if is_ours(said)]

    def accepted(self, sent: Sent) -> Sent:
        """Return the command after it has been received and accepted."""
        found = self.receipts(sent)
        assert [receipt["status"] for receipt in found] == ["received", "accepted"], found
        return sent

    def status(self, sent: Sent, phase: str, within_s: float = PATIENCE_S) -> Mapping[str, Any]:
        """Return the order status in which a command's order has reached ``phase``."""

        def is_there(said: Said) -> bool:
            ours = said.data.get("order_id") == sent.order_id
            return said.type == "vpp.order.status.v1" and ours and said.data["status"] == phase

        return self.wait(f"{phase} of {sent.order_id}", is_there, within_s=within_s).data


ADDRESSES = {
    "grid.powerstate.status.v1": "grid/v1/dsx-flex-agent/{agent_id}/powerstate/status",
    "grid.powerbreach.alert.v1": "grid/v1/dsx-flex-agent/{agent_id}/powerbreach",
    "vpp.receipt.v1": "vpp/v1/{vpp_id}/issuer/{issuer[id]}/receipt",
    "vpp.order.status.v1": "vpp/v1/{vpp_id}/order/status",
    "vpp.flexibility.v1": "vpp/v1/{vpp_id}/flexibility",
    "vpp.telemetry.v1": "vpp/v1/{vpp_id}/telemetry",
    "vpp.statement.v1": "vpp/v1/{vpp_id}/statement",
    "vpp.bid.offer.v1": "vpp/v1/{vpp_id}/bid/offer",
}


def validate(said: Said, demo: Mapping[str, Any]) -> None:
    """Fail unless a message is what the AsyncAPI files allow on its topic, signed with the published key."""
    if said.topic == f"vpp/v1/{demo['vpp_id']}/availability":
        assert said.payload in (b"online", b"offline")
        return
    check(Outbound(said.topic, said.payload))
    assert said.topic == ADDRESSES[said.type].format(**demo)
    verify(json.loads(said.payload)["data"], json.loads(Path(demo["agent_keys"]).read_text(encoding="utf-8")))


def verify(token: str, jwks: Mapping[str, Any]) -> None:
    """Fail unless the token is signed ES256 by a key of the set."""
    head, body, signature = token.split(".")
    header = json.loads(_bytes(head))
    (jwk,) = [k for k in jwks["keys"] if k["kid"] == header["kid"]]
    assert header["alg"] == jwk["alg"] == "ES256"
    x, y = (int.from_bytes(_bytes(jwk[name]), "big") for name in ("x", "y"))
    raw = _bytes(signature)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    try:
        public.verify(encode_dss_signature(r, s), f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise AssertionError(f"a signature of {header['kid']} does not hold") from None


def _bytes(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _payload(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the signed data of an event of ours, empty when it is none."""
    parts = str(content.get("data", "")).split(".")
    with suppress(ValueError):
        found = json.loads(_bytes(parts[1])) if len(parts) == 3 else {}
        return found if isinstance(found, dict) else {}
    return {}
