"""JWS compact signatures, ES256 and RS256 only, by keys pinned to an issuer and an algorithm."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, RSAKey

from vppd.errors import ConfigError
from vppd.grid.reasons import Defect, Reason
from vppd.grid.strict_json import Json, parse_object

Algorithm = Literal["ES256", "RS256"]
ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "RS256")
_HEADER = {"alg", "kid", "typ", "cty"}
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_LEAST_RSA_BITS = 2048
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A public key that belongs to one issuer and works with one algorithm."""

    issuer: str
    kid: str
    alg: Algorithm
    key: ECKey | RSAKey

    @classmethod
    def from_pem(cls, issuer: str, kid: str, alg: Algorithm, pem: bytes) -> PinnedKey:
        """Return the key in ``pem``. Raises ConfigError when it does not fit the algorithm."""
        return cls(issuer, kid, alg, _import_key(kid, alg, pem))


@dataclass(frozen=True, slots=True)
class Verified:
    """A payload whose signature holds."""

    payload: bytes
    issuer: str
    kid: str
    digest: str
    """Digest of the signed data, the same for every way to write the same signature."""


class Signer:
    """Signs what we publish."""

    def __init__(self, kid: str, alg: Algorithm, key: ECKey | RSAKey) -> None:
        if not key.is_private:
            raise ConfigError(f"the signing key {kid!r} is a public key; a private key is needed")
        self._header, self._key, self._kid, self._alg = {"alg": alg, "kid": kid}, key, kid, alg

    @classmethod
    def from_pem(cls, kid: str, alg: Algorithm, pem: bytes) -> Signer:
        """Return a signer with the private key in ``pem``. Raises ConfigError when it does not fit the algorithm."""
        return cls(kid, alg, _import_key(kid, alg, pem))

    def sign(self, payload: bytes) -> str:
        """Return ``payload`` as JWS compact serialization."""
        return jws.serialize_compact(self._header, payload, self._key, algorithms=[self._alg])

    def public_jwks(self) -> dict[str, Json]:
        """Return the JWK set that verifies our messages; it holds no secret."""
        key = {k: v for k, v in self._key.as_dict(private=False).items() if isinstance(v, str)}
        return {"keys": [{**key, "kid": self._kid, "alg": self._alg, "use": "sig"}]}


class KeyRing:
    """The pinned keys, by kid."""

    def __init__(self, keys: Iterable[PinnedKey]) -> None:
        self._keys: dict[str, PinnedKey] = {}
        for key in keys:
            if key.kid in self._keys:
                raise ConfigError(f"the kid {key.kid!r} is pinned twice")
            self._keys[key.kid] = key

    def verify(self, token: str, issuer: str) -> Verified:
        """Return the payload of a JWS that ``issuer`` signed. Raises Defect with the reason when it did not."""
        header, payload, signature = _segments(token)
        kid, alg = _read_header(header)
        pinned = self._keys.get(kid)
        if pinned is None:
            raise Defect(Reason.UNKNOWN_KEY, f"the key {kid[:64]!r} is not pinned here")
        if pinned.issuer != issuer:
            raise Defect(Reason.ISSUER_MISMATCH, f"the key {kid!r} does not belong to issuer {issuer!r}")
        if pinned.alg != alg:
            raise Defect(Reason.BAD_ALGORITHM, f"the key {kid!r} is pinned to {pinned.alg}, not {alg}")
        if not _holds(token, pinned):
            raise Defect(Reason.BAD_SIGNATURE, "the signature does not fit the data")
        return Verified(payload, issuer, kid, _digest(token, alg, signature))


def read_jwks(issuer: str, jwks: dict[str, Json]) -> tuple[PinnedKey, ...]:
    """Return the ES256 and RS256 keys of a JWK set as pinned keys of ``issuer``. Raises ConfigError for any other."""
    entries = jwks.get("keys")
    if not isinstance(entries, list):
        raise ConfigError("a JWK set is an object with a list of keys")
    return tuple(_read_jwk(issuer, entry) for entry in entries)


