"""What ``[openadr]`` means to the link: agreed terms, how certificates are checked, the secret, and what is wrong with it."""

from __future__ import annotations

import ssl
from datetime import timedelta

from vppd.config.load import Config
from vppd.config.openadr import OpenAdrConfig
from vppd.config.table import Problem
from vppd.errors import ConfigError
from vppd.grid.openadr3.payloads import Terms
from vppd.grid.site import EVERYTHING, Grant, Site


def terms_of(config: OpenAdrConfig, site: Site) -> Terms:
    """Return what has been agreed, in terms of this site."""
    grants = tuple(
        Grant(g.resource, frozenset(g.kinds), g.max_power_w, g.min_power_w, g.max_duration_s) for g in config.grants
    )
    return Terms(
        issuer=config.issuer,
        site=site,
        grants=grants,
        targets=config.targets,
        relative=config.relative,
        assume_units=config.assume_units,
        simple_w=config.simple_w,
        emergency_limit_w=config.emergency_limit_w,
        fallback_limit_w=config.fallback_limit_w,
        horizon=timedelta(hours=config.horizon_h),
    )


def tls_of(config: OpenAdrConfig) -> ssl.SSLContext:
    """Return how certificates are checked. Raises ConfigError when ours cannot be used."""
    try:
        context = ssl.create_default_context(cafile=str(config.ca_file) if config.ca_file else None)
        if config.cert_file is not None:
            context.load_cert_chain(str(config.cert_file), str(config.key_file) if config.key_file else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificates of the OpenADR link cannot be used: {error}") from error
    return context


def secret_of(config: OpenAdrConfig) -> str:
    """Return the client secret as the file has it now. Raises ConfigError when it cannot be read."""
    try:
        return config.client_secret_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config.client_secret_file} cannot be read: {error}") from error


def openadr_problems(config: Config, openadr: OpenAdrConfig) -> tuple[Problem, ...]:
    """Return what is wrong with names and files: what refers to nothing would fail silently, order by order."""
    return (*_names(config, openadr), *_files(openadr))


def _names(config: Config, openadr: OpenAdrConfig) -> list[Problem]:
    names = sorted({config.site.id, *(f.tag for f in config.feeds), *(a.id for a in config.assets)})
    known, found = ", ".join(names), []
    if config.grid is not None and openadr.issuer in {issuer.id for issuer in config.grid.issuers}:
        said = f"{openadr.issuer!r} is one of [[grid.issuers]]: a release of the one would free the other's orders"
        found.append(Problem("openadr.issuer", said, "a name of its own"))
    for theirs, ours in openadr.targets.items():
        if ours not in names:
            found.append(Problem(f"openadr.targets.{theirs}", f"there is no {ours!r}", known))
    for i, grant in enumerate(openadr.grants):
        if grant.resource not in (EVERYTHING, *names):
            found.append(Problem(f"openadr.grants[{i}].resource", f"there is no {grant.resource!r}", f"*, {known}"))
    return found


def _files(openadr: OpenAdrConfig) -> list[Problem]:
    secrets = {"client_secret_file": openadr.client_secret_file, "key_file": openadr.key_file}
    wanted = {**secrets, "ca_file": openadr.ca_file, "cert_file": openadr.cert_file}
    found = [
        Problem(f"openadr.{key}", f"there is no readable file {file}")
        for key, file in wanted.items()
        if file is not None and not file.is_file()
    ]
    found += [
        Problem(f"openadr.{key}", f"{file} can be read by others", "mode 0600")
        for key, file in secrets.items()
        if file is not None and file.is_file() and file.stat().st_mode & 0o077
    ]
    return found or _contents(openadr)


def _contents(openadr: OpenAdrConfig) -> list[Problem]:
    found = []
    try:
        if not secret_of(openadr):
            found.append(Problem("openadr.client_secret_file", f"{openadr.client_secret_file} is empty"))
    except ConfigError as error:
        found.append(Problem("openadr.client_secret_file", str(error)))
    try:
        tls_of(openadr)
    except ConfigError as error:
        found.append(Problem("openadr", str(error), "certificates and keys in PEM, made for each other"))
    return found
