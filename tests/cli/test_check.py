"""``vppd check`` and ``vppd adapters`` as an operator runs them: every mistake at once, with file, key, reason and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.grid.dispatcher import Key

VPPD = str(Path(sys.executable).with_name("vppd"))
GOOD = """
[site]
id = "dc1"
agent_id = "dc1-agent"
import_max_w = 1e6

[[feeds]]
tag = "main-a"
meter = "poi-a"
import_max_w = 1e6

[[assets]]
id = "poi-a"
kind = "meter"
feed = "main-a"
adapter = "modbus-sunspec"
connection = { host = "127.0.0.1", port = 502 }

[grid.broker]
host = "broker.example.com"
insecure_lab = true

[grid.signing]
kid = "dc1-1"
key_file = "sign.pem"

[[grid.issuers]]
id = "tso"

[[grid.issuers.keys]]
kid = "tso-1"
alg = "ES256"
public_key_file = "tso.pem"

[[grid.issuers.grants]]
resource = "*"
kinds = ["limit"]
max_power_w = 1e6
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good configuration with its keys."""
    (tmp_path / "tso.pem").write_bytes(Key("tso-1").public_pem())
    (tmp_path / "sign.pem").write_bytes(Key("dc1-1").private_pem())
    (tmp_path / "sign.pem").chmod(0o600)
    path = tmp_path / "vppd.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def checked(path: Path, *changes: tuple[str, str]) -> tuple[int, list[str]]:
    """Return the status of ``vppd check`` and its lines, after changes to the file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    if changes:
        path.write_text(text, encoding="utf-8")
    done = subprocess.run([VPPD, "check", str(path)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_a_good_file_is_said_to_be_good(file: Path) -> None:
    """Status 0 and one line of what is in it."""
    status, lines = checked(file)
    assert status == 0
    assert lines == [f"{file}: good. Site dc1: 1 feeds, 1 assets, 1 issuers."]


def test_every_mistake_is_told_at_once(file: Path) -> None:
    """Values, references, adapters' settings and keys: one run shows them all, each with its place and what is allowed."""
    (file.parent / "tso.pem").write_text("nonsense", encoding="utf-8")
    status, lines = checked(
        file,
        ('agent_id = "dc1-agent"', 'agent_id = "dc1-agent"\ncycle_s = 0.001\nspeed = 3'),
        ('host = "127.0.0.1", port = 502', 'host = "127.0.0.1", port = 99999, baud = 9600'),
        ('meter = "poi-a"', 'meter = "poi-z"'),
        ('resource = "*"', 'resource = "main-q"'),
        ("sign.pem", "gone.pem"),
    )
    assert status == 2
    assert all(line.startswith(f"{file}: ") for line in lines)
    told = {line.removeprefix(f"{file}: ").partition(":")[0]: line for line in lines}
    assert set(told) == {
        "site.cycle_s",
        "site.speed",
        "assets[0].connection.port",
        "assets[0].connection.baud",
        "feeds[0].meter",
        "grid.issuers[0].grants[0].resource",
        "grid.issuers[0].keys[0].public_key_file",
        "grid.signing.key_file",
    }
    assert "allowed: >= 0.1" in told["site.cycle_s"]
    assert "allowed: poi-a" in told["feeds[0].meter"]
    assert "dc1, main-a, poi-a" in told["grid.issuers[0].grants[0].resource"]
    assert "a PEM public key for ES256" in told["grid.issuers[0].keys[0].public_key_file"]


@pytest.mark.parametrize(
    ("change", "key", "allowed"),
    [
        (('adapter = "modbus-sunspec"', 'adapter = "modbus-moon"'), "assets[0].adapter", "modbus-profile"),
        (('kind = "meter"', 'kind = "metre"'), "assets[0].kind", "'meter', 'battery', 'ups'"),
        (('alg = "ES256"', 'alg = "RS256"'), "grid.issuers[0].keys[0].public_key_file", "a PEM public key for RS256"),
        (('alg = "ES256"', 'alg = "none"'), "grid.issuers[0].keys[0].alg", "'ES256' or 'RS256'"),
        (("import_max_w = 1e6\n\n[[feeds", "import_max_w = 1e6\nlease_s = 4\n\n[[feeds"), "site.lease_s", "= 5.0"),
        (("insecure_lab = true", "insecure_lab = false"), "grid.broker", "ca_file"),
        (('id = "tso"', 'id = "t/so"'), "grid.issuers[0].id", "A-Za-z0-9"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_of_mistake_says_what_is_allowed(file: Path, change: tuple[str, str], key: str, allowed: str) -> None:
    """The key is named as it is written in the file, with what would be right."""
    status, lines = checked(file, change)
    assert status == 2
    assert any(line.startswith(f"{file}: {key}: ") and allowed in line for line in lines), lines


def test_what_is_no_configuration_at_all_is_told(file: Path) -> None:
    """No TOML and no file: one line and status 2, no traceback."""
    status, lines = checked(file, ("[site]", "[site"))
    assert (status, len(lines)) == (2, 1)
    assert "not valid TOML" in lines[0]
    status, lines = checked(file.with_name("missing.toml"))
    assert (status, len(lines)) == (2, 1)
    assert "cannot be read" in lines[0]


def test_a_key_that_others_can_read_is_refused(file: Path) -> None:
    """The signing key is a secret: mode 0600."""
    (file.parent / "sign.pem").chmod(0o644)
    status, lines = checked(file)
    assert status == 2
    assert "mode 0600" in lines[0]
