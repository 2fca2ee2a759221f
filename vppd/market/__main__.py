"""``python -m vppd.market``: the market as a process of its own."""

from __future__ import annotations

import sys

import typer

from vppd.errors import ConfigError, Unreachable
from vppd.market.command import market_command


def main() -> None:
    """Run the command line."""
    app = typer.Typer(add_completion=False)
    app.command()(market_command)
    try:
        app()
    except (ConfigError, Unreachable) as error:
        typer.echo(f"market-sim: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
