"""Topics: what we subscribe to, and what a message on each may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vppd.grid import dsx_flex, vpp_v1
from vppd.grid.reasons import Defect, Reason
from vppd.grid.site import Site

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic filter of ours; without a required one the link is of no use."""

    filter: str
    qos: int
    required: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """What a topic says of the messages on it."""

    protocol: str
    type: str
    issuer: str
    roles: tuple[str, ...]
    """Roles of a CloudEvents source that may speak here."""


_DISPATCHERS = ("isv", "dsx-flex-agent")


def subscriptions(site: Site) -> tuple[Subscription, ...]:
    """Return what an agent listens to.

    Enforcement reports are taken at QoS 1 although they are sent at 2: a second delivery does no harm, and an
    acknowledgement that waits for the ledger is simple only at QoS 1.
    """
    mine = f"vpp/v1/{site.vpp_id}/issuer/+"
    return (
        Subscription("grid/v1/isv/+/loadtarget/set", 1),
        Subscription("grid/v1/infra/+/powerbreach/enforcement", 1, required=False),
        Subscription(f"{mine}/order/set", 1),
        Subscription(f"{mine}/regulation", 0),
        Subscription(f"{mine}/bid/award", 1),
    )


def route(topic: str, site: Site) -> Route:
    """Return what belongs on ``topic``. Raises Defect (unknown_type) for a topic we do not listen to."""
    mine = re.escape(f"vpp/v1/{site.vpp_id}")
    for pattern, protocol, kind, roles in (
        (r"grid/v1/isv/([^/]+)/loadtarget/set", "dsx_flex", dsx_flex.LOAD_TARGET, ("isv",)),
        (r"grid/v1/infra/([^/]+)/powerbreach/enforcement", "dsx_flex", dsx_flex.ENFORCEMENT, ("infra",)),
        (rf"{mine}/issuer/([^/]+)/order/set", "vpp_v1", vpp_v1.ORDER, _DISPATCHERS),
        (rf"{mine}/issuer/([^/]+)/regulation", "vpp_v1", vpp_v1.REGULATION, _DISPATCHERS),
        (rf"{mine}/issuer/([^/]+)/bid/award", "vpp_v1", vpp_v1.AWARD, _DISPATCHERS),
    ):
        if found := re.fullmatch(pattern, topic):
            return Route(protocol, kind, found[1], roles)
    raise Defect(Reason.UNKNOWN_TYPE, f"nothing is expected on topic {topic[:128]!r}")


def receipt_topic(vpp_id: str, issuer: str) -> str:
    """Return where an issuer finds its receipts."""
    return f"vpp/v1/{vpp_id}/issuer/{issuer}/receipt"


def availability_topic(vpp_id: str) -> str:
    """Return where everybody sees whether we are there."""
    return f"vpp/v1/{vpp_id}/availability"
