"""A JSON device behind a real Mosquitto: what it says, and what it is told."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiomqtt
import pytest

from adapters._json_profile import JsonConfig
from adapters.mqtt_json import ADAPTER, ControlledJsonDevice
from tests.servers.mosquitto import Mosquitto
from vppd.errors import Garbled, Refused, Unreachable
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Controllable, Streaming

AT = datetime(2026, 7, 1, 12, tzinfo=UTC)
"""The gateway's clock is its own: nobody here asks what time it is."""
Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


def _applied(command: dict[str, Any]) -> dict[str, Any]:
    return {"id": command["id"], "state": "applied", "p_set_w": command["p_set_w"]}


class Gateway:
    """The far end: publishes states, takes commands and answers them; beside it a reader of our samples."""

    def __init__(self, client: aiomqtt.Client, device: ControlledJsonDevice, samples: AsyncIterator[Sample]) -> None:
        self.client, self.device, self._samples = client, device, samples
        self.commands: list[dict[str, Any]] = []
        self.answer: Answer = _applied
        self._seq = 0

    async def say(self, topic: str = "bess/state", *, retain: bool = False, **fields: Any) -> None:
        """Publish a message, by default a good state with the next sequence number."""
        self._seq += 1
        state = {"ts": AT.isoformat(), "seq": self._seq, "q": "good", "p_w": 1_000.0, "soc_frac": 0.8}
        body = fields if topic != "bess/state" else state | fields
        await self.client.publish(topic, json.dumps(body), qos=1, retain=retain)

    async def sample(self) -> Sample:
        """Return the next Sample."""
        async with asyncio.timeout(5.0):
            return await anext(self._samples)

    async def spoken(self, **fields: Any) -> Sample:
        """Publish a state and return the Sample it makes."""
        await self.say(**fields)
        return await self.sample()

    async def serve(self) -> None:
        """Take commands for ever."""
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            assert not message.retain
            self.commands.append(json.loads(message.payload))
            answer = self.answer(self.commands[-1])
            if answer is not None:
                await self.client.publish("bess/cmd/ack", json.dumps(answer), qos=1, timeout=math.inf)


def _raw(broker: Mosquitto, **more: Any) -> dict[str, Any]:
    return {"host": broker.host, "port": broker.port, "profile": "json-battery", "base": "bess"} | more


@asynccontextmanager
async def _gateway(broker: Mosquitto, **more: Any) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiomqtt.Client(broker.host, broker.port))
        await client.subscribe("bess/cmd", qos=1)
        device = await stack.enter_async_context(ADAPTER.connect(JsonConfig.model_validate(_raw(broker, **more))))
        assert isinstance(device, ControlledJsonDevice)
        assert isinstance(device, Streaming)
        assert isinstance(device, Controllable)
        samples = await stack.enter_async_context(aclosing(device.samples()))  # type: ignore[type-var]
        gateway = Gateway(client, device, samples)
        task = asyncio.create_task(gateway.serve())
        try:
            yield gateway
        finally:
            task.cancel()
            await asyncio.wait({task})


def _setpoint(power_w: float, valid_for_s: float = 30.0) -> Setpoint:
    return Setpoint("bess", power_w, valid_for_s)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_state_becomes_a_sample(mosquitto: Mosquitto, protocol: str) -> None:
    """Power and charge arrive in W and as a fraction."""
    async with _gateway(mosquitto, protocol=protocol) as gateway:
        assert await gateway.spoken(p_w=-2_500) == Sample(power_w=-2_500.0, soc_frac=0.8)


async def test_a_stored_state_is_history(mosquitto: Mosquitto) -> None:
    """A retained state makes no Sample and tells no time; the next live one does."""
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as earlier:
        state = {"ts": AT.isoformat(), "seq": 900, "q": "good", "p_w": 9_999.0, "soc_frac": 0.9}
        await earlier.publish("bess/state", json.dumps(state), qos=1, retain=True)
    async with _gateway(mosquitto) as gateway:
        with pytest.raises(Unreachable, match="not spoken"):
            await gateway.device.apply(_setpoint(0.0))
        assert await gateway.spoken(p_w=1.0) == Sample(power_w=1.0, soc_frac=0.8)


