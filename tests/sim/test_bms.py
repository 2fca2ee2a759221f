"""The building bus over real brokers: what it publishes, and that it is DSX BMS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import jsonschema
import pytest
import yaml

from tests.servers.mosquitto import Mosquitto
from tests.sim.hands import HandClock
from vppd.sim.bms import HEARTBEAT_S, REPEAT_S, Broker, BuildingBus, building_bus
from vppd.sim.faults import Fault
from vppd.sim.site import Site

VALUE, METADATA = "BMS/v1/PUB/Value/", "BMS/v1/PUB/Metadata/"
TAILS = {
    "System/HeartbeatTimestampBms/bms": "SystemHeartbeatTimestampBmsMetadata",
    "PowerMeter/ActivePower/cooling-a": "PowerMeterActivePowerMetadata",
    "PowerMeter/ActivePower/cooling-b": "PowerMeterActivePowerMetadata",
    "Rack/RackPower/racks-a": "RackPowerMetadata",
    "Rack/RackPower/racks-b": "RackPowerMetadata",
}


class Heard:
    """What a plain subscriber has heard."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def next(self, count: int) -> list[tuple[str, Any, bool]]:
        """Return topic, body and retain flag of the next messages."""
        found = []
        async with asyncio.timeout(10.0):
            async for message in self._client.messages:
                assert isinstance(message.payload, bytes)
                found.append((str(message.topic), json.loads(message.payload), message.retain))
                if len(found) == count:
                    break
        return found


@asynccontextmanager
async def listening(broker: Broker, topic: str) -> AsyncIterator[Heard]:
    """Subscribe with an ordinary client."""
    async with aiomqtt.Client(broker.host, broker.port) as client:
        await client.subscribe(topic)
        yield Heard(client)


@pytest.fixture
def clock() -> HandClock:
    """The site's clock."""
    return HandClock()


@pytest.fixture
def site(clock: HandClock) -> Site:
    """A site that nobody steps."""
    return Site(1, clock, lambda: 1_800_000_000.0 + clock())


@asynccontextmanager
async def connected(site: Site, broker: Broker) -> AsyncIterator[BuildingBus]:
    """Run the building bus until it has introduced itself."""
    async with building_bus(site, broker) as bus:
        task = asyncio.create_task(bus.run())
        yield bus
        task.cancel()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_it_introduces_itself(mosquitto: Mosquitto, site: Site, protocol: str) -> None:
    """On connection every point's metadata and value come, in either protocol version."""
    broker = Broker(mosquitto.host, mosquitto.port, protocol)
    async with listening(broker, "BMS/#") as heard, connected(site, broker):
        messages = await heard.next(2 * len(TAILS))
    assert {topic for topic, _, _ in messages} == {head + tail for head in (VALUE, METADATA) for tail in TAILS}
    values = {topic.removeprefix(VALUE): body for topic, body, _ in messages if topic.startswith(VALUE)}
    assert values["PowerMeter/ActivePower/cooling-a"] == {
        "value": pytest.approx(site.state.feeds["main-a"].cooling_w / 1000.0, abs=0.001),
        "timestamp": 1_800_000_100_000,
        "quality": 1,
    }
    assert values["Rack/RackPower/racks-b"]["value"] == pytest.approx(200.0)


async def test_metadata_is_retained_and_values_are_not(mosquitto: Mosquitto, site: Site) -> None:
    """Who comes late finds the metadata and no old value."""
    broker = Broker(mosquitto.host, mosquitto.port)
    async with listening(broker, "BMS/#") as early, connected(site, broker):
        await early.next(2 * len(TAILS))
        async with listening(broker, "BMS/#") as late:
            messages = await late.next(len(TAILS))
    assert {topic for topic, _, retained in messages if retained} == {METADATA + tail for tail in TAILS}


async def test_metadata_is_as_the_specification_has_it(
    mosquitto: Mosquitto, site: Site, shared: Callable[..., Path]
) -> None:
    """Each metadata and value message validates against the DSX BMS schema."""
    spec = yaml.safe_load(shared("specs", "dsx-bms.yaml").read_text())
    broker = Broker(mosquitto.host, mosquitto.port)
    async with listening(broker, "BMS/#") as heard, connected(site, broker):
        messages = await heard.next(2 * len(TAILS))
    value = spec["components"]["messages"]["ValueMessage"]["payload"] | {"components": spec["components"]}
    for topic, body, _ in messages:
        if topic.startswith(VALUE):
            jsonschema.Draft202012Validator(value).validate(body)
        else:
            name = TAILS[topic.removeprefix(METADATA)]
            schema = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
            jsonschema.Draft202012Validator(schema).validate(body)


async def test_values_come_on_change_and_all_of_them_from_time_to_time(
    mosquitto: Mosquitto, site: Site, clock: HandClock
) -> None:
    """An unchanged site is silent but for the heartbeat; after 100 s everything comes again."""
    broker = Broker(mosquitto.host, mosquitto.port)
    async with building_bus(site, broker) as bus, listening(broker, VALUE + "#") as heard:
        async with listening(broker, "$SYS/broker/clients/connected") as there:
            await there.next(1)
        bus.publish()
        first = await heard.next(len(TAILS))
        clock.now_s += HEARTBEAT_S
        bus.publish()
        (beat,) = await heard.next(1)
        for _ in range(50):
            site.step()
        bus.publish()
        changed = await heard.next(2)
        clock.now_s += REPEAT_S
        bus.publish()
        again = await heard.next(len(TAILS))
    assert beat[0] == VALUE + "System/HeartbeatTimestampBms/bms"
    assert {topic for topic, _, _ in changed} == {VALUE + "Rack/RackPower/racks-a", VALUE + "Rack/RackPower/racks-b"}
    assert {topic for topic, _, _ in first} == {topic for topic, _, _ in again} == {VALUE + tail for tail in TAILS}


async def test_a_silent_bus_says_nothing(mosquitto: Mosquitto, site: Site) -> None:
    """While its fault lasts the building bus does not even beat; after it everything goes on."""
    broker = Broker(mosquitto.host, mosquitto.port)
    site.outages["bms"].begin(Fault.SILENT, 60.0)
    async with listening(broker, "BMS/#") as heard, connected(site, broker):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await heard.next(1)
        site.outages["bms"].begin(Fault.NONE, 0.0)
        assert len(await heard.next(2 * len(TAILS))) == 10


async def test_it_comes_back_with_the_broker(mosquitto: Mosquitto, site: Site) -> None:
    """After the broker has died and restarted, the bus introduces itself again."""
    broker = Broker(mosquitto.host, mosquitto.port)
    async with connected(site, broker):
        async with listening(broker, METADATA + "#") as heard:
            await heard.next(len(TAILS))
        await asyncio.to_thread(mosquitto.kill)
        await asyncio.to_thread(mosquitto.start)
        async with listening(broker, METADATA + "#") as heard:
            assert len(await heard.next(len(TAILS))) == len(TAILS)
