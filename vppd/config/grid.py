"""``[grid]``: the dispatcher's broker, our key, and who may order what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from vppd.config.table import Name, NonNegative, Table
from vppd.model import OrderKind


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
