"""Whom to take for a BMC: by authority, by the fingerprint of its certificate, or anybody at all."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

from vppd.errors import ConfigError


def by_authority(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that accepts what these authorities vouch for. Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"ca_file: {ca_file} cannot be used: {error}") from error


def by_fingerprint(sha256: str) -> ssl.SSLContext:
    """Return a context that accepts one certificate, judged before anything is sent through the connection."""
    wanted = sha256.replace(":", "").lower()

    class Pinned(ssl.SSLObject):
        """A connection that ends with its handshake when the certificate is another one."""

        def do_handshake(self) -> None:
            """Shake hands. Raises SSLCertVerificationError."""
            super().do_handshake()
            shown = hashlib.sha256(self.getpeercert(binary_form=True) or b"").hexdigest()
            if shown != wanted:
                raise ssl.SSLCertVerificationError(f"its certificate's fingerprint is {shown}")

    context = anybody()
    context.sslobject_class = Pinned
    return context


def anybody() -> ssl.SSLContext:
    """Return a context that accepts every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without authorities: to load them takes 10 ms, for each BMC
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
