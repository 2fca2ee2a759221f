"""Any device that speaks JSON over MQTT, described by a profile: a meter, a battery behind a gateway, a cooling plant.

What the broker has in store is history: the device counts from its first live message on. A command without an
answer in time has an unknown outcome.
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from adapters._json_points import at, decode, factor, placed, quantity
from adapters._json_profile import Command, JsonConfig, Point
from adapters._json_state import DeviceState
from adapters._lease import Lease
from adapters._mqtt import MqttLink, mqtt
from adapters._mqtt_news import Heard, News
from vppd.errors import DeviceError, Garbled, Refused, Unreachable
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Adapter

LOOK_S = 1.0
"""How often the end of a lease is looked for, for devices that hold a command for ever. [s]"""


class JsonDevice:
    """A device that is listened to."""

    def __init__(self, config: JsonConfig, link: MqttLink) -> None:
        self._config, self._link, self._bus = config, link, config.profile.mqtt
        points: dict[str, list[Point]] = {}
        for point in config.profile.points.values():
            points.setdefault(config.topic(point.topic), []).append(point)
        self._state = DeviceState(points)
        self._news = News()
        self._availability = config.topic(self._bus.availability_topic)
        self._keep_alive_at_s = -math.inf if self._bus.keepalive_s else math.inf
        self.topics = (*points, *([self._availability] if self._availability else []))
        """What it listens to."""

    async def samples(self) -> AsyncIterator[Sample]:
        """Yield a Sample when the device has spoken, and when a value has become too old.

        Raises Unreachable when the link is lost or the device signs off, Garbled when it keeps making no sense.
        """
        while True:
            until_s = min(self._state.next_old_s(), self._keep_alive_at_s, self._next_look_s())
            has_spoken = await self._news.wait(until_s)
            await self._tend()
            if self._state.forget_old(_now_s()) or has_spoken:
                yield self._state.sample()

    def hear(self, heard: Heard) -> None:
        """Take a message."""
        if heard.topic == self._availability:
            self._hear_availability(heard)
            return
        try:
            if self._state.take(heard):
                self._news.tell()
        except Garbled as error:
            self.lose(error)

    def lose(self, error: DeviceError) -> None:
        """There will be nothing more to hear."""
        self._news.lose(error)

    def _hear_availability(self, heard: Heard) -> None:
        try:
            state = at(decode(heard.payload), self._bus.availability_pointer)
        except Garbled:
            state = heard.payload.decode(errors="replace")
        if str(state) not in self._bus.online:
            self.lose(Unreachable(f"{self._config.host}: the device says it is {str(state)[:40]!r}"))

    def _next_look_s(self) -> float:
        return math.inf

    async def _tend(self) -> None:
        """Do what is due besides listening."""
        if _now_s() >= self._keep_alive_at_s:
            self._keep_alive_at_s = _now_s() + self._bus.keepalive_s
            await self._link.publish(self._config.topic(self._bus.keepalive_topic), b"", qos=0)


class ControlledJsonDevice(JsonDevice):
    """A device that also takes setpoints."""

    def __init__(self, config: JsonConfig, link: MqttLink, command: Command) -> None:
        super().__init__(config, link)
        self._command = command
        watchdog = config.profile.watchdog
        self._arm = watchdog.arm if watchdog else ()
        self._needs_release = watchdog is None or watchdog.kind == "none"
        self._lease = Lease()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._answer_topic = config.topic(command.ack_topic)
        self._seq, self._sent, self._sent_at_s = 0, math.nan, -math.inf
        if self._answer_topic:
            self.topics = (*self.topics, self._answer_topic)

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Send an absolute setpoint with its lease; return what the device says it follows. [W, + = into the asset]

        Raises Unreachable when no answer comes in time (outcome unknown), Refused when the device says no.
        """
        power_w, remark = self._within_reserve(setpoint.power_w)
        value = self._value(power_w)
        await self._pause()
        for message in self._arm:
            await self._link.publish(self._config.topic(message.topic), message.payload.encode())
        self._arm = ()
        if self._needs_release:
            self._lease.renew(setpoint.valid_for_s)
        fields: dict[str, Any] = placed(self._command.pointer, value)
        if self._command.envelope:
            fields = {**fields, "hold_s": setpoint.valid_for_s, **self._ramp()}
        answer = await self._send(fields)
        self._sent = value
        return await self._applied(answer, value, remark)

    async def release(self) -> None:
        """Give the device back to itself. Raises Unreachable or Refused. Idempotent."""
        self._lease.end()
        self._sent = math.nan
        await self._send(self._command.release)

    def hear(self, heard: Heard) -> None:
        """Take a message."""
        if heard.topic == self._answer_topic:
            if not heard.retained:
                self._hear_answer(heard)
        else:
            super().hear(heard)

    def lose(self, error: DeviceError) -> None:
        """There will be no answers either."""
        super().lose(error)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unreachable(f"{error}: outcome unknown"))

    def _next_look_s(self) -> float:
        return _now_s() + LOOK_S if self._needs_release else math.inf

    async def _tend(self) -> None:
        await super()._tend()
        if self._lease.has_expired:
            await self.release()

    def _within_reserve(self, power_w: float) -> tuple[float, str]:
        """Return the power that may be commanded: no discharge at the reserve, or without knowing the charge. [W]"""
        if power_w >= 0.0 or self._config.profile.kind not in ("battery", "ups"):
            return power_w, ""
        soc_frac = self._state.number("soc")
        if soc_frac is not None and soc_frac > self._config.reserve_frac:
            return power_w, ""
        charge = "unknown" if soc_frac is None else f"{soc_frac:.1%}, reserve {self._config.reserve_frac:.1%}"
        return 0.0, f"not discharged: state of charge {charge}"

    def _value(self, power_w: float) -> float:
        """Return the power in the device's unit and sign, within its limits and its dead band."""
        command = self._command
        sign = 1.0 if command.positive == "import" else -1.0
        value = max(command.min, min(command.max, sign * power_w / factor("W", command.unit)))
        return self._sent if abs(value - self._sent) < command.deadband else value

    def _ramp(self) -> dict[str, float]:
        rate = self._command.ramp_per_s
        return {} if rate is None else {"ramp_w_per_s": rate * factor("W", self._command.unit)}

    async def _pause(self) -> None:
        await asyncio.sleep(max(0.0, self._sent_at_s + self._command.min_interval_s - _now_s()))
        self._sent_at_s = _now_s()

    async def _send(self, fields: Any) -> Any:
        """Publish a command and return the device's answer, None when it gives none."""
        topic, expiry_s = self._config.topic(self._command.topic), self._command.expiry_s
        if not self._command.envelope:
            await self._link.publish(topic, _json(fields), expiry_s=expiry_s)
            return None
        name = str(uuid.uuid4())
        payload = _json({"id": name, **await self._timing(), **fields})
        if not self._answer_topic:
            await self._link.publish(topic, payload, expiry_s=expiry_s)
            return None
        answer = self._answers[name] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._command.ack_timeout_s):
                await self._link.publish(topic, payload, expiry_s=expiry_s)
                return await answer
        except TimeoutError as error:
            raise Unreachable(f"{topic}: no answer within {self._command.ack_timeout_s} s: outcome unknown") from error
        finally:
            del self._answers[name]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # it has been raised, or something worse has

    async def _timing(self) -> Mapping[str, Any]:
        """Return ts, exp and seq in the device's own time. Raises Unreachable when it has not told it."""
        self._news.check()
        try:
            async with asyncio.timeout(self._command.ack_timeout_s):
                await self._state.spoke.wait()
        except TimeoutError as error:
            raise Unreachable(f"{self._command.topic}: the device has not spoken yet") from error
        now_s = self._state.device_time_s() or 0.0
        self._seq = max(self._seq + 1, int(now_s * 1e3))
        return {"ts": _text(now_s), "exp": _text(now_s + self._command.expiry_s), "seq": self._seq}

    def _hear_answer(self, heard: Heard) -> None:
        try:
            answer = decode(heard.payload)
            waiting = self._answers.get(str(at(answer, "/id")))
            state = at(answer, "/state")
        except Garbled:
            return
        if waiting is None or waiting.done():
            return
        if state in ("applied", "verified"):
            waiting.set_result(answer)
        elif state in ("rejected", "expired"):
            reason = answer.get("reason") or "no reason given"
            waiting.set_exception(Refused(f"{self._command.topic}: {state}: {reason}"))

    async def _applied(self, answer: Any, value: float, remark: str) -> Applied:
        if answer is not None:
            told_w = self._told_w(answer)
            return Applied(told_w, remark or str(answer["state"]))
        if self._command.verify is not None:
            return await self._followed(value, remark)
        return Applied(self._state.number("setpoint"), remark)

    def _told_w(self, answer: Any) -> float | None:
        """Return the effective setpoint in an answer, None when it tells none. [W]"""
        try:
            return quantity(at(answer, self._command.pointer), "W", _AsCommand(self._command))
        except Garbled:
            return None

    async def _followed(self, value: float, remark: str) -> Applied:
        """Wait for the point that shows that the command was followed."""
        verify = self._command.verify
        assert verify is not None
        wanted_w = quantity(value, "W", _AsCommand(self._command)) or 0.0
        role = self._config.profile.points[verify.point].role
        largest_w = max(abs(self._command.min), abs(self._command.max)) * factor("W", self._command.unit)
        end_s = _now_s() + verify.point_delay_s
        while _now_s() < end_s:
            now_w = self._state.number(role)
            if now_w is not None and abs(now_w - wanted_w) <= verify.point_tolerance_frac * largest_w:
                return Applied(wanted_w, remark or f"{verify.point} follows")
            await asyncio.sleep(min(LOOK_S / 10.0, verify.point_delay_s / 10.0))
        return Applied(None, remark or f"{verify.point} does not follow yet")


class _AsCommand:
    """A command's value read like a point."""

    scale, offset, range = 1.0, 0.0, None

    def __init__(self, command: Command) -> None:
        self.unit, self.positive = command.unit, command.positive


@asynccontextmanager
async def connect(config: JsonConfig) -> AsyncIterator[JsonDevice]:
    """Listen to the device. Raises Unreachable or Refused."""
    command = config.profile.command
    async with mqtt(config) as link:
        device = ControlledJsonDevice(config, link, command) if command else JsonDevice(config, link)
        async with link.listening(device, *device.topics):
            yield device


ADAPTER = Adapter(JsonConfig, connect)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _text(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
