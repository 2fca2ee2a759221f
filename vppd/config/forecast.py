"""``[forecast]``: what is foreseen, how far, and who else says so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PositiveFloat, field_validator, model_validator

from vppd.config.files import BROKER_FILES, file_problems
from vppd.config.grid import BrokerConfig
from vppd.config.table import Name, Problem, Table, twice
from vppd.model import Kind

SERIES = re.compile(
    r"^(load/[^/]+|generation/[^/]+|compute/[^/]+(/tier[0-3])?|contract/[^/]+|price/(import|export)|carbon)$"
)
POWER_UNITS = ("w", "kw", "mw")
PRICE_UNITS = ("per_wh", "per_kwh", "per_mwh")
CARBON_UNITS = ("g_per_wh", "g_per_kwh", "kg_per_mwh", "lb_per_mwh")
Unit = Literal["w", "kw", "mw", "per_wh", "per_kwh", "per_mwh", "g_per_wh", "g_per_kwh", "kg_per_mwh", "lb_per_mwh"]
TARIFF_UNITS = {"price/import": "per_wh", "price/export": "per_wh", "carbon": "g_per_wh"}
"""What an OpenADR server tells (PRICE, EXPORT_PRICE and GHG), in our own units."""
HISTORY_STEP_S = 300.0
TARIFF_STALE_S = 7_200.0
"""An OpenADR server's word counts for so long, if not said otherwise: it is said again while it holds, and soon gone when it is withdrawn. [s]"""
DAY_S = 86_400.0


class ForecastFeedConfig(Table):
    """``[[forecast.feeds]]``: somebody else who says what will come of one series."""

    name: Name
    series: str
    """``load/{feed}``, ``generation/{asset}``, ``compute/{asset}``, ``compute/{asset}/tier{k}``,
    ``contract/{name}`` (of ``[planning]``), ``price/import``, ``price/export`` or ``carbon``."""
    kind: Literal["file", "http", "mqtt", "openadr"]
    unit: Unit
    """Of ``openadr`` the server says it."""
    format: Literal["json", "csv"] = "json"
    path: Path | None = None
    """Of a file."""
    url: str = ""
    topic: str = ""
    poll_s: Annotated[float, Field(ge=1.0)] = 300.0
    """Asked or looked at so often. [s]"""
    stale_after_s: PositiveFloat = 86_400.0
    """What was said longer ago is not used; of an OpenADR server 7,200. [s]"""
    trust: Literal["score", "always"] = "score"
    """Whether it gives way to who has done clearly better, or speaks whenever it is fresh."""
    timeout_s: PositiveFloat = 20.0
    token_file: Path | None = None
    """Sent as a bearer token."""
    ca_file: Path | None = None
    """Authorities of the server; absent: those of the machine."""
    insecure_lab: bool = False
    """Allow http; never in production."""
    broker: BrokerConfig | None = None
    """Of a topic; absent: that of ``[grid]``."""

    @model_validator(mode="before")
    @classmethod
    def _told_by_server(cls, said: Any) -> Any:
        """Fill in the unit of what an OpenADR server tells, which is turned into ours before it is read, and how long it counts."""
        if not isinstance(said, dict) or said.get("kind") != "openadr":
            return said
        return {"unit": TARIFF_UNITS.get(str(said.get("series")), "w"), "stale_after_s": TARIFF_STALE_S} | said

    @field_validator("series")
    @classmethod
    def _known(cls, series: str) -> str:
        if not SERIES.match(series):
            raise ValueError(
                "allowed: load/FEED, generation/ASSET, compute/ASSET, compute/ASSET/tierK, contract/NAME, price/import, "
                "price/export, carbon"
            )
        return series

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "openadr" and self.unit != TARIFF_UNITS.get(self.series):
            why = "its unit too: leave unit out" if self.series in TARIFF_UNITS else f"not {self.series}"
            raise ValueError(f"an OpenADR server tells {', '.join(TARIFF_UNITS)}, {why}")
        wanted = {"file": "path", "http": "url", "mqtt": "topic"}.get(self.kind, "")
        if wanted and not getattr(self, wanted):
            raise ValueError(f"a feed of the kind {self.kind} needs {wanted}")
        for other in ("path", "url", "topic"):
            if other != wanted and getattr(self, other):
                raise ValueError(f"a feed of the kind {self.kind} has no {other}")
        units = _units(self.series)
        if self.unit not in units:
            raise ValueError(f"{self.series} is not told in {self.unit}, but in {', '.join(units)}")
        return self

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if (
            self.url
            and (split := urlsplit(self.url)).scheme != "https"
            and not (split.scheme == "http" and self.insecure_lab)
        ):
            raise ValueError("url must begin with https:// (http:// with insecure_lab = true, in a lab)")
        if self.url and not urlsplit(self.url).hostname:
            raise ValueError(f"{self.url} names no host")
        return self


