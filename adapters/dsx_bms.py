"""A power point of a building management system on the DSX Exchange bus (BMS Event Bus 1.0.0).

The metadata tells the unit, the value comes on change or every 100 s, and the heartbeat, every 10 s, tells that the
system behind it lives: then an unchanged value is a good one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from adapters._json_points import at, decode
from adapters._mqtt import mqtt
from adapters._mqtt_config import MqttConfig
from adapters._mqtt_news import Heard, News
from vppd.errors import DeviceError, Garbled, Unreachable
from vppd.model import Sample
from vppd.ports import Adapter

GOOD = 1
"""The only value of ``quality`` that is to be trusted."""
BAD_IN_A_ROW = 3
"""So many senseless messages are no accident."""
UNITS: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("W", "w", "watt", "watts", "Watt", "Watts"), 1.0),
        **dict.fromkeys(("kW", "KW", "kw", "kilowatt", "kilowatts", "Kilowatts"), 1e3),
        **dict.fromkeys(("MW", "megawatt", "megawatts", "Megawatts"), 1e6),
    }
)
"""What ``engUnit`` may say of a power; it is free text, and mW or mw could be either of two things."""


def _segment(text: str) -> str:
    if "+" in text or "#" in text or not text.strip("/"):
        raise ValueError("must be a part of a topic, without + and #")
    return text


Segment = Annotated[str, AfterValidator(_segment)]


class BmsConfig(MqttConfig):
    """``[assets.connection]`` of a point of the building bus."""

    tag_path: Segment
    object_type: Segment = "PowerMeter"
    point_type: Segment = "ActivePower"
    root: Segment = "BMS/v1/PUB"
    positive: Literal["import", "export"] = "import"
    """What the meter's + means."""
    heartbeat_tag_path: Annotated[str, Field(pattern=r"^[^+#]*$")] = ""
    """Of the system's HeartbeatTimestampBms; empty: any."""
    heartbeat_s: PositiveFloat = 30.0
    """Without a heartbeat for so long the system is taken for dead. [s]"""
    max_age_s: PositiveFloat = 250.0
    """Without a value for so long the point is missing. [s]"""


class BmsPoint:
    """One point that is listened to."""

    def __init__(self, config: BmsConfig) -> None:
        self._config = config
        tail = f"{config.object_type}/{config.point_type}/{config.tag_path}"
        self._value_topic = f"{config.root}/Value/{tail}"
        self._metadata_topic = f"{config.root}/Metadata/{tail}"
        heartbeat = f"{config.root}/Value/System/HeartbeatTimestampBms/{config.heartbeat_tag_path or '#'}"
        self.topics = (self._value_topic, self._metadata_topic, heartbeat)
        """What it listens to."""
        self._news = News()
        self._unit_w: float | None = None
        self._value: float | None = None
        self._value_ends_s = math.inf
        self._beat_ends_s = asyncio.get_running_loop().time() + config.heartbeat_s
        self._beat_ms = math.nan
        self._bad = 0

    async def samples(self) -> AsyncIterator[Sample]:
        """Yield a Sample for each value and each heartbeat, and one without power when the value is too old.

        Raises Unreachable when the link or the heartbeat is lost, Garbled for a unit that is no power.
        """
        while True:
            has_news = await self._news.wait(min(self._beat_ends_s, self._value_ends_s))
            now_s = asyncio.get_running_loop().time()
            if now_s >= self._beat_ends_s:
                raise Unreachable(f"{self._config.host}: no heartbeat of the BMS for {self._config.heartbeat_s:g} s")
            if now_s >= self._value_ends_s:
                self._value, self._value_ends_s, has_news = None, math.inf, True
            if has_news:
                yield Sample(power_w=self._power_w())

    def hear(self, heard: Heard) -> None:
        """Take a message; stored values are history, stored metadata is not."""
        try:
            if heard.topic == self._metadata_topic:
                self._hear_metadata(decode(heard.payload))
            elif not heard.retained:
                self._hear_live(heard)
            self._bad = 0
        except Garbled as error:
            self._bad += 1
            if heard.topic == self._metadata_topic or self._bad >= BAD_IN_A_ROW:
                self.lose(Garbled(f"{heard.topic}: {error}"))

    def lose(self, error: DeviceError) -> None:
        """There will be nothing more to hear."""
        self._news.lose(error)

    def _hear_metadata(self, metadata: Any) -> None:
        unit = at(metadata, "/engUnit")
        if not isinstance(unit, str) or unit.strip() not in UNITS:
            raise Garbled(f"engUnit {unit!r} is not known as a unit of power")
        self._unit_w = UNITS[unit.strip()]
        self._news.tell()

    def _hear_live(self, heard: Heard) -> None:
        message = decode(heard.payload)
        if heard.topic == self._value_topic:
            self._value = _trusted(message)
            self._value_ends_s = heard.mono_s + self._config.max_age_s
            self._news.tell()
        else:
            self._hear_beat(_trusted(message), heard.mono_s)

    def _hear_beat(self, told_at_ms: float | None, mono_s: float) -> None:
        """Count a heartbeat whose time stamp moves; a gateway that repeats the last one is no sign of life."""
        if told_at_ms is not None and told_at_ms != self._beat_ms:
            self._beat_ms, self._beat_ends_s = told_at_ms, mono_s + self._config.heartbeat_s
            self._news.tell()

    def _power_w(self) -> float | None:
        if self._unit_w is None or self._value is None:
            return None
        return self._value * self._unit_w * (1.0 if self._config.positive == "import" else -1.0)


def _trusted(message: Any) -> float | None:
    """Return the value of a message, None when it is null or of bad quality. Raises Garbled."""
    value, quality = at(message, "/value"), at(message, "/quality")
    if value is None or isinstance(quality, bool) or quality != GOOD:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise Garbled(f"value {value!r} is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise Garbled("a number beyond all measure") from error


@asynccontextmanager
async def connect(config: BmsConfig) -> AsyncIterator[BmsPoint]:
    """Listen to the point. Raises Unreachable or Refused."""
    async with mqtt(config) as link:
        point = BmsPoint(config)
        async with link.listening(point, *point.topics):
            yield point


ADAPTER = Adapter(BmsConfig, connect)
