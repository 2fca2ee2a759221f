"""config/vppd.example.toml is complete and good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from tests.support import ROOT
from vppd.config.load import Config, load
from vppd.config.table import InvalidConfig

EXAMPLE = ROOT / "config" / "vppd.example.toml"
SECRETS = ("mqtt.key", "sign.key", "slurm.token")
FILES = ("broker-ca.pem", "mqtt.crt", "issuers/tso.pub.pem")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The example as an operator would install it, with credentials beside it."""
    text = EXAMPLE.read_text(encoding="utf-8").replace("/run/credentials/vppd.service/", "credentials/")
    path = tmp_path / "vppd.toml"
    path.write_text(text, encoding="utf-8")
    for name in (*(f"credentials/{secret}" for secret in SECRETS), *FILES):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("x", encoding="utf-8")
        file.chmod(0o600)
    return path


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a model and those of its fields."""
    yield model
    for field in model.model_fields.values():
        for module, inner in re.findall(r"(vppd\.config\.\w+)\.(\w+)", repr(field.annotation)):
            found = getattr(import_module(module), inner)
            if issubclass(found, BaseModel):
                yield from models(found)


def test_the_example_loads(installed: Path) -> None:
    """The example passes every check once its credentials are there."""
    config = load(installed)
    assert {asset.kind.value for asset in config.assets} == {"meter", "ups", "pv", "cluster", "load"}


def test_the_example_names_every_key() -> None:
    """Every key there is occurs in the example, set or commented out with its default."""
    text = EXAMPLE.read_text(encoding="utf-8")
    keys = {name for model in models(Config) for name in model.model_fields}
    missing = {k for k in keys if not re.search(rf"^(# )?{k} = |^\[+([a-z]+\.)*{k}\]|[{{,] {k} = ", text, re.MULTILINE)}
    assert not missing


def test_commented_defaults_are_the_defaults(installed: Path) -> None:
    """With every commented key of [site] switched on the configuration means the same."""
    before = load(installed)
    head, site, rest = re.split(
        r"(\[site\].*?)(?=\[\[feeds\]\])", installed.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    site = re.sub(r"^# (\w+ = )", r"\1", site, flags=re.MULTILINE)
    installed.write_text(head + site + rest, encoding="utf-8")
    assert load(installed).site == before.site


def test_adapters_take_their_connections(installed: Path) -> None:
    """Each connection table is good in the eyes of its adapter."""
    known = {entry.name: entry for entry in entry_points(group="vppd.adapters")}
    for asset in load(installed).assets:
        adapter = known[asset.adapter].load()
        try:
            adapter.config.model_validate(asset.connection)
        except ValidationError as error:
            pytest.fail(f"{asset.id}: {error}")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        pytest.param('meter = "poi-a"', 'meter = "poi-b"', "feeds[0].meter", id="meter-on-another-feed"),
        pytest.param("import_max_w = 1.2e6 ", "import_max_kw = 1200 ", "site.import_max_kw", id="unknown-key"),
        pytest.param("# lease_s = 30.0", "lease_s = 4.0", "site.lease_s", id="lease-too-short"),
        pytest.param('ca_file = "broker-ca.pem"', "", "grid.broker", id="no-tls"),
        pytest.param('resource = "*"', 'resource = "main-c"', "grid.issuers[0].grants[0].resource", id="no-such-feed"),
    ],
)
def test_a_mistake_is_named(installed: Path, old: str, new: str, key: str) -> None:
    """A mistake in the file is told with its key."""
    text = installed.read_text(encoding="utf-8")
    assert old in text
    installed.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidConfig) as caught:
        load(installed)
    assert any(problem.key.startswith(key) for problem in caught.value.problems), str(caught.value)