async def test_repeated_and_overtaken_messages_are_dropped(mosquitto: Mosquitto) -> None:
    """Only a higher sequence number is news; a much lower one is a device that began anew."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken(seq=100, p_w=1.0)
        for seq in (100, 99, 70):
            await gateway.say(seq=seq, p_w=2.0)
        assert (await gateway.spoken(seq=101, p_w=3.0)).power_w == 3.0
        assert (await gateway.spoken(seq=1, p_w=4.0)).power_w == 4.0


@pytest.mark.parametrize("fields", [{"q": "stale"}, {"q": None}, {"p_w": None, "soc_frac": None}])
async def test_bad_quality_and_null_are_missing(mosquitto: Mosquitto, fields: dict[str, Any]) -> None:
    """Missing is None at once, not the value before."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        assert await gateway.spoken(**fields) == Sample()


async def test_one_bad_message_is_dropped_many_are_an_alarm(mosquitto: Mosquitto) -> None:
    """A senseless value is not believed; three in a row end the stream with Garbled."""
    async with _gateway(mosquitto) as gateway:
        await gateway.say(soc_frac=1.5)
        await gateway.say(p_w="much")
        assert (await gateway.spoken(p_w=5.0)).power_w == 5.0
        for fields in ({"soc_frac": -0.1}, {"p_w": True}, {"ts": "noon"}):
            await gateway.say(**fields)
        with pytest.raises(Garbled, match="bess/state"):
            await gateway.sample()


@pytest.mark.parametrize("retain", [True, False])
async def test_a_device_that_signs_off_is_unreachable(mosquitto: Mosquitto, retain: bool) -> None:
    """Its last will ends the stream; unlike a state, a stored one counts."""
    async with _gateway(mosquitto) as gateway:
        await gateway.say("bess/status", state="online")
        await gateway.spoken()
        await gateway.say("bess/status", retain=retain, state="offline")
        with pytest.raises(Unreachable, match="offline"):
            await gateway.sample()


async def test_a_setpoint_is_sent_with_its_lease_and_answered(mosquitto: Mosquitto) -> None:
    """The command has id, ts, exp, seq and hold_s; the answer tells what the device follows."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        assert await gateway.device.apply(_setpoint(-20e3, 12.0)) == Applied(-20e3, "applied")
        (command,) = gateway.commands
        assert command.keys() == {"id", "ts", "exp", "seq", "p_set_w", "hold_s", "ramp_w_per_s"}
        assert (command["p_set_w"], command["hold_s"], command["ramp_w_per_s"]) == (-20e3, 12.0, 5_000.0)
        told_at, expires_at = (datetime.fromisoformat(command[key]) for key in ("ts", "exp"))
        assert timedelta(0) <= told_at - AT < timedelta(seconds=5), "in the device's own time"
        assert expires_at - told_at == timedelta(seconds=5)


async def test_applying_twice_is_like_once_but_newer(mosquitto: Mosquitto) -> None:
    """A renewal says the same under a new id and a higher number, also after reconnecting."""
    numbers = list[int]()
    for _ in range(2):
        async with _gateway(mosquitto) as gateway:
            await gateway.spoken(ts=(AT + timedelta(seconds=len(numbers))).isoformat())
            for power_w in (5e3, 5.05e3):
                await gateway.device.apply(_setpoint(power_w))
            assert [command["p_set_w"] for command in gateway.commands] == [5e3, 5e3], "within the dead band"
            numbers += [command["seq"] for command in gateway.commands]
    assert numbers == sorted(set(numbers))


async def test_the_device_tells_what_it_really_follows(mosquitto: Mosquitto) -> None:
    """Limits are kept here, and what the device makes of it is what is reported."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        gateway.answer = lambda command: _applied(command) | {"p_set_w": 30e3, "state": "verified"}
        assert await gateway.device.apply(_setpoint(70e3)) == Applied(30e3, "verified")
        assert gateway.commands[0]["p_set_w"] == 50e3


