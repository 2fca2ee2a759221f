"""How to reach a broker: the dispatcher's, or one that is only listened to."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vppd.config.grid import BrokerConfig
from vppd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How to reach the broker, and how patient to be."""

    host: str
    port: int
    client_id: str
    """Fixed, so that the broker keeps our session while we are away."""
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive_s: int = 10
    """A silent link is declared dead within one and a half times this. [s]"""
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    """With it the link is TLS."""
    cert_file: Path | None = None
    key_file: Path | None = None
    session_s: int = 86_400
    """The broker keeps unacknowledged commands for us this long. [s]"""
    unacknowledged: int = 64
    """Commands the broker may send before the first is acknowledged."""
    longest_payload: int = 16_384
    """What is longer is cut, and then refused as too large."""
    ack_timeout_s: float = 10.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 30.0
    leave_timeout_s: float = 2.0
    token: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """Returns the password of the moment; instead of ``password_file``."""
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    """How certificates are checked; made of the files where these are given."""

    def __post_init__(self) -> None:
        """Raise ConfigError when the certificates cannot be used or there is no client id."""
        if not self.client_id:
            raise ConfigError("the dispatch link needs a client_id of its own")
        if self.ca_file is not None:
            object.__setattr__(self, "tls", _tls(self.ca_file, self.cert_file, self.key_file))

    @property
    def quiet_s(self) -> int:
        """Return the keepalive to agree on: the client sends a ping after one of silence and gives up after another. [s]"""
        return max(2, (3 * self.keepalive_s - 2) // 4)

    def password(self) -> str | None:
        """Return the password as it is now. Raises ConfigError when it cannot be read."""
        if self.token is not None:
            return self.token()
        try:
            return self.password_file.read_text(encoding="utf-8").strip() if self.password_file else None
        except OSError as error:
            raise ConfigError(f"{self.password_file} cannot be read: {error.strerror}") from error


def reached(
    broker: BrokerConfig, client_id: str, *, backoff_most_s: float = 30.0, longest_payload: int = 16_384
) -> BrokerSettings:
    """Return how a broker of the configuration is reached. Raises ConfigError when its certificates cannot be used."""
    return BrokerSettings(
        host=broker.host,
        port=broker.port,
        client_id=client_id,
        protocol=broker.protocol,
        keepalive_s=broker.keepalive_s,
        username=broker.username,
        password_file=broker.password_file,
        ca_file=broker.ca_file,
        cert_file=broker.cert_file,
        key_file=broker.key_file,
        longest_payload=longest_payload,
        backoff_most_s=backoff_most_s,
    )


def _tls(ca_file: Path, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file))
        if cert_file is not None:
            context.load_cert_chain(str(cert_file), str(key_file) if key_file else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificates of the dispatch link cannot be used: {error}") from error
    return context
