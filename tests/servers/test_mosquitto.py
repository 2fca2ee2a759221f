"""The broker fixture itself."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.servers.mosquitto import Mosquitto


def _accepts(broker: Mosquitto) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((broker.host, broker.port)) == 0


def test_a_killed_broker_comes_back_on_its_port(mosquitto: Mosquitto) -> None:
    """A broker ended by kill -9 is gone, and start brings it back on the same port."""
    assert _accepts(mosquitto)
    mosquitto.kill()
    assert not _accepts(mosquitto)
    mosquitto.start()
    assert _accepts(mosquitto)


def test_settings_reach_the_broker(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    """ACL, users and persistence make a configuration that Mosquitto starts with."""
    broker = mosquitto_factory(acl="topic readwrite #\n", users={"plant": "secret"}, persistence=True)
    assert _accepts(broker)
    broker.restart(kill=True)
    assert _accepts(broker)
