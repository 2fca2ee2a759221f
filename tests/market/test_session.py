"""What the command line of the market takes, and what it refuses in words."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.market.plant import keys_in
from vppd.errors import ConfigError
from vppd.grid.issuer_line import broker_of
from vppd.market import memory
from vppd.market.clearing import Ties
from vppd.market.rounds import Demand
from vppd.market.session import Seller, check_word, seller_of


@pytest.mark.parametrize(
    ("text", "power_w"), [("500 kW", 500_000), ("2 MW", 2_000_000), ("60 %", 600), ("12.5%", 125), ("750W", 750)]
)
def test_a_need_is_a_power_or_a_part(text: str, power_w: int) -> None:
    """A power stands for itself; a part is of what is offered, here of 1 kW."""
    assert Demand.read(text).power_w(1000) == power_w
    assert Demand.read(" 2 MW ").amount == Decimal(2_000_000)


@pytest.mark.parametrize("text", ["", "5", "-1 kW", "0 %", "1 GW", "1e3 W", "kW"])
def test_anything_else_is_no_need(text: str) -> None:
    """The sentence shows both forms."""
    with pytest.raises(ConfigError, match=r"500 kW, 2 MW.*60 %"):
        Demand.read(text)


def test_words_of_the_command_line_are_refused_in_words() -> None:
    """Broker, protocol, seller and the choice of ties name what they would take."""
    assert broker_of("localhost:1883", "3.1.1").port == 1883
    assert seller_of("dc1:agent:/a:b") == Seller("dc1", "agent", Path("/a:b"))
    check_word("--ties", "time", Ties)
    for call, sentence in (
        (lambda: broker_of("localhost", "5"), "HOST:PORT"),
        (lambda: broker_of("h:99999", "5"), "HOST:PORT"),
        (lambda: broker_of("h:1", "4"), "3.1.1"),
        (lambda: seller_of("dc1:agent"), "VPP:AGENT:FILE"),
        (lambda: check_word("--ties", "lot", Ties), "pro-rata, time"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            call()


def test_files_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """A JWK set that is none and a state that is none stop the market before it listens; a missing state is an empty one."""
    path = tmp_path / "x.json"
    assert not memory.load(path).deals
    for text in ("", "[]", "{}", '{"keys": 5}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError):
            Seller("dc1", "dc1-agent", path).keys()
        with pytest.raises(ConfigError, match="state of a market"):
            memory.load(path)
    assert Seller("dc1", "dc1-agent", keys_in(tmp_path).jwks).keys()
