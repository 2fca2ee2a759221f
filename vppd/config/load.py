"""``vppd.toml`` as frozen values: every mistake is found before anything starts, and all of them at once."""

from __future__ import annotations

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
from vppd.config.references import grant_problems, grid_file_problems, name_problems, wiring_problems
from vppd.config.table import InvalidConfig, Problem, Table, problems_of
from vppd.config.toml_file import content_of


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
    raw = _resolve(content_of(path), path.parent)
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
    site, feeds, assets, grid = config.site, config.feeds, config.assets, config.grid
    found = name_problems(site.id, feeds, assets) + wiring_problems(feeds, assets)
    if grid is not None:
        names = (site.id, *(feed.tag for feed in feeds), *(asset.id for asset in assets))
        found += grant_problems(grid, names) + grid_file_problems(grid)
    return [*found, *_planned(config), *_sold(config)]


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
    return found


def _sold(config: Config) -> list[Problem]:
    """Return what selling lacks: a plan, a broker, and somebody who may award."""
    market, grid, found = config.market, config.grid, []
    if market is None:
        return []
    if config.planning is None:
        found.append(Problem("market", "nothing can be sold without a plan", "a table [planning]"))
    if grid is None:
        return [*found, Problem("market", "offers go out over the dispatcher's broker", "a table [grid]")]
    known = [issuer.id for issuer in grid.issuers]
    if market.issuer not in known:
        reason = f"there is no issuer {market.issuer!r}: nobody could award"
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
