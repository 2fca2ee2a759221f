"""``agent.toml``: the example is good, and every mistake is told with its key."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tests.support import ROOT
from vppd.agent.config import load
from vppd.config.table import InvalidConfig

EXAMPLE = ROOT / "config" / "agent.example.toml"
BROKER = '[broker]\nhost = "b"\ninsecure_lab = true\n'


def written(folder: Path, text: str) -> Path:
    """Return a configuration file with this text."""
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_little_is_enough(tmp_path: Path) -> None:
    """Site and broker are all that must be said; the node is the host, files are found beside the configuration."""
    config = load(written(tmp_path, f'site = "dc1"\nstate_dir = "state"\n{BROKER}'))
    assert config.node == platform.node()
    assert config.state_dir == tmp_path / "state"
    assert config.gpus.control
    assert not config.cpus.control


def test_the_example_is_good(tmp_path: Path) -> None:
    """The commented example is a configuration; every key in it, also those behind a #, is known."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    bare = [line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in lines]
    for file in ("broker-ca.crt", "agent-mqtt.crt", "mqtt.key", "mqtt.password"):
        (tmp_path / file).write_text("x", encoding="utf-8")
        (tmp_path / file).chmod(0o600)
    for text in ("\n".join(lines), "\n".join(bare)):
        here = text.replace("/run/credentials/vppd-agent.service", "/etc/vppd").replace("/etc/vppd", str(tmp_path))
        assert load(written(tmp_path, here)).restore_spread_s == 10.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'site = "dc1"\nfloor = 1\n{BROKER}', "floor: .*agent.example.toml"),
        (f'site = "a/b"\n{BROKER}', "site: "),
        (f'site = "dc1"\ncap_floor_frac = 1.5\n{BROKER}', "cap_floor_frac: .*<= 1.0"),
        ('site = "dc1"\n[broker]\nhost = "b"\n', "without TLS is refused"),
        (f'site = "dc1"\n{BROKER}cert_file = "c"\n', "belong together"),
        (f'site = "dc1"\n{BROKER}ca_file = "none"\n', r"broker\.ca_file: there is no readable file"),
        ("site =", "not valid TOML"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong is said with the key and what is allowed."""
    with pytest.raises(InvalidConfig, match=said):
        load(written(tmp_path, text))


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The password's file must be its owner's alone."""
    (tmp_path / "word").write_text("x", encoding="utf-8")
    (tmp_path / "word").chmod(0o644)
    with pytest.raises(InvalidConfig, match="can be read by others"):
        load(written(tmp_path, f'site = "dc1"\n{BROKER}password_file = "word"\n'))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A missing configuration is a mistake like others."""
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load(tmp_path / "none.toml")
