"""The dispatch link over mutual TLS, with the certificate as the name in the ACL."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.grid.certificates import Authority
from tests.grid.plant import judge
from tests.grid.test_admit import load_target
from tests.grid.wire import Dispatcher, running, settings, take
from tests.servers.mosquitto import Mosquitto
from vppd.errors import ConfigError
from vppd.grid.broker import BrokerSettings
from vppd.grid.verdict import Accepted

pytestmark = pytest.mark.integration
ACL = """pattern write grid/v1/isv/%u/loadtarget/set
user vppd
topic read grid/v1/isv/+/loadtarget/set
topic readwrite vpp/v1/dc1/#
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority of this test."""
    return Authority(tmp_path)


@pytest.fixture
def broker(authority: Authority, mosquitto_factory: Callable[..., Mosquitto]) -> Mosquitto:
    """A broker that asks everybody for a certificate."""
    server = authority.issue("broker")
    lines = [
        f"cafile {authority.file}",
        f"certfile {server.cert}",
        f"keyfile {server.key}",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.2",
    ]
    return mosquitto_factory(acl=ACL, settings="\n".join(lines))


def context(authority: Authority, name: str) -> ssl.SSLContext:
    """Return the TLS context of a client of that name."""
    pair, found = authority.issue(name), ssl.create_default_context(cafile=str(authority.file))
    found.load_cert_chain(str(pair.cert), str(pair.key))
    return found


async def test_only_the_owner_of_a_topic_is_heard(authority: Authority, broker: Mosquitto) -> None:
    """An order by tso's certificate arrives; one that agg puts on tso's topic does not."""
    mine = authority.issue("vppd")
    how = settings(broker, ca_file=authority.file, cert_file=mine.cert, key_file=mine.key)
    async with running(how) as link:
        with Dispatcher(broker).secure(context(authority, "agg")) as agg:
            await agg.send(load_target())
        with Dispatcher(broker).secure(context(authority, "tso")) as tso:
            sent = load_target()
            await tso.send(sent)
        (message,) = await take(link)
        assert message.payload == sent.payload
        assert isinstance(judge(message), Accepted)
        assert len(link.inbox) == 0


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.parametrize("fault", ["no certificate", "another authority"])
async def test_without_trust_on_both_sides_there_is_no_link(
    authority: Authority, broker: Mosquitto, tmp_path: Path, fault: str
) -> None:
    """The broker wants our certificate, and we want its authority.

    When a handshake fails, paho leaves the closing of the socket to the garbage collector; hence the filter.
    """
    mine = authority.issue("vppd")
    (tmp_path / "other").mkdir()
    how = (
        settings(broker, ca_file=authority.file, ack_timeout_s=0.5)
        if fault == "no certificate"
        else settings(broker, ca_file=Authority(tmp_path / "other").file, cert_file=mine.cert, key_file=mine.key)
    )
    async with running(how, connected=False) as link:
        await asyncio.sleep(1.0)
        assert not link.connected
    gc.collect()


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    """A missing or empty file is found before anything connects."""
    with pytest.raises(ConfigError, match="certificates"):
        BrokerSettings("h", 8883, "x", ca_file=tmp_path / "none.pem")
