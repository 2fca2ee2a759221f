"""``vppd.toml`` as frozen values: every mistake is found before anything starts, and all of them at once."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from vppd.config.forecast import ForecastConfig, feed_problems
from vppd.config.grid import GridConfig
from vppd.config.market import MarketConfig
from vppd.config.openadr import OpenAdrConfig
from vppd.config.planning import PlanningConfig
from vppd.config.plant import AssetConfig, FeedConfig, HttpConfig, SiteConfig
from vppd.config.table import InvalidConfig, Problem, Table, problems_of
from vppd.model import Kind


class Config(Table):
    """A whole ``vppd.toml``."""

    site: SiteConfig
    feeds: tuple[FeedConfig, ...] = Field(min_length=1)
    assets: tuple[AssetConfig, ...] = Field(min_length=1)
    grid: GridConfig | None = None
    http: HttpConfig | None = None
    openadr: OpenAdrConfig | None = None
    forecast: ForecastConfig | None = None
    planning: PlanningConfig | None = None
    market: MarketConfig | None = None
    log: Literal["debug", "info", "warning", "error"] = "info"


def load(path: Path) -> Config:
    """Return the configuration in ``path`` with relative paths resolved against its folder.

    Raises InvalidConfig with every mistake found.
    """
    config, problems = examine(path)
    if config is None or problems:
        raise InvalidConfig(path, problems)
    return config


def examine(path: Path) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return the configuration in ``path`` and its mistakes; None when too little is left of it without them.

    Raises InvalidConfig when it cannot be read at all.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(path, (Problem("-", f"cannot be read: {error.strerror}"),)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(path, (Problem("-", f"is not valid TOML: {error}"),)) from error
    raw = _resolve(raw, path.parent)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        rest = _without(raw, error)
        return rest, (*problems_of(error), *(_references(rest) if rest else ()))
    return config, (*_timing(config), *_references(config))


def _without(raw: Any, error: ValidationError) -> Config | None:
    """Return what is left without the keys that are wrong, so that mistakes elsewhere are found as well."""
    for entry in error.errors(include_url=False):
        *outer, last = entry["loc"] or ("",)
        table: Any = raw
        for part in outer:
            table = table[part]
        if not isinstance(table, dict) or last not in table:
            return None
        del table[last]
    try:
        return Config.model_validate(raw)
    except ValidationError:
        return None


_PATH_KEYS = (
    "state_dir",
    "socket",
    "key_file",
    "public_key_file",
    "ca_file",
    "cert_file",
    "password_file",
    "client_secret_file",
    "products_dir",
    "path",
    "token_file",
)


def _resolve(raw: Any, folder: Path) -> Any:
    """Make the paths of our own tables absolute; adapters' connection tables are theirs."""
    if isinstance(raw, list):
        return [_resolve(entry, folder) for entry in raw]
    if not isinstance(raw, dict):
        return raw
    return {
        key: str(folder / value)
        if key in _PATH_KEYS and isinstance(value, str)
        else value
        if key == "connection"
        else _resolve(value, folder)
        for key, value in raw.items()
    }


def _references(config: Config) -> list[Problem]:
    return [*_names(config), *_grants(config), *_files(config), *_planned(config)]


def _foretold(config: Config, forecast: ForecastConfig) -> list[Problem]:
    """Return what is wrong with who tells what."""
    kinds = {asset.id: asset.kind for asset in config.assets}
    tags = [feed.tag for feed in config.feeds]
    contracts = config.planning.contracts if config.planning is not None else ()
    has_grid, has_openadr = config.grid is not None, config.openadr is not None
    found = feed_problems(forecast.feeds, tags, kinds, contracts, has_grid=has_grid, has_openadr=has_openadr)
    return found + _unfed(forecast, contracts)


def _unfed(forecast: ForecastConfig, contracts: Sequence[str]) -> list[Problem]:
    """Return the contracts whose production nobody tells."""
    told = [feed.series for feed in forecast.feeds]
    return [
        Problem(
            "planning.contracts",
            f"no feed tells contract/{name}",
            f'[[forecast.feeds]] with series = "contract/{name}"',
        )
        for name in contracts
        if f"contract/{name}" not in told
    ]


