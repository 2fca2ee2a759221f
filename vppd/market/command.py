"""``vppd market-sim``: the options, and one run from the first offer to the last statement."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer


def market_command(
    broker: Annotated[str, typer.Option(help="HOST:PORT of the broker that the power plants speak through.")],
    seller: Annotated[
        list[str], typer.Option(help="VPP:AGENT:FILE of a power plant: topic name, agent id, its JWK set. Repeatable.")
    ],
    key: Annotated[Path, typer.Option(help="Private key (PEM, ES256) that signs awards and orders.")],
    issuer: Annotated[str, typer.Option(help="Name under which the power plants know this market.")] = "market",
    kid: Annotated[str, typer.Option(help="Key id; ISSUER-1 otherwise.")] = "",
    mqtt: Annotated[str, typer.Option(help="Protocol of the broker: 5 or 3.1.1.")] = "5",
    need: Annotated[
        list[str] | None,
        typer.Option(
            help="Bought in every slot: 500 kW, 2 MW, or 60 % of what is offered (60 %). "
            "WHERE:AMOUNT for a product, a direction (up, down, symmetric) or PRODUCT/DIRECTION. Repeatable."
        ),
    ] = None,
    price_cap_per_mwh: Annotated[float, typer.Option("--price-cap", min=0.0, help="No dearer per MWh.")] = 1000.0,
    scarcity_per_mwh: Annotated[
        float | None,
        typer.Option(
            "--scarcity-price", min=0.0, help="Paid per MWh where more is needed than is offered; the cap otherwise."
        ),
    ] = None,
    ties: Annotated[str, typer.Option(help="Offers of one price share pro-rata, or by time of arrival.")] = "pro-rata",
    competitors: Annotated[int, typer.Option(min=0, help="Other participants, made up.")] = 0,
    competitor_kw: Annotated[int, typer.Option(min=1, help="Size of their usual offer.")] = 200,
    competitor_per_mwh: Annotated[
        float, typer.Option("--competitor-price", min=0.0, help="Their usual price per MWh.")
    ] = 100.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same competitors.")] = 1,
    activate_frac: Annotated[
        float, typer.Option("--activate", min=0.0, max=1.0, help="How likely a kept-ready award is ordered.")
    ] = 1.0,
    pays: Annotated[str, typer.Option(help="What is kept ready is paid for its energy or its capacity.")] = "energy",
    penalty_frac: Annotated[
        float, typer.Option("--penalty", min=0.0, help="For what is missing, as a part of the price.")
    ] = 1.0,
    duration_s: Annotated[float | None, typer.Option("--duration", min=0.0, help="End after so many seconds.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Buy no more slots, and end when they are settled.")] = None,
    state: Annotated[Path | None, typer.Option(help="Remembers everything here over a restart.")] = None,
    json: Annotated[Path | None, typer.Option(help="Keeps the results here, always complete.")] = None,
) -> None:
    """Run a local market: it clears the offers of power plants on a broker (docs/market-sim.md)."""
    # Not at the top: the daemon has the same command line, starts on time, and needs nothing of this.
    from vppd.grid.issuer_line import broker_of
    from vppd.market import session
    from vppd.market.accounts import Pays, Tariff
    from vppd.market.clearing import Ties
    from vppd.market.market import Pace
    from vppd.market.rivals import Crowd

    session.check_word("--ties", ties, Ties)
    session.check_word("--pays", pays, Pays)
    crowd = Crowd(competitors, seed, competitor_kw * 1e3, competitor_per_mwh)
    options = session.Options(
        broker=broker_of(broker, mqtt),
        sellers=tuple(session.seller_of(text) for text in seller),
        key=key,
        kid=kid or f"{issuer}-1",
        rules=session.rules_of(
            issuer,
            need or [],
            price_cap=Decimal(str(price_cap_per_mwh)),
            scarcity_price=None if scarcity_per_mwh is None else Decimal(str(scarcity_per_mwh)),
            ties=Ties(ties),
            crowd=crowd,
        ),
        pace=Pace(activate_frac=activate_frac, most_slots=slots),
        tariff=Tariff(Pays(pays), Decimal(str(penalty_frac))),
        duration_s=duration_s,
        state=state,
        results=json,
    )
    session.run(options)
