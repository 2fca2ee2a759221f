"""The broker settings we ship: no certificate, no entry; nobody speaks on another's topics."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.support import ROOT, free_port, require

pytestmark = pytest.mark.integration
DEPLOY = ROOT / "deploy" / "mosquitto"
WAIT_S = 10.0


@dataclass
class Authority:
    """A certificate authority of the test's own, with everybody's certificates in ``folder``."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def issue(self, name: str, *, ca: bool = False) -> None:
        """Write NAME.crt and NAME.key."""
        key = self.key if ca else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.crt").write_bytes(cert.public_bytes(Encoding.PEM))
        (self.folder / f"{name}.key").write_bytes(pem)


@dataclass
class Broker:
    """A running broker under the settings we ship."""

    port: int
    certificates: Path

    def client(self, name: str | None, client_id: str = "") -> Client:
        """Return a client with NAME's certificate, or with none."""
        return Client(self, name, client_id)


class Client:
    """A connected MQTT 5 client that keeps what it hears and what the broker says to its words."""

    def __init__(self, broker: Broker, name: str | None, client_id: str) -> None:
        self.heard: list[str] = []
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        context = ssl.create_default_context(cafile=str(broker.certificates / "ca.crt"))
        if name:
            context.load_cert_chain(broker.certificates / f"{name}.crt", broker.certificates / f"{name}.key")
        self._mqtt.tls_set_context(context)
        self._connected, self._subscribed = threading.Event(), threading.Event()
        self._arrived, self._answered = threading.Event(), threading.Event()
        self._reasons: list[ReasonCode] = []
        self._mqtt.on_connect = lambda _c, _d, _f, reason, _p: None if reason.is_failure else self._connected.set()
        self._mqtt.on_subscribe = lambda _c, _d, _m, _r, _p: self._subscribed.set()
        self._mqtt.on_message = lambda _c, _d, message: self._hear(message.topic)
        self._mqtt.on_publish = lambda _c, _d, _m, reason, _p: self._answer(reason)
        self._mqtt.connect("127.0.0.1", broker.port)
        self._mqtt.loop_start()
        if not self._connected.wait(WAIT_S if name else 2.0):
            self.close()
            raise ConnectionRefusedError("the broker does not let us in")

    def subscribe(self, topic: str) -> None:
        """Subscribe and wait for the broker's answer."""
        self._subscribed.clear()
        self._mqtt.subscribe(topic, 1)
        assert self._subscribed.wait(WAIT_S)

    def publish(self, topic: str) -> bool:
        """Publish at QoS 1 and return whether the broker let it through."""
        self._answered.clear()
        self._mqtt.publish(topic, b"x", 1)
        assert self._answered.wait(WAIT_S)
        return not self._reasons[-1].is_failure

    def wait_for(self, count: int) -> None:
        """Wait until that many messages have come."""
        while len(self.heard) < count:
            self._arrived.clear()
            assert len(self.heard) >= count or self._arrived.wait(WAIT_S)

    def close(self) -> None:
        """Hang up."""
        self._mqtt.disconnect()
        self._mqtt.loop_stop()
        self._mqtt.on_connect = self._mqtt.on_subscribe = self._mqtt.on_message = self._mqtt.on_publish = None

    def _hear(self, topic: str) -> None:
        self.heard.append(topic)
        self._arrived.set()

    def _answer(self, reason: ReasonCode) -> None:
        self._reasons.append(reason)
        self._answered.set()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Mosquitto with our settings, paths and port apart."""
    program = require("mosquitto", "the broker settings are tried on it")
    folder = tmp_path_factory.mktemp("broker")
    authority = Authority(folder)
    for name in ("ca", "broker", "dc1", "tso", "other"):
        authority.issue(name, ca=name == "ca")
    port = free_port()
    text = (DEPLOY / "vppd.conf").read_text(encoding="utf-8")
    text = text.replace("/etc/mosquitto/certs/", f"{folder}/").replace("/etc/mosquitto/", f"{DEPLOY}/")
    text = text.replace("/var/lib/mosquitto/", f"{folder}/").replace("listener 8883", f"listener {port} 127.0.0.1")
    (folder / "mosquitto.conf").write_text(text + "user root\n", encoding="utf-8")
    process = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line)
            if line.rstrip().endswith("running"):
                break
        assert process.poll() is None, log
        yield Broker(port, folder)
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)


def test_no_certificate_no_entry(broker: Broker) -> None:
    """A client without a certificate does not get in."""
    with pytest.raises((ConnectionRefusedError, ConnectionResetError, ssl.SSLError)):
        broker.client(None)


def test_a_dispatcher_speaks_on_its_own_topics_only(broker: Broker) -> None:
    """The site hears the dispatcher whose name is in the topic, and nobody else there."""
    site, tso, other = broker.client("dc1"), broker.client("tso"), broker.client("other")
    try:
        site.subscribe("grid/v1/isv/+/loadtarget/set")
        site.subscribe("vpp/v1/dc1/issuer/+/order/set")
        assert tso.publish("grid/v1/isv/tso/loadtarget/set")
        assert tso.publish("vpp/v1/dc1/issuer/tso/order/set")
        assert not other.publish("grid/v1/isv/tso/loadtarget/set")
        assert not other.publish("vpp/v1/dc1/issuer/tso/order/set")
        assert not tso.publish("vpp/v1/dc1/issuer/tso/receipt")
        site.wait_for(2)
        assert site.heard == ["grid/v1/isv/tso/loadtarget/set", "vpp/v1/dc1/issuer/tso/order/set"]
    finally:
        for client in (site, tso, other):
            client.close()


def test_a_receipt_reaches_its_issuer_alone(broker: Broker) -> None:
    """Receipts are for the issuer they are for; status is for everybody."""
    site, tso, other = broker.client("dc1"), broker.client("tso"), broker.client("other")
    try:
        for client in (tso, other):
            client.subscribe("vpp/v1/dc1/issuer/tso/receipt")
            client.subscribe("vpp/v1/dc1/order/status")
        assert site.publish("vpp/v1/dc1/issuer/tso/receipt")
        assert site.publish("vpp/v1/dc1/order/status")
        tso.wait_for(2)
        other.wait_for(1)
        assert other.heard == ["vpp/v1/dc1/order/status"]
    finally:
        for client in (site, tso, other):
            client.close()


def test_the_list_covers_what_the_agent_uses() -> None:
    """Every topic filter the daemon subscribes to is granted to the site."""
    from vppd.grid.routes import subscriptions
    from vppd.grid.site import Site

    granted = (DEPLOY / "vppd.acl").read_text(encoding="utf-8")
    for wanted in subscriptions(Site("dc1", "dc1-agent", ("main-a",))):
        assert f"topic read {wanted.filter}\n" in granted
