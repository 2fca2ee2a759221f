"""``vppd.toml`` as frozen values: every mistake is found before anything starts, and all of them at once."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from vppd.errors import ConfigError
from vppd.model import Kind, OrderKind

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
STORAGE = (Kind.BATTERY, Kind.UPS)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what is wrong, what would be right."""

    key: str
    reason: str
    allowed: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" + (f" (allowed: {self.allowed})" if self.allowed else "")


class InvalidConfig(ConfigError):
    """A configuration file with all its mistakes."""

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        self.path, self.problems = path, problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class Table(BaseModel):
    """A TOML table: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SiteConfig(Table):
    """``[site]``: the plant as a whole and its timing."""

    id: Name
    agent_id: Name
    state_dir: Path = Path("/var/lib/vppd")
    socket: Path = Path("/run/vppd/vppd.sock")
    cycle_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    io_timeout_s: PositiveFloat = 2.0
    lease_s: Annotated[float, Field(ge=1.0, le=3600.0)] = 30.0
    margin_frac: Annotated[float, Field(ge=0.0, le=0.2)] = 0.01
    ramp_down_w_per_s: PositiveFloat = 50_000.0
    ramp_up_w_per_s: PositiveFloat = 20_000.0
    import_max_w: PositiveFloat
    export_max_w: NonNegative = 0.0
    link_lost_after_s: PositiveFloat = 15.0
    telemetry_s: PositiveFloat = 2.0
    heartbeat_s: PositiveFloat = 30.0
    require_synchronised_clock: bool = True
    """Refuse orders while the kernel does not hold its clock for synchronised; false only in a lab."""
    record: bool = True
    """Record every decision for ``vppd replay``."""
    record_keep_days: PositiveFloat = 7.0


class FeedConfig(Table):
    """``[[feeds]]``: a supply path with a meter and a limit of its own."""

    tag: Name
    meter: Name
    import_max_w: PositiveFloat
    export_max_w: NonNegative = 0.0
    power_minimum_w: NonNegative = 0.0


class CurtailConfig(Table):
    """``[assets.curtail]``: how the planner treats a cluster's jobs."""

    window_s: PositiveFloat = 3600.0
    """In every window of this length a job is slowed no more than its tier accepts."""
    margin_frac: Annotated[float, Field(ge=0.0, le=0.2)] = 0.01
    ramp_s: PositiveFloat = 30.0
    """What jobs are told has to show in their power by then."""
    restore_s: PositiveFloat = 15.0
    """Power that was held comes back over no less than this."""


class AssetConfig(Table):
    """``[[assets]]``: one controllable or measurable thing."""

    id: Name
    kind: Kind
    feed: Name
    adapter: str
    connection: dict[str, Any] = Field(default_factory=dict)
    control: bool = True
    """False: watch only."""
    poll_s: PositiveFloat = 1.0
    stale_after_s: PositiveFloat = 10.0
    rated_charge_w: NonNegative = 0.0
    rated_discharge_w: NonNegative = 0.0
    capacity_wh: NonNegative = 0.0
    reserve_frac: Fraction = 0.0
    soc_target_frac: Fraction = 0.9
    efficiency_frac: Annotated[float, Field(gt=0.0, le=1.0)] = 0.96
    wear_cost_per_wh: NonNegative = 3e-5
    rated_w: NonNegative = 0.0
    """Nameplate of anything that is not storage: most consumption, or most generation of PV, wind and gensets. [W]"""
    min_w: NonNegative = 0.0
    """Consumption a cluster or load is never pushed below. [W]"""
    min_running_frac: Fraction = 0.0
    """Storage and inverters: cannot run between 0 and this part of the rating."""
    ramp_w_per_s: PositiveFloat | None = None
    local_response: bool = False
    """Storage: answers to the frequency it measures itself, once armed (products of FFR and FCR kind)."""
    tier_cost_per_wh: tuple[float, float, float, float] = (1.0, 3e-4, 1.5e-4, 8e-5)
    curtail_cost_per_wh: NonNegative = 1e-4
    """What a curtailed Wh of PV or wind costs. [1/Wh]"""
    curtail: CurtailConfig = CurtailConfig()
    tolerance_w: PositiveFloat | None = None
    """Read-back within this is a confirmation; default 2 % of the rating."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind in STORAGE and self.control and not (self.capacity_wh and self.rated_discharge_w):
            raise ValueError("storage that is controlled needs capacity_wh and rated_discharge_w greater than 0")
        if self.kind in (Kind.CLUSTER, Kind.PV, Kind.WIND, Kind.GENSET) and not self.rated_w:
            raise ValueError(f"a {self.kind} needs rated_w greater than 0")
        if self.kind in STORAGE and self.soc_target_frac < self.reserve_frac:
            raise ValueError("soc_target_frac must not be below reserve_frac")
        return self


class BrokerConfig(Table):
    """``[grid.broker]``: the dispatcher's broker."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    keepalive_s: Annotated[int, Field(ge=2, le=600)] = 10
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure_lab: bool = False
    """Allow a plaintext broker; never in production."""

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.ca_file is None and not self.insecure_lab:
            raise ValueError("a broker without TLS is refused: give ca_file, or insecure_lab = true in a lab")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        return self


