"""Keys: what fits, what is refused before anything starts."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.grid.dispatcher import Key, b64
from tests.grid.plant import key, pinned
from vppd.errors import ConfigError
from vppd.grid.reasons import Defect, Reason
from vppd.grid.signing import Algorithm, KeyRing, PinnedKey, Signer, read_jwks
from vppd.grid.strict_json import Json


def _pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_what_we_sign_others_can_verify(alg: Algorithm) -> None:
    """Our own JWS verifies by the exported JWK set and by the public key."""
    pair = Key("k", alg)
    signer = Signer.from_pem("k", alg, pair.private_pem())
    token = signer.sign(b'{"a":1}')
    for keys in (read_jwks("us", signer.public_jwks()), (PinnedKey.from_pem("us", "k", alg, pair.public_pem()),)):
        assert KeyRing(keys).verify(token, "us").payload == b'{"a":1}'


@pytest.mark.parametrize(
    ("alg", "pem"),
    [
        pytest.param("ES256", b"junk", id="junk"),
        pytest.param("ES256", _pem(ec.generate_private_key(ec.SECP384R1())), id="other curve"),
        pytest.param("RS256", _pem(rsa.generate_private_key(65537, 1024)), id="short RSA key"),
        pytest.param("RS256", _pem(ec.generate_private_key(ec.SECP256R1())), id="EC key for RS256"),
        pytest.param("ES256", _pem(rsa.generate_private_key(65537, 2048)), id="RSA key for ES256"),
    ],
)
def test_a_key_that_does_not_fit_is_a_configuration_error(alg: Algorithm, pem: bytes) -> None:
    """Weak, wrong and unreadable keys stop the start."""
    with pytest.raises(ConfigError):
        PinnedKey.from_pem("tso", "k", alg, pem)


def test_a_public_key_cannot_sign() -> None:
    """The signing key must be private."""
    with pytest.raises(ConfigError, match="private"):
        Signer.from_pem("k", "ES256", key("tso-1").public_pem())


def test_a_kid_is_pinned_once() -> None:
    """Two issuers cannot share a kid."""
    with pytest.raises(ConfigError, match="twice"):
        KeyRing((pinned("tso", "tso-1"), pinned("agg", "tso-1")))


def test_a_second_spelling_of_a_signature_is_refused() -> None:
    """The unused last bits of base64url must be zero, or one signature would have several texts."""
    text, _, signature = key("tso-1").jws({}).rpartition(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = signature[:-1] + alphabet[alphabet.index(signature[-1]) + 1]
    with pytest.raises(Defect) as found:
        KeyRing((pinned("tso", "tso-1"),)).verify(f"{text}.{twin}", "tso")
    assert found.value.reason is Reason.BAD_SIGNATURE


def test_duplicate_header_parameters_are_refused() -> None:
    """A header that names two algorithms names none."""
    pair = key("tso-1")
    head = b64(b'{"alg":"none","alg":"ES256","kid":"tso-1"}')
    text = head + "." + b64(b"{}")
    with pytest.raises(Defect) as found:
        KeyRing((pinned("tso", "tso-1"),)).verify(f"{text}.{b64(pair.signature(text.encode()))}", "tso")
    assert found.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": 1},
        {"keys": [1]},
        {"keys": [{"kid": "a", "alg": "HS256"}]},
        {"keys": [{"kid": "a", "alg": "ES256"}]},
    ],
)
def test_a_bad_key_set_is_a_configuration_error(jwks: dict[str, Json]) -> None:
    """A JWK set with anything but ES256 and RS256 keys is refused."""
    with pytest.raises(ConfigError):
        read_jwks("x", jwks)
