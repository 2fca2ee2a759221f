"""Key pairs for a trial run: one for the dispatcher, one for the daemon. Never for production."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from vppd.errors import ConfigError
from vppd.grid.signing import Signer


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ES256 key pair on disk."""

    kid: str
    private: Path
    public: Path

    def signer(self) -> Signer:
        """Return a signer with the private key."""
        return Signer.from_pem(self.kid, "ES256", self.private.read_bytes())


def key_pair(folder: Path, name: str, kid: str) -> KeyPair:
    """Return the key pair ``name`` in ``folder``; it is made when it is not there, the private key for the owner's eyes only."""
    pair = KeyPair(kid, folder / f"{name}.key.pem", folder / f"{name}.pub.pem")
    if not pair.private.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        _write(pair.private, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(pair.private.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{pair.private} is not an elliptic-curve key")
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair


def write_jwks(pair: KeyPair, path: Path) -> None:
    """Write the JWK set that verifies what the pair signs."""
    path.write_text(json.dumps(pair.signer().public_jwks(), indent=2) + "\n", encoding="utf-8")


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
