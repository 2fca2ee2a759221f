"""One run of the demo with the options given."""

from __future__ import annotations

import asyncio
import shutil
import sys

from rich.console import Console

from vppd.demo.children import Failed
from vppd.demo.perform import perform
from vppd.demo.stage import Options
from vppd.grid.issuer_line import Broker, broker_of, check_protocol

PLAIN_WIDTH = 120
"""Columns where there is no terminal to ask."""


def play(options: Options, *, keep: bool) -> int:
    """Run the demo to its end and return its exit status; unless it failed, or is to ``keep`` them, its files go."""
    console, status = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH), 1
    try:
        status = asyncio.run(perform(options, console))
    except Failed as error:
        console.print(f"vppd demo: {error}", style="red", markup=False)
    if status == 1:
        console.print(f"the logs and the ledger are in {options.folder}")
    elif not keep:
        shutil.rmtree(options.folder)
    return status


def line_of(broker: str, mqtt: str) -> Broker | None:
    """Return where somebody's own broker is, None for the embedded one. Raises ConfigError."""
    check_protocol(mqtt)
    return broker_of(broker, mqtt) if broker else None
