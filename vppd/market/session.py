"""One run of the market with the options given."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from vppd.errors import ConfigError
from vppd.grid.fields import stamp
from vppd.grid.issuer import Issuer
from vppd.grid.issuer_line import Broker, Line, opened
from vppd.grid.reasons import Defect
from vppd.grid.signing import KeyRing, Signer, read_jwks
from vppd.grid.strict_json import parse_object
from vppd.market import memory as kept
from vppd.market.accounts import Tariff, account
from vppd.market.link import SESSION_S, Clerk
from vppd.market.market import Market, Pace
from vppd.market.report import results, show, write
from vppd.market.rounds import Deal, Demand, Rules, demand_of
from vppd.runtime.clock import SystemClock

WIDTH = 130
NEED = "60 %"
"""Bought in every slot of which nothing else is said."""


@dataclass(frozen=True, slots=True)
class Seller:
    """A power plant that takes part."""

    vpp: str
    agent: str
    jwks: Path

    def keys(self) -> KeyRing:
        """Return its public keys. Raises ConfigError."""
        try:
            found = parse_object(self.jwks.read_bytes())
        except (OSError, Defect) as error:
            raise ConfigError(f"{self.jwks}: is not a JWK set: {error}") from error
        return KeyRing(read_jwks(self.agent, found))


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    broker: Broker
    sellers: tuple[Seller, ...]
    key: Path
    kid: str
    rules: Rules
    pace: Pace = field(default_factory=Pace)
    tariff: Tariff = field(default_factory=Tariff)
    duration_s: float | None = None
    state: Path | None = None
    results: Path | None = None


def run(options: Options, console: Console | None = None) -> None:
    """Run the market until it is over or SIGINT or SIGTERM comes, then show the results. Raises ConfigError, Unreachable."""
    console = console or Console(width=WIDTH)
    market = asyncio.run(held(options, console))
    show(results(market), console)


async def held(options: Options, console: Console) -> Market:
    """Run the market until it is over and return it."""
    clock = SystemClock()
    issuer = Issuer(options.rules.issuer, _signer(options), clock.now)
    clerk = Clerk(issuer, {seller.vpp: (seller.agent, seller.keys()) for seller in options.sellers})
    line = Line(options.broker, f"market-{issuer.name}", clerk.topics(), SESSION_S)
    remembered = kept.load(options.state) if options.state else kept.Memory()
    market = Market(options.rules, clerk, line, clock.mono_s, options.pace, options.tariff, remembered)
    market.say = lambda event, **facts: console.print(_sentence(stamp(clock.now()), event, facts), soft_wrap=True)
    market.changed = lambda: _keep(market, options)
    async with opened(line, market.hear):
        market.changed()  # the results appear when it listens
        await _until_over(market, options)
    market.changed()
    return market


async def _until_over(market: Market, options: Options) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    end_s = None if options.duration_s is None else loop.time() + options.duration_s
    with suppress(TimeoutError):
        async with asyncio.timeout_at(end_s):
            await market.run(lambda: stop.is_set() or _is_settled(market))


def _is_settled(market: Market) -> bool:
    """Say whether all slots that are to be bought are, and every award in them has its account or was not accepted."""
    slots, at = market.pace.most_slots, market.clerk.now()
    if slots is None or len(market.memory.rounds) < slots:
        return False
    return not any(_is_open(deal, market.tariff, at) for deal in market.memory.deals.values())


def _is_open(deal: Deal, tariff: Tariff, at: datetime) -> bool:
    """Say whether an award may yet be answered, ordered or accounted for."""
    if deal.state not in ("new", "accepted"):
        return False
    may_be_ordered = deal.dispatch == "order" and not deal.order_id and at < deal.end
    return may_be_ordered or account(deal, tariff) is None


def _keep(market: Market, options: Options) -> None:
    if options.state:
        kept.save(market.memory, options.state)
    if options.results:
        write(results(market), options.results)


def _signer(options: Options) -> Signer:
    try:
        return Signer.from_pem(options.kid, "ES256", options.key.read_bytes())
    except OSError as error:
        raise ConfigError(f"{options.key}: cannot be read: {error.strerror}") from error


def _sentence(at: str, event: str, facts: dict[str, object]) -> str:
    return f"{at} {event} " + " ".join(f"{k}={v}" for k, v in facts.items() if v not in ("", None))


def rules_of(issuer: str, needs: Sequence[str], **more: Any) -> Rules:
    """Return the rules, with what is bought where as ``--need`` says. Raises ConfigError."""
    found = [demand_of(text) for text in needs]
    if twice := [where for where, count in Counter(where for where, _ in found).items() if count > 1]:
        raise ConfigError(f"--need: says twice what is bought of {twice[0] or 'everything'}")
    demands = dict(found)
    everywhere = demands.pop("", None) or Demand.read(NEED)
    return Rules(issuer, everywhere, demands=demands, **more)


def seller_of(text: str) -> Seller:
    """Return VPP:AGENT:FILE. Raises ConfigError."""
    vpp, _, rest = text.partition(":")
    agent, _, path = rest.partition(":")
    if not (vpp and agent and path):
        raise ConfigError(f"--seller: {text!r} is not VPP:AGENT:FILE")
    return Seller(vpp, agent, Path(path))


def check_word(option: str, text: str, words: type[StrEnum]) -> None:
    """Raise ConfigError for a word that is not among those allowed."""
    if text not in tuple(words):
        raise ConfigError(f"{option}: {text!r} is unknown (allowed: {', '.join(words)})")