def _planned(config: Config) -> list[Problem]:
    """Return what is asked for without what it rests on."""
    found = []
    if config.planning is not None and config.forecast is None:
        found.append(Problem("planning", "nothing can be planned without forecasts", "a table [forecast]"))
    if config.forecast is not None:
        found += _foretold(config, config.forecast)
    if config.market is not None and config.planning is None:
        found.append(Problem("market", "nothing can be sold without a plan", "a table [planning]"))
    if config.market is not None and config.grid is None:
        found.append(Problem("market", "offers go out over the dispatcher's broker", "a table [grid]"))
    if config.market is not None and config.grid is not None:
        known = [issuer.id for issuer in config.grid.issuers]
        if config.market.issuer not in known:
            reason = f"there is no issuer {config.market.issuer!r}: nobody could award"
            found.append(Problem("market.issuer", reason, ", ".join(known)))
    return found


def _timing(config: Config) -> list[Problem]:
    site, found = config.site, []
    if site.cycle_s + 2 * site.io_timeout_s > site.lease_s:
        found.append(
            Problem(
                "site.lease_s",
                f"{site.lease_s} s is too short: one cycle and two device time limits must fit in a lease",
                f">= cycle_s + 2 * io_timeout_s = {site.cycle_s + 2 * site.io_timeout_s}",
            )
        )
    for i, asset in enumerate(config.assets):
        if asset.stale_after_s < 2 * asset.poll_s:
            found.append(
                Problem(f"assets[{i}].stale_after_s", "a single lost poll would count as stale", ">= 2 * poll_s")
            )
    return found


def _names(config: Config) -> list[Problem]:
    tags, ids = [f.tag for f in config.feeds], [a.id for a in config.assets]
    found = [Problem("feeds", f"the tag {t!r} is used twice") for t in sorted({t for t in tags if tags.count(t) > 1})]
    found += [Problem("assets", f"the id {i!r} is used twice") for i in sorted({i for i in ids if ids.count(i) > 1})]
    clash = sorted({config.site.id, *tags} & set(ids)) + ([config.site.id] if config.site.id in tags else [])
    found += [
        Problem("assets", f"{name!r} names an asset and a feed or the site: an order could mean either")
        for name in clash
    ]
    for i, asset in enumerate(config.assets):
        if asset.feed not in tags:
            found.append(Problem(f"assets[{i}].feed", f"there is no feed {asset.feed!r}", ", ".join(tags)))
    meters = {a.id: a.feed for a in config.assets if a.kind is Kind.METER}
    for i, feed in enumerate(config.feeds):
        if meters.get(feed.meter) != feed.tag:
            on_feed = ", ".join(k for k, v in meters.items() if v == feed.tag) or "none is defined yet"
            found.append(Problem(f"feeds[{i}].meter", f"{feed.meter!r} is not a meter on this feed", on_feed))
    return found


def _grants(config: Config) -> list[Problem]:
    if config.grid is None:
        return []
    known = {"*", config.site.id, *(f.tag for f in config.feeds), *(a.id for a in config.assets)}
    found, kids = [], [k.kid for i in config.grid.issuers for k in i.keys]
    found += [
        Problem("grid.issuers", f"the kid {k!r} is pinned twice")
        for k in sorted({k for k in kids if kids.count(k) > 1})
    ]
    for i, issuer in enumerate(config.grid.issuers):
        for j, grant in enumerate(issuer.grants):
            if grant.resource not in known:
                found.append(
                    Problem(
                        f"grid.issuers[{i}].grants[{j}].resource",
                        f"there is no {grant.resource!r}",
                        ", ".join(sorted(known)),
                    )
                )
    return found


def _files(config: Config) -> list[Problem]:
    if config.grid is None:
        return []
    broker, found = config.grid.broker, []
    wanted = {"grid.signing.key_file": config.grid.signing.key_file}
    wanted |= {
        f"grid.broker.{k}": v
        for k in ("ca_file", "cert_file", "key_file", "password_file")
        if (v := getattr(broker, k))
    }
    wanted |= {
        f"grid.issuers[{i}].keys[{j}].public_key_file": key.public_key_file
        for i, issuer in enumerate(config.grid.issuers)
        for j, key in enumerate(issuer.keys)
    }
    found += [Problem(key, f"there is no readable file {file}") for key, file in wanted.items() if not file.is_file()]
    secrets = {
        k: v
        for k, v in wanted.items()
        if k in ("grid.signing.key_file", "grid.broker.key_file", "grid.broker.password_file")
    }
    found += [
        Problem(key, f"{file} can be read by others", "mode 0600")
        for key, file in secrets.items()
        if file.is_file() and file.stat().st_mode & 0o077
    ]
    return found