@pytest.mark.parametrize("state", ["rejected", "expired"])
async def test_a_clear_no_is_refused(mosquitto: Mosquitto, state: str) -> None:
    """The device's reason is in the error."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        gateway.answer = lambda command: {"id": command["id"], "state": state, "reason": "door open"}
        with pytest.raises(Refused, match=f"{state}: door open"):
            await gateway.device.apply(_setpoint(1e3))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda _: None, id="silence"),
        pytest.param(lambda command: {"id": command["id"], "state": "accepted"}, id="accepted-only"),
        pytest.param(lambda command: _applied(command) | {"id": "another"}, id="another-command's"),
        pytest.param(lambda _: {"state": "applied"}, id="no-id"),
    ],
)
async def test_no_answer_in_time_is_an_unknown_outcome(mosquitto: Mosquitto, answer: Answer) -> None:
    """Without an answer to this very command nothing is assumed."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        gateway.answer = answer
        with pytest.raises(Unreachable, match="outcome unknown"):
            await gateway.device.apply(_setpoint(1e3))


async def test_a_link_lost_while_waiting_is_an_unknown_outcome(mosquitto: Mosquitto) -> None:
    """The broker dies between command and answer."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        gateway.answer = lambda _: None
        applying = asyncio.create_task(gateway.device.apply(_setpoint(1e3)))
        async with asyncio.timeout(5.0):
            while not gateway.commands:
                await asyncio.sleep(0)
        mosquitto.kill()
        with pytest.raises(Unreachable):
            await applying
        mosquitto.start()


async def test_cancelling_gets_through_an_unanswered_command(mosquitto: Mosquitto) -> None:
    """The caller's time limit wins over ours and leaves nothing behind."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        gateway.answer = lambda _: None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await gateway.device.apply(_setpoint(1e3))
        assert gateway.device._answers == {}


@pytest.mark.parametrize(
    ("soc_frac", "told_w"), [(0.31, -9e3), (0.3, 0.0), (0.2, 0.0), (None, 0.0)], ids=["above", "at", "below", "unknown"]
)
async def test_storage_is_not_discharged_at_its_reserve(
    mosquitto: Mosquitto, soc_frac: float | None, told_w: float
) -> None:
    """At or below the reserve, or without knowing the charge, discharge becomes 0 W and the reason is told."""
    async with _gateway(mosquitto, reserve_frac=0.3) as gateway:
        await gateway.spoken(soc_frac=soc_frac)
        applied = await gateway.device.apply(_setpoint(-9e3))
        assert gateway.commands[0]["p_set_w"] == told_w
        assert applied.detail == ("applied" if told_w else applied.detail)
        assert bool(told_w) != ("state of charge" in applied.detail)
        await gateway.device.apply(_setpoint(4e3))
        assert gateway.commands[1]["p_set_w"] == 4e3, "charging is always allowed"


async def test_release_gives_the_device_back(mosquitto: Mosquitto) -> None:
    """The profile's release goes out with id, ts, exp and seq; again is no harm."""
    async with _gateway(mosquitto) as gateway:
        await gateway.spoken()
        for _ in range(2):
            await gateway.device.release()
        assert [(c["p_set_w"], c["hold_s"]) for c in gateway.commands] == [(0.0, 0)] * 2
        gateway.answer = lambda _: None
        with pytest.raises(Unreachable):
            await gateway.device.release()