def _units(series: str) -> tuple[str, ...]:
    if series.startswith("price/"):
        return PRICE_UNITS
    return CARBON_UNITS if series == "carbon" else POWER_UNITS


class ForecastConfig(Table):
    """``[forecast]``: series are means over a step; what nobody says is forecast from our own history."""

    step_s: Annotated[float, Field(ge=300.0, le=3600.0)] = 900.0
    """Whole numbers of 5 minutes that divide a day. [s]"""
    horizon_h: Annotated[float, Field(ge=1.0, le=168.0)] = 48.0
    every_s: Annotated[float, Field(ge=60.0)] = 900.0
    """Made anew so often. [s]"""
    time_zone: str = "UTC"
    """Days and weekends are those of this zone."""
    history_days: Annotated[float, Field(ge=2.0, le=800.0)] = 100.0
    """What was measured is kept so long."""
    feeds: tuple[ForecastFeedConfig, ...] = ()
    """Of several for one series the first is preferred until scores say otherwise."""

    @model_validator(mode="after")
    def _on_grid(self) -> Self:
        if self.step_s % HISTORY_STEP_S or DAY_S % self.step_s:
            raise ValueError(f"step_s = {self.step_s:g} is not a whole number of 300 s that divides a day")
        return self

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"there is no time zone {name!r}; example: Europe/Helsinki") from error
        return name

    @field_validator("feeds")
    @classmethod
    def _apart(cls, feeds: tuple[ForecastFeedConfig, ...]) -> tuple[ForecastFeedConfig, ...]:
        if doubled := twice([feed.name for feed in feeds]):
            raise ValueError(f"name {doubled[0]!r} is used twice")
        return feeds


def feed_problems(
    feeds: Sequence[ForecastFeedConfig],
    tags: Sequence[str],
    kinds: Mapping[str, Kind],
    contracts: Sequence[str] = (),
    *,
    has_grid: bool,
    has_openadr: bool,
) -> list[Problem]:
    """Return which feeds speak of something that this site has not, or over a broker that it has not."""
    known = {
        "load": list(tags),
        "generation": [name for name, kind in kinds.items() if kind in (Kind.PV, Kind.WIND)],
        "compute": [name for name, kind in kinds.items() if kind is Kind.CLUSTER],
        "contract": list(contracts),
    }
    found = []
    for i, feed in enumerate(feeds):
        what, _, rest = feed.series.partition("/")
        name = rest.partition("/")[0]
        if what in known and name not in known[what]:
            allowed = ", ".join(known[what]) or f"none: there is no {_OWNER[what]} with a series {what}/"
            found.append(Problem(f"forecast.feeds[{i}].series", f"there is no series {what}/{name}", allowed))
        if feed.kind == "mqtt" and feed.broker is None and not has_grid:
            found.append(
                Problem(
                    f"forecast.feeds[{i}].broker", "there is no broker", "a table [forecast.feeds.broker], or [grid]"
                )
            )
        if feed.kind == "openadr" and not has_openadr:
            found.append(Problem(f"forecast.feeds[{i}].kind", "there is no OpenADR server", "a table [openadr]"))
        found += _files(f"forecast.feeds[{i}]", feed)
    return found


_OWNER = {"load": "feed", "generation": "asset", "compute": "asset", "contract": "entry in planning.contracts"}


def _files(where: str, feed: ForecastFeedConfig) -> list[Problem]:
    """Return what is wrong with the files that a feed needs from the start; its document may come later."""
    wanted = {f"{where}.{key}": getattr(feed, key) for key in ("ca_file", "token_file")}
    if feed.broker is not None:
        wanted |= {f"{where}.broker.{key}": getattr(feed.broker, key) for key in BROKER_FILES}
    return file_problems(wanted)