class SigningConfig(Table):
    """``[grid.signing]``: the key that signs what we publish."""

    kid: str
    alg: Literal["ES256", "RS256"] = "ES256"
    key_file: Path


class KeyConfig(Table):
    """``[[grid.issuers.keys]]``: a pinned public key of an issuer."""

    kid: str
    alg: Literal["ES256", "RS256"]
    public_key_file: Path


class GrantConfig(Table):
    """``[[grid.issuers.grants]]``: what an issuer may order; nothing is allowed without one."""

    resource: str
    kinds: tuple[OrderKind, ...]
    min_power_w: NonNegative = 0.0
    max_power_w: NonNegative
    max_duration_s: PositiveFloat | None = None


class IssuerConfig(Table):
    """``[[grid.issuers]]``: somebody who may send orders."""

    id: Name
    keys: tuple[KeyConfig, ...] = Field(min_length=1)
    grants: tuple[GrantConfig, ...] = ()


class GridConfig(Table):
    """``[grid]``: the dispatch interface."""

    broker: BrokerConfig
    signing: SigningConfig
    issuers: tuple[IssuerConfig, ...] = ()
    max_age_s: PositiveFloat = 900.0
    """A command whose envelope is older is expired."""


class HttpConfig(Table):
    """``[http]``: the read-only API."""

    listen: Annotated[str, Field(pattern=r"^[^:]+:\d+$")] = "127.0.0.1:8080"


class Config(Table):
    """A whole ``vppd.toml``."""

    site: SiteConfig
    feeds: tuple[FeedConfig, ...] = Field(min_length=1)
    assets: tuple[AssetConfig, ...] = Field(min_length=1)
    grid: GridConfig | None = None
    http: HttpConfig | None = None
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


def problems_of(error: ValidationError, prefix: str = "") -> tuple[Problem, ...]:
    """Return pydantic's findings in our words."""
    return tuple(_problem(entry, prefix) for entry in error.errors(include_url=False))


def _problem(entry: Any, prefix: str) -> Problem:
    key = prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]).lstrip(".")
    context = entry.get("ctx") or {}
    allowed = str(context["expected"]) if "expected" in context else ""
    if entry["type"] == "extra_forbidden":
        return Problem(key, "unknown key", "see config/vppd.example.toml for the keys there are")
    limits = [
        f"{word} {context[k]}" for k, word in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")) if k in context
    ]
    limits += [f"what matches {context['pattern']}"] if "pattern" in context else []
    return Problem(key or "-", entry["msg"], allowed or ", ".join(limits))


_PATH_KEYS = ("state_dir", "socket", "key_file", "public_key_file", "ca_file", "cert_file", "password_file")


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
    return [*_names(config), *_grants(config), *_files(config)]


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
