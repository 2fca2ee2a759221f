"""Node agents behind an MQTT broker: what each of them said last, and orders that wait for their acknowledgement.

Use ``agent_caps(config)``; what it yields is a ``NodeCaps`` and a ``NodeMeters``. Telemetry is kept as it came and decoded when somebody
asks. When the link is lost, orders fail as Unreachable, nothing is fresh any more, and listening begins anew once the broker is back.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Annotated

from pydantic import Field, PositiveFloat

from adapters import _agents_wire as wire
from adapters._agents_wire import Status, Telemetry, Wanted
from adapters._caps import Cap
from adapters._mqtt import MqttLink, mqtt
from adapters._mqtt_config import MqttConfig
from adapters._mqtt_news import Heard
from vppd.errors import DeviceError, Garbled, Refused, Unreachable

AGAIN_S = 0.5
"""Pause before listening is tried again. [s]"""
Name = Annotated[str, Field(pattern=r"^[^/+#\s]+$")]


class AgentsConfig(MqttConfig):
    """Where the agents of a site are. With hundreds of them ``protocol = "3.1.1"`` saves a third of the work."""

    site: Name
    """As in the agents' own configuration."""
    sender: Name = "vppd"
    """Who we are to the agents. Each connection counts its orders anew, under a name of its own that begins with this."""
    stale_s: PositiveFloat = 3.0
    """A node that has not spoken for so long is silent."""
    ack_timeout_s: PositiveFloat = 1.0
    """Wait for an agent's acknowledgement."""
    default_lease_s: PositiveFloat = 180.0
    """Lease of a cap for those who ask for none: an agent holds nothing for ever."""


