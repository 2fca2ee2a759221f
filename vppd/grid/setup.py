"""The dispatch interface of a configuration."""

from __future__ import annotations

from vppd.config.grid import GridConfig, IssuerConfig, KeyConfig
from vppd.config.load import Config
from vppd.config.table import Problem
from vppd.errors import ConfigError
from vppd.grid.broker import BrokerSettings, reached
from vppd.grid.envelope import Sender
from vppd.grid.ids import RandomIds
from vppd.grid.reporter import FeedTerms
from vppd.grid.signing import KeyRing, PinnedKey, Signer
from vppd.grid.site import Grant, Registry, Rules, Site

RECONNECT_MOST_S = 5.0
"""A broker that is back is found again within this. [s]"""


def site_of(config: Config) -> Site:
    """Return the names an order may use."""
    return Site(
        config.site.id, config.site.agent_id, tuple(f.tag for f in config.feeds), tuple(a.id for a in config.assets)
    )


def registry_of(config: Config, grid: GridConfig) -> Registry:
    """Return who may order what, with the pinned keys read from their files. Raises ConfigError."""
    keys = KeyRing(
        PinnedKey.from_pem(issuer.id, key.kid, key.alg, key.public_key_file.read_bytes())
        for issuer in grid.issuers
        for key in issuer.keys
    )
    rules = Rules(max_age_s=grid.max_age_s, awards_from=config.market.issuer if config.market else "")
    return Registry(site_of(config), keys, {i.id: _grants(i) for i in grid.issuers}, rules)


def grid_problems(config: Config, grid: GridConfig) -> tuple[Problem, ...]:
    """Return what is wrong with the market's name and the contents of keys; files that are not there are told elsewhere."""
    found = [
        problem
        for i, issuer in enumerate(grid.issuers)
        for j, key in enumerate(issuer.keys)
        if (problem := _key_problem(issuer, key, f"grid.issuers[{i}].keys[{j}].public_key_file"))
    ]
    if grid.signing.key_file.is_file():
        try:
            sender_of(config, grid)
        except ConfigError as error:
            allowed = f"a PEM private key for {grid.signing.alg}"
            found.append(Problem("grid.signing.key_file", str(error), allowed))
    certificates = (grid.broker.ca_file, grid.broker.cert_file, grid.broker.key_file)
    if all(file.is_file() for file in certificates if file is not None):
        try:
            broker_of(config, grid)
        except ConfigError as error:
            found.append(Problem("grid.broker", str(error), "certificates and keys in PEM, made for each other"))
    return tuple(found)


def _key_problem(issuer: IssuerConfig, key: KeyConfig, where: str) -> Problem | None:
    try:
        if key.public_key_file.is_file():
            PinnedKey.from_pem(issuer.id, key.kid, key.alg, key.public_key_file.read_bytes())
    except OSError as error:
        return Problem(where, f"{key.public_key_file} cannot be read: {error.strerror}")
    except ConfigError as error:
        return Problem(where, f"{key.public_key_file}: {error}", f"a PEM public key for {key.alg}")
    return None


def _grants(issuer: IssuerConfig) -> tuple[Grant, ...]:
    return tuple(
        Grant(g.resource, frozenset(g.kinds), g.max_power_w, g.min_power_w, g.max_duration_s) for g in issuer.grants
    )


def sender_of(config: Config, grid: GridConfig) -> Sender:
    """Return what signs our messages. Raises ConfigError when the key does not fit."""
    signing = grid.signing
    try:
        pem = signing.key_file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{signing.key_file} cannot be read: {error.strerror}") from error
    return Sender(config.site.id, config.site.agent_id, Signer.from_pem(signing.kid, signing.alg, pem), RandomIds())


def broker_of(config: Config, grid: GridConfig) -> BrokerSettings:
    """Return how the broker is reached. Raises ConfigError when its certificates cannot be used."""
    client_id = grid.broker.client_id or f"vppd-{config.site.id}"
    return reached(grid.broker, client_id, backoff_most_s=RECONNECT_MOST_S)


def feed_terms(config: Config) -> tuple[FeedTerms, ...]:
    """Return what the power state says of each feed whatever happens."""
    return tuple(FeedTerms(f.tag, f.power_minimum_w, f.import_max_w) for f in config.feeds)
