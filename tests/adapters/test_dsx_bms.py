"""A point of the building bus, through a real Mosquitto and, for the long silences, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import aiomqtt
import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from adapters._mqtt_news import Heard
from adapters.dsx_bms import ADAPTER, UNITS, BmsConfig, BmsPoint, connect
from tests.servers.mosquitto import Mosquitto
from tests.support import shared
from vppd.errors import Garbled, Unreachable
from vppd.model import Sample
from vppd.ports import Controllable, Streaming

TAIL = "PowerMeter/ActivePower/site1/cooling/a"
VALUE, METADATA = f"BMS/v1/PUB/Value/{TAIL}", f"BMS/v1/PUB/Metadata/{TAIL}"
BEAT = "BMS/v1/PUB/Value/System/HeartbeatTimestampBms/bms"
KW = {"objectType": "PowerMeter", "pointType": "ActivePower", "engUnit": "kW"}


def _value(value: object, quality: int = 1, timestamp: int = 1_782_900_000_000) -> str:
    return json.dumps({"value": value, "timestamp": timestamp, "quality": quality})


class Bms:
    """The system's end of the bus, and a reader of ours."""

    def __init__(self, client: aiomqtt.Client, samples: AsyncIterator[Sample]) -> None:
        self._client, self._samples = client, samples

    async def say(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish as a building management system does."""
        await self._client.publish(topic, payload, qos=1, retain=retain)

    async def sample(self) -> Sample:
        """Return the next Sample."""
        async with asyncio.timeout(5.0):
            return await anext(self._samples)


@asynccontextmanager
async def _bus(broker: Mosquitto, protocol: str = "5", **more: Any) -> AsyncIterator[Bms]:
    raw = {"host": broker.host, "port": broker.port, "protocol": protocol, "tag_path": "site1/cooling/a"} | more
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiomqtt.Client(broker.host, broker.port))
        await client.publish(METADATA, json.dumps(KW), qos=1, retain=True)
        point = await stack.enter_async_context(ADAPTER.connect(BmsConfig.model_validate(raw)))
        assert isinstance(point, Streaming)
        assert not isinstance(point, Controllable)
        samples = await stack.enter_async_context(aclosing(point.samples()))  # type: ignore[type-var]
        yield Bms(client, samples)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_value_becomes_watts_by_its_metadata(mosquitto: Mosquitto, protocol: str) -> None:
    """The unit comes from the stored metadata; a heartbeat repeats the value as a fresh one."""
    async with _bus(mosquitto, protocol) as bms:
        assert (await bms.sample()).power_w is None
        await bms.say(VALUE, _value(123.5))
        assert await bms.sample() == Sample(power_w=123_500.0)
        await bms.say(BEAT, _value(1_782_900_010_000))
        assert await bms.sample() == Sample(power_w=123_500.0)


async def test_changed_metadata_changes_the_meaning(mosquitto: Mosquitto) -> None:
    """The newest metadata counts, also for a value that was there before."""
    async with _bus(mosquitto, positive="export") as bms:
        await bms.sample()
        await bms.say(VALUE, _value(2))
        assert (await bms.sample()).power_w == -2_000.0
        await bms.say(METADATA, json.dumps(KW | {"engUnit": "MW"}), retain=True)
        assert (await bms.sample()).power_w == -2e6


@pytest.mark.parametrize("message", [_value(None), _value(5.0, quality=0), _value(5.0, quality=2), _value(None, 0)])
async def test_null_and_bad_quality_are_missing_at_once(mosquitto: Mosquitto, message: str) -> None:
    """Missing is None, never 0 and never the value before."""
    async with _bus(mosquitto) as bms:
        await bms.sample()
        await bms.say(VALUE, _value(7))
        assert (await bms.sample()).power_w == 7_000.0
        await bms.say(VALUE, message)
        assert (await bms.sample()).power_w is None


async def test_a_stored_value_is_history(mosquitto: Mosquitto) -> None:
    """A retained value is not taken for a measurement of now."""
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as earlier:
        await earlier.publish(VALUE, _value(9_999), qos=1, retain=True)
    async with _bus(mosquitto) as bms:
        assert (await bms.sample()).power_w is None
        await bms.say(BEAT, _value(1))
        assert (await bms.sample()).power_w is None


@pytest.mark.parametrize("metadata", [KW | {"engUnit": "hp"}, KW | {"engUnit": "mW"}, {"stateText": "on"}, [1]])
async def test_an_unknown_unit_is_garbled(mosquitto: Mosquitto, metadata: object) -> None:
    """Nobody guesses a unit: the point is refused with what the metadata said."""
    async with _bus(mosquitto) as bms:
        await bms.sample()
        await bms.say(METADATA, json.dumps(metadata))
        with pytest.raises(Garbled, match="Metadata"):
            await bms.sample()


async def test_one_bad_message_is_dropped_many_are_an_alarm(mosquitto: Mosquitto) -> None:
    """A single senseless message changes nothing; three in a row end the stream with Garbled."""
    bad = ["nonsense", '{"value": NaN, "quality": 1}', '{"value": "7", "quality": 1}']
    async with _bus(mosquitto) as bms:
        await bms.sample()
        for message in bad[:2]:
            await bms.say(VALUE, message)
        await bms.say(VALUE, _value(7))
        assert (await bms.sample()).power_w == 7_000.0
        for message in bad:
            await bms.say(VALUE, message)
        with pytest.raises(Garbled, match="Value"):
            await bms.sample()


async def test_a_lost_broker_is_unreachable(mosquitto: Mosquitto) -> None:
    """After kill -9 of the broker the stream ends with Unreachable."""
    async with _bus(mosquitto) as bms:
        await bms.sample()
        mosquitto.kill()
        with pytest.raises(Unreachable):
            await bms.sample()
        mosquitto.start()


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_every_known_unit_is_a_power(unit: str) -> None:
    """W, kW and MW in the spellings that are met."""
    assert UNITS[unit] == {"w": 1.0, "k": 1e3, "m": 1e6}[unit[0].lower()]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"tag_path": "a/#"}, {"tag_path": "/"}, {"tag_path": "a", "tag": "b"}, {"tag_path": "a", "max_age_s": 0}],
)
def test_a_wrong_key_is_found_before_anything_starts(wrong: dict[str, object]) -> None:
    """Missing, unknown and senseless keys are refused."""
    with pytest.raises(ValidationError):
        BmsConfig.model_validate({"host": "h"} | wrong)


def _point(**more: Any) -> BmsPoint:
    return BmsPoint(BmsConfig.model_validate({"host": "bms", "tag_path": "site1/cooling/a"} | more))


def _tell(point: BmsPoint, topic: str, payload: str) -> None:
    point.hear(Heard(topic, payload.encode(), retained=False, mono_s=asyncio.get_running_loop().time()))


@pytest.mark.looptime
async def test_a_dead_heartbeat_makes_everything_stale() -> None:
    """30 s after the last heartbeat the system is Unreachable, however fresh the value."""
    point, loop = _point(), asyncio.get_running_loop()
    samples, start_s = point.samples(), loop.time()

    async def bms() -> None:
        for n in range(5):
            _tell(point, BEAT, _value(n))
            await asyncio.sleep(10.0)
        while True:
            _tell(point, BEAT, _value(4))
            _tell(point, VALUE, _value(1))
            await asyncio.sleep(1.0)

    async def read() -> None:
        async for _ in samples:
            pass

    task = asyncio.create_task(bms())
    with pytest.raises(Unreachable, match="heartbeat"):
        await read()
    task.cancel()
    assert loop.time() - start_s == pytest.approx(70.0), "the last heartbeat that moved was at 40 s"


@pytest.mark.looptime
async def test_a_silent_point_is_missing_while_its_system_lives() -> None:
    """250 s after its last value a point is missing; heartbeats go on and so does the stream."""
    point, loop, seen = _point(), asyncio.get_running_loop(), dict[float, float | None]()
    _tell(point, METADATA, json.dumps(KW))
    _tell(point, VALUE, _value(3))

    async def bms() -> None:
        for n in range(40):
            _tell(point, BEAT, _value(n))
            await asyncio.sleep(10.0)

    async with asyncio.TaskGroup() as group, aclosing(point.samples()) as samples:  # type: ignore[type-var]
        group.create_task(bms())
        async for sample in samples:
            seen[loop.time()] = sample.power_w
            if len(seen) == 35:
                break
    assert [power_w for at_s, power_w in seen.items() if at_s < 249.0] == [3_000.0] * 25
    assert [power_w for at_s, power_w in seen.items() if at_s > 251.0] == [None] * 9


def _schemas() -> dict[str, Any]:
    loaded = yaml.safe_load(shared("specs", "dsx-bms.yaml").read_text(encoding="utf-8"))
    return {"components": loaded["components"]}


def test_the_messages_of_these_tests_are_those_of_the_specification() -> None:
    """What the tests publish validates against the published schema of the bus."""
    root = _schemas()
    validate = jsonschema.Draft202012Validator
    metadata = KW | {"objectName": "Cooling A", "objectId": "cooling-a", "servesId": ["racks-a"]}
    reference = {"$ref": "#/components/schemas/PowerMeterActivePowerMetadata"}
    validate(root | reference).validate(metadata)
    payload = root["components"]["messages"]["ValueMessage"]["payload"]
    for message in (_value(123.5), _value(None, 0)):
        validate(root | payload).validate(json.loads(message))


async def test_a_broker_that_is_not_there_is_unreachable(mosquitto: Mosquitto) -> None:
    """Connecting says so at once."""
    mosquitto.stop()
    with pytest.raises(Unreachable):
        async with connect(BmsConfig(host=mosquitto.host, port=mosquitto.port, tag_path="a")):
            pass
