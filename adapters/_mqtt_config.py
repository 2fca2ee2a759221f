"""``[assets.connection]`` of an MQTT device: where its broker is."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from vppd.errors import ConfigError


class MqttConfig(BaseModel):
    """Where a device's broker is and who we are to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    """Empty: the broker chooses one."""
    keepalive_s: Annotated[int, Field(ge=2, le=600)] = 10
    timeout_s: PositiveFloat = 1.5
    """For connecting, subscribing and publishing, each."""
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    """Given: the link is TLS, and the broker is checked against these authorities."""
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.cert_file is not None and self.ca_file is None:
            raise ValueError("cert_file needs ca_file")
        if self.password_file is not None and not self.username:
            raise ValueError("password_file needs username")
        return self


def tls_context(config: MqttConfig) -> ssl.SSLContext | None:
    """Return what TLS needs, None for a plain link. Raises ConfigError."""
    if config.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as error:
        raise ConfigError(f"{config.host}: the TLS files cannot be used: {error}") from error
    return context


def password(config: MqttConfig) -> str | None:
    """Return the password, None for none. Raises ConfigError."""
    if config.password_file is None:
        return None
    try:
        return config.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"password_file: {config.password_file}: {error.strerror}") from error
