"""The building bus: racks and cooling as DSX BMS points over MQTT, with metadata, heartbeat and re-publication."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from vppd.sim.faults import Fault
from vppd.sim.site import BMS, Site

LOOK_S = 1.0
"""How often values are compared with what was last published. [s]"""
REPEAT_S = 100.0
"""How often unchanged values and metadata are published. [s]"""
HEARTBEAT_S = 10.0
_CHANGE_KW = 0.05
_PROTOCOLS = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the building bus is."""

    host: str
    port: int
    protocol: str = "3.1.1"


@dataclass(frozen=True, slots=True)
class BusPoint:
    """A point of the building bus."""

    name: str
    feed: str
    object_type: str
    point_type: str
    metadata: Mapping[str, Any]

    @property
    def topic_tail(self) -> str:
        """Return the part value and metadata topics share."""
        return f"{self.object_type}/{self.point_type}/{self.name}"


def bus_points(site: Site) -> tuple[BusPoint, ...]:
    """Return the points the building services publish: cooling and racks of each feed."""
    points: list[BusPoint] = []
    for tag in site.plan.feeds:
        side = tag.rpartition("-")[2]
        cooling = {
            "objectName": f"Cooling {side.upper()}",
            "objectId": f"cooling-{side}",
            "servesId": [f"racks-{side}"],
        }
        racks = {"rackLocationName": f"Racks {side.upper()}", "rackLocationId": f"racks-{side}"}
        points.append(_point(f"cooling-{side}", tag, "PowerMeter", "ActivePower", cooling))
        points.append(_point(f"racks-{side}", tag, "Rack", "RackPower", racks))
    return tuple(points)


def _point(name: str, feed: str, object_type: str, point_type: str, identity: Mapping[str, Any]) -> BusPoint:
    """Return a point with its whole metadata."""
    metadata = {"objectType": object_type, "pointType": point_type, "engUnit": "kW", **identity}
    return BusPoint(name, feed, object_type, point_type, metadata)


class BuildingBus:
    """Publishes what the building services see."""

    def __init__(self, site: Site, client: mqtt.Client) -> None:
        self._site = site
        self._client = client
        self._points = bus_points(site)
        self._sent_kw: dict[str, float] = {}
        self._repeat_at_s = 0.0
        self._beat_at_s = 0.0

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            if self._client.is_connected() and self._site.outages[BMS].now() is Fault.NONE:
                self.publish()
            await asyncio.sleep(LOOK_S)

    def introduce(self) -> None:
        """Publish everything again at the next look: the broker is new, or came back."""
        self._repeat_at_s = self._beat_at_s = 0.0

    def publish(self) -> None:
        """Publish what is due: heartbeat, changed values, and from time to time everything."""
        now_s = self._site.clock()
        if now_s >= self._repeat_at_s:
            self._repeat_at_s = now_s + REPEAT_S
            self._sent_kw.clear()
            self._publish_metadata()
        if now_s >= self._beat_at_s:
            self._beat_at_s = now_s + HEARTBEAT_S
            self._value("System/HeartbeatTimestampBms/bms", self._epoch_ms())
        for point in self._points:
            self._publish_changed(point)

    def _publish_changed(self, point: BusPoint) -> None:
        """Publish a value that has moved since it was last published."""
        state = self._site.state.feeds[point.feed]
        value_kw = (state.cooling_w if point.point_type == "ActivePower" else state.racks_w) / 1000.0
        sent_kw = self._sent_kw.get(point.name)
        if sent_kw is None or abs(value_kw - sent_kw) >= _CHANGE_KW:
            self._sent_kw[point.name] = value_kw
            self._value(point.topic_tail, round(value_kw, 3))

    def _publish_metadata(self) -> None:
        """Publish what each point means, retained."""
        heartbeat = {
            "objectType": "System",
            "pointType": "HeartbeatTimestampBms",
            "objectName": "Building services",
            "objectId": "BMS",
        }
        self._metadata("System/HeartbeatTimestampBms/bms", heartbeat)
        for point in self._points:
            self._metadata(point.topic_tail, point.metadata)

    def _metadata(self, tail: str, body: Mapping[str, Any]) -> None:
        self._client.publish(f"BMS/v1/PUB/Metadata/{tail}", json.dumps(body), qos=0, retain=True)

    def _value(self, tail: str, value: float) -> None:
        body = {"value": value, "timestamp": self._epoch_ms(), "quality": 1}
        self._client.publish(f"BMS/v1/PUB/Value/{tail}", json.dumps(body), qos=0, retain=False)

    def _epoch_ms(self) -> int:
        """Return the time of the values. [ms since 1970]"""
        return int(self._site.epoch() * 1000.0)


@asynccontextmanager
async def building_bus(site: Site, broker: Broker) -> AsyncIterator[BuildingBus]:
    """Keep a connection to the broker, in paho's own thread, until the context ends."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=f"bms-{site.seed}", protocol=_PROTOCOLS[broker.protocol]
    )
    client.reconnect_delay_set(1, 30)
    bus = BuildingBus(site, client)
    loop = asyncio.get_running_loop()

    def connected(
        _client: mqtt.Client, _user: Any, _flags: mqtt.ConnectFlags, _code: ReasonCode, _props: Properties | None
    ) -> None:
        loop.call_soon_threadsafe(bus.introduce)

    client.on_connect = connected
    client.connect_async(broker.host, broker.port, keepalive=30)
    client.loop_start()
    try:
        yield bus
    finally:
        client.on_connect = None
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
