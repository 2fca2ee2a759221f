"""The broker settings we ship, with TLS and the agents' access list: every node speaks and hears for itself alone."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.agent.rig import Node
from tests.agent.stub import Stub
from tests.deploy.test_mosquitto import DEPLOY, Authority, Broker
from tests.support import free_port, require

pytestmark = pytest.mark.integration
NODE, SITE, STRANGER = "node-1", "dc1", "node-2"


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Broker]:
    """Mosquitto with our settings and both of our lists in one file, as it wants them."""
    program, port = require("mosquitto", "the broker settings are tried on it"), free_port()
    authority = Authority(tmp_path)
    for name in ("ca", "broker", NODE, SITE, STRANGER):
        authority.issue(name, ca=name == "ca")
        (tmp_path / f"{name}.key").chmod(0o600)
    lists = [(DEPLOY / name).read_text(encoding="utf-8") for name in ("vppd.acl", "agents.acl")]
    (tmp_path / "vppd.acl").write_text("\n".join(lists), encoding="utf-8")
    (tmp_path / "vppd.acl").chmod(0o600)
    text = (DEPLOY / "vppd.conf").read_text(encoding="utf-8")
    for there in ("/etc/mosquitto/certs/", "/etc/mosquitto/", "/var/lib/mosquitto/"):
        text = text.replace(there, f"{tmp_path}/")
    text = text.replace("listener 8883", f"listener {port} 127.0.0.1") + "user root\n"
    (tmp_path / "mosquitto.conf").write_text(text, encoding="utf-8")
    with subprocess.Popen(
        [program, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            log = []
            for line in process.stderr:
                log.append(line)
                if line.rstrip().endswith("running"):
                    break
            assert process.poll() is None, log
            yield Broker(port, tmp_path)
        finally:
            process.terminate()


def client(broker: Broker, name: str) -> mqtt.Client:
    """Return a client with NAME's certificate, not connected."""
    context = ssl.create_default_context(cafile=str(broker.certificates / "ca.crt"))
    context.load_cert_chain(broker.certificates / f"{name}.crt", broker.certificates / f"{name}.key")
    found = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    found.tls_set_context(context)
    return found


def broker_table(broker: Broker, name: str) -> str:
    """Return ``[broker]`` with NAME's certificate."""
    folder = broker.certificates
    files = f'ca_file = "{folder}/ca.crt"\ncert_file = "{folder}/{name}.crt"\nkey_file = "{folder}/{name}.key"\n'
    return f'host = "127.0.0.1"\nport = {broker.port}\n{files}backoff_most_s = 1.0\n'


def test_an_agent_serves_over_tls_and_only_its_site_may_order(tmp_path: Path, gpus: Stub, secure: Broker) -> None:
    """With its certificate the agent follows the site; another node can neither order nor speak nor listen there."""
    with Node(tmp_path, gpus, secure.port, NODE, client(secure, SITE)) as node:
        node.broker = broker_table(secure, NODE)
        node.start()
        assert node.orders.order(node_cap_w=4000.0)["state"] == "held"
        stranger = secure.client(STRANGER)
        try:
            stranger.subscribe(f"{node.orders.prefix}/#")
            for topic in ("cap/set", "cap/status", "telemetry", "availability"):
                assert not stranger.publish(f"{node.orders.prefix}/{topic}")
            assert stranger.publish(f"vpp/agent/v1/{SITE}/{STRANGER}/telemetry")
            assert node.orders.order(node_cap_w=4000.0)["state"] == "held"
            assert stranger.heard == []
        finally:
            stranger.close()
        assert gpus.limits_w == [500.0] * 8


def test_a_refused_agent_says_so(tmp_path: Path, gpus: Stub, secure: Broker) -> None:
    """An agent whose name is not that of its certificate cannot speak for its node: it says why and tries again."""
    with Node(tmp_path, gpus, secure.port, NODE, client(secure, SITE)) as node:
        node.broker = broker_table(secure, STRANGER)
        with pytest.raises(AssertionError, match="online"):
            node.start(within_s=3.0)
        assert "agent_link_lost" in node.log
        assert node.usage.is_running()
