"""``vppd demo``: the options, and where the files go."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer


def demo_command(
    once: Annotated[bool, typer.Option(help="Exit after the script, with status 1 when an act failed.")] = False,
    script: Annotated[bool, typer.Option(help="Play the script; --no-script leaves dispatching to you.")] = True,
    daemon: Annotated[bool, typer.Option(help="Run the daemon; --no-daemon runs the site alone.")] = True,
    speed: Annotated[float, typer.Option(min=0.1, max=100.0, help="Plant time per wall time.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same site and signals.")] = 1,
    state_dir: Annotated[Path | None, typer.Option(help="Keep the files here; a temporary folder otherwise.")] = None,
    http: Annotated[str, typer.Option(help="HOST:PORT of the daemon's API; a free port otherwise.")] = "",
    duration_s: Annotated[
        float | None, typer.Option("--duration", min=0.0, help="End after this many seconds.")
    ] = None,
    broker: Annotated[str, typer.Option(help="HOST:PORT of your own broker instead of the embedded one.")] = "",
    mqtt: Annotated[str, typer.Option(help="Protocol of your own broker: 5 or 3.1.1.")] = "5",
) -> None:
    """Try vppd out: a simulated site on real protocols, the real daemon, and a dispatcher with a script."""
    # Not at the top: the daemon has the same command line, starts on time, and needs nothing of this.
    from vppd.demo.play import line_of, play
    from vppd.demo.stage import Options
    from vppd.grid.issuer_line import address_of

    line = line_of(broker, mqtt)
    if http:
        address_of(http, "--http")
    folder = (state_dir or Path(tempfile.mkdtemp(prefix="vppd-demo-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    options = Options(folder, once, script and daemon, daemon, speed, seed, http, line, duration_s)
    raise typer.Exit(play(options, keep=state_dir is not None))
