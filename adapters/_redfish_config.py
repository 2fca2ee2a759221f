"""``[assets.connection]`` of servers capped through their BMCs: where these are, who we are to them, and how gently they are asked."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Tier = Annotated[int, Field(ge=0, le=3)]

_SPAN = re.compile(r"\[(\d+)-(\d+)\]")
_MOST = 10_000


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BmcRange(_Table):
    """Nodes whose names and addresses differ by a number."""

    names: str
    """``node[001-500]``: as many digits as the first number has."""
    url: str
    """``https://{name}-bmc.example.org`` or ``https://10.0.0.{n}``: {name} is the node, {n} its number."""

    def members(self) -> Iterator[tuple[str, str]]:
        """Yield (name, address) of each node. Raises ValueError."""
        span = _SPAN.search(self.names)
        if span is None:
            raise ValueError(f"{self.names!r} has no range such as [001-500]")
        first, last, digits = int(span[1]), int(span[2]), len(span[1])
        if not first <= last < first + _MOST:
            raise ValueError(f"{self.names!r} has {last - first + 1} nodes (1 to {_MOST} are allowed)")
        unknown = {key for _, key, _, _ in string.Formatter().parse(self.url) if key is not None} - {"name", "n"}
        if unknown:
            raise ValueError(f"{self.url!r}: {', '.join(sorted(unknown))} is neither name nor n")
        for number in range(first, last + 1):
            name = f"{self.names[: span.start()]}{number:0{digits}d}{self.names[span.end() :]}"
            yield name, self.url.format(name=name, n=number)


class BmcPoolConfig(_Table):
    """A set of BMCs that one account may command."""

    bmcs: dict[str, str] = Field(default_factory=dict)
    """Address by node: ``node17 = "https://10.0.0.17"``."""
    ranges: tuple[BmcRange, ...] = ()
    user_name: str
    password_file: Path
    auth: Literal["session", "basic"] = "session"
    ca_file: Path | None = None
    """Authorities that vouch for the BMCs; without it those of this machine."""
    fingerprints: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of a node's certificate (hex): that one is accepted, and no other."""
    insecure: bool = False
    """Ask BMCs whose certificate nobody vouches for, or plain http: whoever sits in between learns the password."""

    timeout_s: Positive = 8.0
    """Wait for one answer; BMCs take 0.2 to 3 s."""
    node_timeout_s: Positive = 60.0
    """All it takes to look at one node or to cap it, request after request; to find its limits may take four times as long."""
    wait_s: Positive = 3.0
    """Whoever asks for caps gets an answer after this time at most; slow BMCs are finished in the background."""
    at_once: Annotated[int, Field(ge=1, le=1024)] = 128
    """Requests under way at a time; one that waits long makes room for another."""
    requests_per_s: Annotated[float, Field(gt=0.0, le=1000.0)] = 20.0
    """Most that one BMC is asked in the long run, one at a time."""
    burst: Annotated[int, Field(ge=1)] = 50
    """So many in a row may come faster."""
    refresh_s: NonNegative = 10.0
    """Power and limits are read again after this time."""
    retry_most_s: Positive = 60.0
    """A BMC that does not answer is asked again after 2 s, then 4, 8 and so on, up to this."""

    limit_by: Literal["auto", "chassis", "control", "power", "processors"] = "auto"
    """Which limits to set: EnvironmentMetrics of chassis, Controls, the old Power resource, or GPUs; auto: the first there is."""
    other_w: NonNegative | None = None
    """What a node draws beside what its limits cover, where these are those of GPUs; None: as measured. [W]"""
    percent_of_w: Positive | None = None
    """100 % of a limit in percent whose own range tells no watts. [W]"""

    journal: Path
    """The limits as they were before we changed them: BMCs have no default to go back to."""
    orphan_lease_s: Positive = 30.0
    """Caps of an earlier process are lifted after this time, when nobody has said what to do with them."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        addresses = self.addresses()
        if not addresses:
            raise ValueError("give bmcs or ranges: there is no BMC")
        for name, url in addresses.items():
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise ValueError(f"{name}: {url!r} is not an address such as https://10.0.0.17")
            if parts.scheme == "http" and not self.insecure:
                raise ValueError(f"{name}: {url!r} sends the password in the clear; use https, or insecure = true")
        for name, digest in self.fingerprints.items():
            if not re.fullmatch(r"(?i)[0-9a-f]{2}(:?[0-9a-f]{2}){31}", digest):
                raise ValueError(f"fingerprints: {name}: give the 64 hex digits of SHA-256")
            if name not in addresses:
                raise ValueError(f"fingerprints: there is no BMC {name!r}")
        return self

    def addresses(self) -> dict[str, str]:
        """Return the address of each BMC by node. Raises ValueError when a node is named twice."""
        found = dict(self.bmcs)
        for span in self.ranges:
            for name, url in span.members():
                if name in found:
                    raise ValueError(f"{name!r} is named twice")
                found[name] = url
        return found


class RedfishConfig(BmcPoolConfig):
    """An asset of such nodes."""

    default_tier: Tier = 0
    node_tier: dict[str, Tier] = Field(default_factory=dict)
    """Flex tier by node; tier 0 is never touched."""
    cap_floor_frac: Fraction = 0.5
    """Never cap below this part of the highest limit a node's BMC allows (of node_max_w where it tells none)."""
    margin_frac: Annotated[float, Field(ge=0.0, le=0.2)] = 0.01
    """Aim so far below the budget where no planner does."""
    node_max_w: Positive = 8400.0
    """What a node counts for while its BMC does not answer. [W]"""
    read_wait_s: Positive = 2.0
    """A reading waits so long for BMCs where nothing fresh is known; values of slow ones come with a later reading."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = sorted(set(self.node_tier) - set(self.addresses()))
        if unknown:
            raise ValueError(f"node_tier: there is no BMC {', '.join(unknown)}")
        return self
