"""What a configuration has of links to the grid: what is found wrong beforehand, what a reload may change, what is carried on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vppd.config.grid import BrokerConfig, GridConfig, IssuerConfig, KeyConfig, SigningConfig
from vppd.config.load import Config
from vppd.config.openadr import OpenAdrConfig
from vppd.dispatch_link import carried_on, differs_in_links_only
from vppd.grid.openadr3.config import openadr_problems
from vppd.model import Interval, Order, OrderKind
from vppd.plant import plant_of
from vppd.testing.cycles import two_feeds


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A secret that only we can read."""
    path = tmp_path / "openadr.secret"
    path.write_text("999\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def with_openadr(secret: Path, **more: Any) -> Config:
    """Return a site with a dispatcher and an OpenADR server."""
    said = {"url": "https://vtn.test/3.1", "client_id": "dc1", "client_secret_file": secret}
    key = KeyConfig(kid="tso-1", alg="ES256", public_key_file=secret)
    grid = GridConfig(
        broker=BrokerConfig(host="b", insecure_lab=True),
        signing=SigningConfig(kid="k", key_file=secret),
        issuers=(IssuerConfig(id="tso", keys=(key,)),),
    )
    return two_feeds().model_copy(update={"grid": grid, "openadr": OpenAdrConfig.model_validate(said | more)})


def problems(config: Config) -> list[str]:
    """Return the keys of what is wrong."""
    assert config.openadr is not None
    return [problem.key for problem in openadr_problems(config, config.openadr)]


def test_a_good_table_has_no_problems(secret: Path) -> None:
    """Targets and grants that name the site, a feed, an asset or everything are good."""
    grants = [{"resource": name, "kinds": ["limit"], "max_power_w": 1e6} for name in ("*", "dc1", "main-a", "hall-a")]
    assert problems(with_openadr(secret, grants=grants, targets={"x": "dc1", "y": "hall-b"})) == []


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"issuer": "tso"}, "openadr.issuer"),
        ({"targets": {"feed-7": "main-z"}}, "openadr.targets.feed-7"),
        ({"grants": [{"resource": "hall-z", "kinds": ["limit"], "max_power_w": 1}]}, "openadr.grants[0].resource"),
        ({"client_secret_file": "/nowhere/secret"}, "openadr.client_secret_file"),
        ({"ca_file": "/nowhere/ca"}, "openadr.ca_file"),
    ],
)
def test_what_refers_to_nothing_is_found(secret: Path, more: dict[str, Any], key: str) -> None:
    """A name or a file that is not there, and an issuer's name that is taken, are told with their key."""
    assert problems(with_openadr(secret, **more)) == [key]


def test_secrets_and_certificates_are_looked_at(secret: Path) -> None:
    """A secret that others can read, an empty one, and certificates that are none are told."""
    secret.chmod(0o644)
    assert problems(with_openadr(secret)) == ["openadr.client_secret_file"]
    secret.chmod(0o600)
    assert problems(with_openadr(secret, ca_file=secret)) == ["openadr"]
    secret.write_text("\n", encoding="utf-8")
    assert problems(with_openadr(secret)) == ["openadr.client_secret_file"]


def test_what_a_reload_may_change_under_an_order(secret: Path) -> None:
    """Issuers and how the same OpenADR server is used may change; the broker, the server's name, or the plant may not."""
    old = with_openadr(secret)
    assert old.grid is not None
    assert differs_in_links_only(old, old)
    assert differs_in_links_only(old, with_openadr(secret, poll_s=5.0, targets={"x": "main-a"}))
    assert differs_in_links_only(old, old.model_copy(update={"grid": old.grid.model_copy(update={"issuers": ()})}))
    broker = old.grid.model_copy(update={"broker": BrokerConfig(host="c", insecure_lab=True)})
    for other in ({"grid": broker}, {"grid": None}, {"openadr": None}, {"log": "debug"}):
        assert not differs_in_links_only(old, old.model_copy(update=other))
        assert not differs_in_links_only(old.model_copy(update=other), old)
    assert not differs_in_links_only(old, with_openadr(secret, issuer="utility"))


def left(resource: str, protocol: str = "vpp_v1", issuer: str = "tso") -> Order:
    """Return an order that an earlier process left behind."""
    start = Interval(datetime(2026, 3, 2, 12, tzinfo=UTC))
    return Order(f"{resource}/{issuer}", issuer, OrderKind.LIMIT, resource, start, 1e3, protocol=protocol)


def test_what_is_carried_on_after_a_restart(secret: Path) -> None:
    """Orders of the configured server and of dispatchers are carried on; without that server nobody could ever take its orders back."""
    config = with_openadr(secret)
    plant = plant_of(config)
    good, gone = left("main-a"), left("main-z")
    ours, strange = left("dc1", "openadr3", "openadr"), left("dc1", "openadr3", "utility")
    orders = (good, gone, ours, strange)
    kept, lost = carried_on(orders, config, plant)
    assert (kept, [order for order, _ in lost]) == ([good, ours], [gone, strange])
    kept, lost = carried_on(orders, config.model_copy(update={"openadr": None}), plant)
    assert (kept, [order for order, _ in lost]) == ([good], [gone, ours, strange])
