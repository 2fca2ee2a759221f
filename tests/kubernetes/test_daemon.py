"""The whole daemon with a real API server and a real broker: an order takes replicas and pauses jobs, through kill -9, and all comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.grid.dispatcher import Key
from tests.integration.slurm_room import Daemon, Dispatcher, Meter
from tests.kubernetes.room import APPS, BATCH, GPU_W, Room
from tests.servers.kubernetes import until
from tests.servers.mosquitto import Mosquitto
from tests.support import free_port
from vppd.demo.tomlwriter import Value, dump

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
BASE_W, ALL = 2_000.0, 6


class Witness:
    """A meter's eye: it sees the pods that run, not what the adapter says of them."""

    def __init__(self, room: Room) -> None:
        self.power_w = BASE_W
        self._room = room

    def look(self) -> None:
        """Look again; while the API server is away it keeps what it saw."""
        pods = self._room.server.call("GET", self._room.path("/api/v1", "pods"))
        if pods.is_success:
            running = sum(pod["status"]["phase"] == "Running" for pod in pods.json()["items"])
            self.power_w = BASE_W + GPU_W * running


@pytest.fixture
def daemon_and_dispatcher(
    room: Room, mosquitto: Mosquitto, tmp_path: Path
) -> Iterator[tuple[Daemon, Dispatcher, Witness]]:
    """A site whose only load is the cluster."""
    room.deployment("chat", 3, 4)
    room.job("train", 3, 2)
    key, witness = Key("tso-1"), Witness(room)
    with ExitStack() as stack:
        meter = stack.enter_context(Meter(witness))
        config, http = write_config(tmp_path, room, mosquitto, meter.port, key)
        dispatcher = stack.enter_context(Dispatcher(mosquitto, key))
        yield stack.enter_context(Daemon(config, http)), dispatcher, witness


def test_an_order_is_kept_through_kill_9_and_everything_comes_back(
    room: Room, daemon_and_dispatcher: tuple[Daemon, Dispatcher, Witness]
) -> None:
    """The meter falls below the limit, stays there over a kill -9, and is as before after the release; nothing is held any more."""
    daemon, dispatcher, witness = daemon_and_dispatcher
    chat, train = room.path(APPS, "deployments", "chat"), room.path(BATCH, "jobs", "train")
    target_w = BASE_W + 3.3 * GPU_W
    all_w = BASE_W + ALL * GPU_W
    until(lambda: abs(daemon.state()["power_w"] - all_w) < 60.0, "the meter is read", 30.0, daemon.state)
    dispatcher.limit(target_w, 600.0)
    until(lambda: witness.power_w <= target_w, "the meter is below the limit", 30.0, lambda: witness.power_w)
    assert room.running("chat") >= 1
    daemon.kill()
    daemon.start()
    until(lambda: daemon.asset()["setpoint_w"] is not None, "the cluster follows again", 30.0, daemon.state)
    assert witness.power_w <= target_w, daemon.log()
    found = {path: note["was"] for path in (chat, train) if (note := room.note(path))}
    assert found.items() <= {chat: {"/spec/replicas": 4}, train: {"/spec/parallelism": 2}}.items()
    assert found
    dispatcher.release()
    until(
        lambda: (room.running("chat"), room.running("train")) == (4, 2),
        "all work runs",
        60.0,
        lambda: (room.running("chat"), room.running("train"), daemon.state(), daemon.log()[-2000:]),
    )
    assert [room.note(path) for path in (chat, train)] == [None, None]


def write_config(folder: Path, room: Room, broker: Mosquitto, meter: int, issuer: Key) -> tuple[Path, str]:
    """Write ``vppd.toml`` with its keys; return its path and where the API will listen."""
    agent, http = Key("agent-1"), f"127.0.0.1:{free_port()}"
    (folder / "agent.pem").write_bytes(agent.private_pem())
    (folder / "agent.pem").chmod(0o600)
    (folder / "tso.pem").write_bytes(issuer.public_pem())
    limits: dict[str, Value] = {"import_max_w": 20_000.0, "export_max_w": 0.0}
    quick: dict[str, Value] = {"tend_s": 1.0, "stagger_s": 0.1}
    cluster: dict[str, Value] = {
        "kubeconfig": str(room.server.kubeconfig()),
        "namespaces": [room.name],
        "node_selector": "nobody=has-it",
        **quick,
    }
    own: dict[str, Value] = {
        "feed": "main-a",
        "rated_w": ALL * GPU_W,
        "connection": cluster,
        "curtail": {"restore_s": 5.0},
    }
    site: dict[str, Value] = {
        "id": "dc1",
        "agent_id": "dc1-agent",
        "state_dir": str(folder / "state"),
        "socket": str(folder / "vppd.sock"),
        "require_synchronised_clock": False,
        "ramp_down_w_per_s": 2_000.0,
        "ramp_up_w_per_s": 2_000.0,
        **limits,
    }
    broker_table: dict[str, Value] = {"host": broker.host, "port": broker.port, "insecure_lab": True}
    grant: dict[str, Value] = {"resource": "*", "kinds": ["limit", "release"], "max_power_w": 20_000.0}
    keys: dict[str, Value] = {"kid": issuer.kid, "alg": "ES256", "public_key_file": "tso.pem"}
    document: dict[str, Value] = {
        "site": site,
        "feeds": [{"tag": "main-a", "meter": "meter-a", **limits}],
        "assets": [
            {
                "id": "meter-a",
                "kind": "meter",
                "adapter": "modbus-sunspec",
                "feed": "main-a",
                "connection": {"host": "127.0.0.1", "port": meter},
            },
            {"id": "hall", "kind": "cluster", "adapter": "kubernetes", **own},
        ],
        "grid": {
            "broker": broker_table,
            "signing": {"kid": agent.kid, "alg": "ES256", "key_file": "agent.pem"},
            "issuers": [{"id": "tso", "keys": [keys], "grants": [grant]}],
        },
        "http": {"listen": http},
    }
    path = folder / "vppd.toml"
    path.write_text(dump(document), encoding="utf-8")
    return path, http
