"""A dispatcher that shares no code with vppd: envelopes and signatures are made by hand with ``cryptography``."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from vppd.model import Inbound

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
LOAD_TARGET_TOPIC = "grid/v1/isv/tso/loadtarget/set"
ORDER_TOPIC = "vpp/v1/dc1/issuer/tso/order/set"
REGULATION_TOPIC = "vpp/v1/dc1/issuer/tso/regulation"
AWARD_TOPIC = "vpp/v1/dc1/issuer/tso/bid/award"
ENFORCEMENT_TOPIC = "grid/v1/infra/tso/powerbreach/enforcement"


def b64(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def when(seconds: float = 0.0) -> str:
    """Return a wire time that many seconds after NOW."""
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def watts(value: float, unit: str = "watt") -> dict[str, Any]:
    """Return a PowerUnit."""
    return {"value": value, "unit": unit}


@dataclass
class Key:
    """A key pair of a dispatcher."""

    kid: str
    alg: str = "ES256"
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.private = (
            ec.generate_private_key(ec.SECP256R1()) if self.alg == "ES256" else rsa.generate_private_key(65537, 2048)
        )

    def public_pem(self) -> bytes:
        """Return the public key."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def private_pem(self) -> bytes:
        """Return the private key."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def signature(self, text: bytes) -> bytes:
        """Return the raw JWS signature of ``text``."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(text, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self.private.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def jws(self, data: Any, **header: Any) -> str:
        """Return ``data`` (JSON value or bytes) as JWS compact serialization."""
        head = {"alg": self.alg, "kid": self.kid, **header}
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        text = f"{b64(json.dumps(head).encode())}.{b64(raw)}"
        return f"{text}.{b64(self.signature(text.encode()))}"


def event(kind: str, jws: Any, **changes: Any) -> dict[str, Any]:
    """Return an envelope; a change to None leaves the attribute out."""
    attributes = {
        "specversion": "1.0.2",
        "id": str(uuid.uuid4()),
        "source": "//grid/v1/isv/tso",
        "type": kind,
        "time": when(),
        "datacontenttype": "application/json",
        "subject": "loadtarget",
        "traceparent": TRACE,
        "correlationid": str(uuid.uuid4()),
        "data": jws,
        **changes,
    }
    return {k: v for k, v in attributes.items() if v is not None}


def inbound(topic: str, content: dict[str, Any] | bytes, *, retained: bool = False, qos: int = 1) -> Inbound:
    """Return the message as the broker would hand it over."""
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Inbound(topic, payload, qos, retained)


def targets(*entries: dict[str, Any]) -> dict[str, Any]:
    """Return load target data; without entries one of 400 kW on all feeds, until replaced."""
    return {"targets": list(entries) or [{"interval": {}, "load_constraint": watts(400, "kilowatt")}]}


def order_data(**changes: Any) -> dict[str, Any]:
    """Return vpp/v1 order data; a change to None leaves the key out."""
    data = {
        "order_id": str(uuid.uuid4()),
        "seq": 1,
        "expires_at": when(300),
        "resource": "main-a",
        "kind": "limit",
        "power": watts(400, "kilowatt"),
        "interval": {"start_time": when(), "end_time": when(3600)},
        **changes,
    }
    return {k: v for k, v in data.items() if v is not None}


def signal_data(**changes: Any) -> dict[str, Any]:
    """Return regulation data."""
    return {"seq": 1, "sent_at": when(), "signal": 0.25, **changes}


def award_data(**changes: Any) -> dict[str, Any]:
    """Return award data."""
    return {
        "award_id": str(uuid.uuid4()),
        "bid_id": str(uuid.uuid4()),
        "seq": 1,
        "expires_at": when(300),
        "resource": "dc1",
        "product": "afrr-up",
        "direction": "up",
        "power": watts(1, "megawatt"),
        "interval": {"start_time": when(600), "end_time": when(4200)},
        "price": {"amount": "12.50", "currency": "EUR"},
        **changes,
    }


def enforcement_data(**changes: Any) -> dict[str, Any]:
    """Return an enforcement report."""
    result = {"resource_id": "n1", "resource_type": "node", "requested_action": "power_cap", "code": "applied"}
    return {
        "breach_id": str(uuid.uuid4()),
        "feed_tag": "main-a",
        "action": "applied",
        "code": "partial",
        "results": [{**result, "applied_power": watts(300)}],
        "timestamp": when(),
        **changes,
    }