def _read_jwk(issuer: str, entry: Json) -> PinnedKey:
    given = entry if isinstance(entry, dict) else {}
    words: dict[str, str | list[str]] = {k: v for k, v in given.items() if isinstance(v, str)}
    kid = words.get("kid")
    if not isinstance(kid, str) or words.get("alg") not in ALGORITHMS:
        raise ConfigError("a key of the JWK set lacks kid, or its alg is neither ES256 nor RS256")
    alg: Algorithm = "ES256" if words["alg"] == "ES256" else "RS256"
    try:
        key = (ECKey if alg == "ES256" else RSAKey).import_key(words)
    except (JoseError, ValueError) as error:
        raise ConfigError(f"the key {kid!r} of the JWK set cannot be read: {error}") from error
    return PinnedKey.from_pem(issuer, kid, alg, key.as_pem(private=False))


def _import_key(kid: str, alg: Algorithm, pem: bytes) -> ECKey | RSAKey:
    kind: type[ECKey] | type[RSAKey] = ECKey if alg == "ES256" else RSAKey
    try:
        with warnings.catch_warnings(action="ignore", category=SecurityWarning):  # a short key is refused below
            key = kind.import_key(pem)
    except (JoseError, ValueError, TypeError) as error:
        raise ConfigError(f"the key {kid!r} is not a PEM key for {alg}") from error
    if isinstance(key, ECKey) and key.curve_name != "P-256":
        raise ConfigError(f"the key {kid!r} is on {key.curve_name}; ES256 needs P-256")
    if isinstance(key, RSAKey) and key.raw_value.key_size < _LEAST_RSA_BITS:
        raise ConfigError(f"the key {kid!r} has {key.raw_value.key_size} bits; RS256 needs {_LEAST_RSA_BITS} or more")
    return key


def _segments(token: str) -> tuple[bytes, bytes, bytes]:
    parts = token.split(".")
    if len(parts) != 3:
        raise Defect(Reason.BAD_SIGNATURE, "data is not a JWS in compact serialization")
    header, payload, signature = (_decode(part) for part in parts)
    return header, payload, signature


def _decode(segment: str) -> bytes:
    """Refuse every spelling but the canonical one: the unused last bits could carry a second form of one signature."""
    if not _SEGMENT.fullmatch(segment) or len(segment) % 4 == 1:
        raise Defect(Reason.BAD_SIGNATURE, "data is not a JWS in compact serialization")
    raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != segment:
        raise Defect(Reason.BAD_SIGNATURE, "data is not canonical base64url")
    return raw


def _read_header(raw: bytes) -> tuple[str, Algorithm]:
    header = parse_object(raw)
    alg, kid = header.get("alg"), header.get("kid")
    refused = sorted(set(header) - _HEADER)
    if refused:
        raise Defect(Reason.MALFORMED, f"the JWS header parameter {refused[0][:40]!r} is not allowed")
    if alg not in ALGORITHMS:
        raise Defect(Reason.BAD_ALGORITHM, "the JWS algorithm must be ES256 or RS256")
    if not isinstance(kid, str) or not kid:
        raise Defect(Reason.UNKNOWN_KEY, "the JWS header names no kid")
    return kid, "ES256" if alg == "ES256" else "RS256"


def _holds(token: str, pinned: PinnedKey) -> bool:
    try:
        jws.deserialize_compact(token, pinned.key, algorithms=[pinned.alg])
    except (JoseError, ValueError):
        return False
    return True


def _digest(token: str, alg: Algorithm, signature: bytes) -> str:
    """Whoever holds an ECDSA signature (r, s) can also write (r, n - s): both must count as the same signed data."""
    if alg == "ES256":
        half, s = len(signature) // 2, int.from_bytes(signature[len(signature) // 2 :], "big")
        signature = signature[:half] + min(s, _P256_ORDER - s).to_bytes(half, "big")
    return hashlib.sha256(token.rpartition(".")[0].encode() + b"." + signature).hexdigest()