PLAIN: dict[str, Any] = {
    "schema": 1,
    "profile": "plain",
    "version": "1",
    "transport": "mqtt",
    "vendor": "Example",
    "models": ["x"],
    "kind": "cooling",
    "capability": "dispatchable",
    "source": "test",
    "confirmed": False,
    "mqtt": {"keepalive_topic": "R/{portal}/keepalive", "keepalive_s": 0.05},
    "points": {
        "power": {
            "topic": "N/{portal}/p",
            "pointer": "/value",
            "unit": "kW",
            "positive": "export",
            "role": "power",
            "max_age_s": 0.3,
        },
        "alarm": {"topic": "N/{portal}/alarm", "role": "fault", "max_age_s": 60.0},
    },
    "commands": {
        "power": {
            "role": "power",
            "topic": "bess/cmd",
            "unit": "kW",
            "positive": "export",
            "min": -10.0,
            "max": 10.0,
            "persistence": "volatile",
            "pointer": "/value",
            "envelope": False,
            "verify": {"point": "power", "point_delay_s": 0.5, "point_tolerance_frac": 0.05},
            "release": {"value": 0.0},
        }
    },
    "watchdog": {"kind": "none", "safe_forever": True, "arm": [{"topic": "bess/cmd", "payload": '{"arm": 1}'}]},
}


async def test_a_foreign_layout_is_a_matter_of_the_profile(mosquitto: Mosquitto) -> None:
    """Unit, sign, pointer, alarm, arming and bare commands come from the profile in line."""
    async with _gateway(mosquitto, profile=PLAIN, base="", variables={"portal": "p1"}) as gateway:
        gateway.answer = lambda _: None
        await gateway.client.publish("N/p1/p", '{"value": 2.5}')
        assert (await gateway.sample()).power_w == -2_500.0
        await gateway.client.publish("N/p1/alarm", '"door"')
        assert (await gateway.sample()).fault == "door"
        applied = await gateway.device.apply(_setpoint(-2_500.0))
        assert applied == Applied(-2_500.0, "power follows")
        assert await gateway.device.apply(_setpoint(5_000.0)) == Applied(None, "power does not follow yet")
        assert gateway.commands == [{"arm": 1}, {"value": 2.5}, {"value": -5.0}]


async def test_a_value_too_old_is_missing(mosquitto: Mosquitto) -> None:
    """A Sample without power comes by itself when the last value has outlived max_age_s."""
    async with _gateway(mosquitto, profile=PLAIN, base="", variables={"portal": "p1"}) as gateway:
        await gateway.client.publish("N/p1/p", '{"value": 1}')
        assert (await gateway.sample()).power_w == -1_000.0
        assert (await gateway.sample()).power_w is None


async def test_the_device_is_kept_awake(mosquitto: Mosquitto) -> None:
    """A keep-alive that a device demands is published again and again while it is listened to."""
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as other:
        await other.subscribe("R/p1/keepalive")
        async with _gateway(mosquitto, profile=PLAIN, base="", variables={"portal": "p1"}) as gateway:
            reading = asyncio.create_task(gateway.sample())
            async with asyncio.timeout(5.0):
                for _ in range(3):
                    await anext(other.messages)
            reading.cancel()
            await asyncio.wait({reading})


async def test_a_device_without_a_watchdog_is_released_when_its_lease_ends(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the device would hold a setpoint for ever, the adapter ends it."""
    monkeypatch.setattr("adapters.mqtt_json.LOOK_S", 0.02)
    profile = PLAIN | {"commands": {"power": PLAIN["commands"]["power"] | {"verify": None}}}
    async with _gateway(mosquitto, profile=profile, base="", variables={"portal": "p1"}) as gateway:
        gateway.answer = lambda _: None
        reading = asyncio.create_task(gateway.sample())
        await gateway.device.apply(_setpoint(1_000.0, valid_for_s=0.2))
        async with asyncio.timeout(5.0):
            while len(gateway.commands) < 3:
                await asyncio.sleep(0.01)
        assert gateway.commands == [{"arm": 1}, {"value": -1.0}, {"value": 0.0}]
        reading.cancel()
        await asyncio.wait({reading})