class Node:
    """One node, by its newest messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spoke_s = -math.inf
        """When its newest telemetry came; -inf for never. [s, the loop's clock]"""
        self.status: Status | None = None
        self.is_history = False
        """The status came from the broker's store."""
        self.is_offline = False
        self.trouble = ""
        """Why its newest message was dropped; empty when it was not."""
        self._raw = b""
        self._telemetry: Telemetry | None = None

    def hear(self, part: str, heard: Heard) -> None:
        """Take a message. Raises Garbled."""
        if part == wire.TELEMETRY:
            if not heard.retained:  # a stored measurement is history
                self._raw, self._telemetry, self.spoke_s, self.is_offline = heard.payload, None, heard.mono_s, False
        elif part == wire.STATUS:
            self.status, self.is_history = wire.status(heard.payload), heard.retained
        elif part == wire.AVAILABILITY:
            self.is_offline = heard.payload.strip() == b"offline"
            if self.is_offline:
                self.spoke_s = -math.inf

    def telemetry(self) -> Telemetry | None:
        """Return its newest telemetry, however old; None when there is none that makes sense."""
        if self._raw:
            raw, self._raw = self._raw, b""
            try:
                self._telemetry, self.trouble = wire.telemetry(raw), ""
            except Garbled as error:
                self._telemetry, self.trouble = None, str(error)
        return self._telemetry


class AgentCaps:
    """The agents of one site. ``NodeCaps`` and ``NodeMeters``."""

    def __init__(self, config: AgentsConfig, link: MqttLink) -> None:
        self.sender = f"{config.sender}/{uuid.uuid4().hex[:8]}"
        """Who we are to the agents, this time."""
        self.nodes: dict[str, Node] = {}
        """Everybody who has ever spoken, or whose words the broker keeps."""
        self._config, self._link = config, link
        self._prefix = f"{wire.ROOT}/{config.site}/"
        self._answers: dict[str, asyncio.Future[Status]] = {}
        self._seq = 0
        self._lost: DeviceError | None = None
        self._has_lost = asyncio.Event()

    # ---- for clusters ------------------------------------------------------------------------------------------------

    async def look(self, names: Iterable[str]) -> dict[str, Cap]:
        """Return the caps of nodes; those without fresh news are left out. [W]"""
        found: dict[str, Cap] = {}
        for name in names:
            node = self.nodes.get(name)
            if node is not None and self.is_fresh(node):
                found[name] = _cap(node.status)
        return found

    async def put(self, name: str, cap_w: float | None, valid_for_s: float | None) -> Cap:
        """Order a cap (None: lift it) and return what the agent says holds. [W; s]

        Where some of a node's devices refuse, the sum that really holds is returned. Raises Unreachable (outcome unknown), Refused.
        """
        return _cap(await self.order(name, Wanted(cap_w), valid_for_s or self._config.default_lease_s))

    def power_w(self, name: str) -> float | None:
        """Return what a node's devices draw; None when nothing fresh is known. [W]"""
        node = self.nodes.get(name)
        said = node.telemetry() if node is not None and self.is_fresh(node) else None
        return None if said is None else said.power_w

    # ---- with all there is to know -----------------------------------------------------------------------------------

    async def order(self, name: str, wanted: Wanted, lease_s: float) -> Status:
        """Order what a node is to hold and return its acknowledgement. [s]

        Raises Unreachable (outcome unknown), Refused when the agent takes none of it.
        """
        self.check()
        self._seq += 1
        id_, topic = str(uuid.uuid4()), f"{self._prefix}{name}/{wire.SET}"
        answer: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self._answers[id_] = answer
        timeout_s = self._config.ack_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                payload = wire.cap_set(id_, self._seq, self.sender, wanted, lease_s)
                await self._link.publish(topic, payload, expiry_s=timeout_s)
                said = await answer
        except TimeoutError as error:
            raise Unreachable(f"{name}: no acknowledgement within {timeout_s:g} s: outcome unknown") from error
        finally:
            del self._answers[id_]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # it has been raised, or something worse has
        self._judge(name, wanted, said)
        return said

    def is_fresh(self, node: Node) -> bool:
        """Say whether a node has spoken lately."""
        return _now_s() - node.spoke_s <= self._config.stale_s

    def is_ours(self, status: Status) -> bool:
        """Say whether this connection, or an earlier one of ours, ordered what a node holds."""
        return status.sender.startswith(f"{self._config.sender}/")

    def check(self) -> None:
        """Raise Unreachable or Refused while there is no link."""
        if self._lost is not None:
            raise type(self._lost)(*self._lost.args)

    # ---- what the link calls -----------------------------------------------------------------------------------------

    def hear(self, heard: Heard) -> None:
        """Take a message."""
        name, _, part = heard.topic.removeprefix(self._prefix).partition("/")
        node = self.nodes.get(name)
        if node is None:
            if not heard.payload:  # somebody has cleared the broker's store
                return
            node = self.nodes[name] = Node(name)
        try:
            node.hear(part, heard)
        except Garbled as error:
            node.trouble = str(error)
        else:
            if part == wire.STATUS and not heard.retained and node.status is not None:
                self._answered(node.status)

    def lose(self, error: DeviceError) -> None:
        """The link is lost."""
        self._lost = error
        for node in self.nodes.values():
            node.spoke_s = -math.inf
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unreachable(f"{error}: outcome unknown"))
        self._has_lost.set()

    async def listen(self, stack: AsyncExitStack) -> None:
        """Begin to listen until ``stack`` closes. Raises Unreachable or Refused."""
        topics = [f"{self._prefix}+/{part}" for part in (wire.AVAILABILITY, wire.STATUS, wire.TELEMETRY)]
        self._has_lost.clear()
        # QoS 0: a broker queues about a thousand messages of QoS 1 for a client and drops the rest; an acknowledgement that is
        # lost on the way is asked for again with the next order.
        await stack.enter_async_context(self._link.listening(self, *topics, qos=0))
        self._lost = None

    async def keep_listening(self) -> None:
        """Listen anew whenever the link was lost, for ever."""
        while True:
            await self._has_lost.wait()
            async with AsyncExitStack() as stack:
                with suppress(DeviceError):
                    await self.listen(stack)
                    await self._has_lost.wait()
            self._has_lost.set()
            await asyncio.sleep(AGAIN_S)

    def _judge(self, name: str, wanted: Wanted, said: Status) -> None:
        """Raise Refused when an agent took nothing of what was ordered."""
        rejected = said.rejected
        is_asked = wanted.cap_w is not None or bool(wanted.clock_mhz)
        is_taken = not said.detail.startswith("stale") and (
            (said.is_held and said.sender == self.sender) or not is_asked
        )
        if not is_taken or (rejected and len(rejected) == len(said.devices)):
            raise Refused(f"{name}: refused: {said.detail or '; '.join(rejected) or said.state}"[:300])

    def _answered(self, status: Status) -> None:
        answer = self._answers.get(status.id)
        if answer is not None and not answer.done():
            answer.set_result(status)


@asynccontextmanager
async def agent_caps(config: AgentsConfig) -> AsyncIterator[AgentCaps]:
    """Listen to the agents of a site. Raises Unreachable, Refused when the broker turns us away, ConfigError."""
    async with mqtt(config) as link, AsyncExitStack() as stack:
        caps = AgentCaps(config, link)
        await caps.listen(stack)
        keeper = asyncio.create_task(caps.keep_listening(), name=f"agents {config.site}")
        try:
            yield caps
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})


def _cap(status: Status | None) -> Cap:
    return Cap(None) if status is None else Cap(status.in_force_w, status.min_cap_w or 0.0)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
