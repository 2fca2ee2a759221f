"""The command line: running, looking at and steering the daemon, its counterparts, and what can be computed without it."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from vppd.demo.command import demo_command
from vppd.errors import ConfigError, DeviceError, VppdError
from vppd.market.command import market_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turns a data center into a virtual power plant.",
)

ConfigPath = Annotated[Path, typer.Option("-c", "--config", help="Configuration file.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_CONFIG = Path("/etc/vppd/vppd.toml")
EXIT_CONFIG = 2
EXIT_UNREACHABLE = 3


def main() -> None:
    """Run the command line; our own errors become one clear line and an exit code."""
    try:
        app()
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)
    except DeviceError as error:
        _fail(str(error), EXIT_UNREACHABLE)
    except VppdError as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> None:
    typer.echo(message, err=True)
    sys.exit(code)


@app.command()
def run(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Run the daemon until SIGTERM; SIGHUP reads the configuration again."""
    from vppd.app import run_daemon

    run_daemon(config)


@app.command()
def check(file: Annotated[Path, typer.Argument(help="Configuration file.")] = DEFAULT_CONFIG) -> None:
    """Check a configuration: every mistake with its key, the reason and what is allowed; exit code 2 if there is one."""
    from vppd.app import checked

    found = checked(file)
    devices = sum(1 for asset in found.assets)
    typer.echo(
        f"{file}: good. Site {found.site.id}: {len(found.feeds)} feeds, {devices} assets, {len(found.grid.issuers) if found.grid else 0} issuers."
    )


@app.command()
def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the site, its feeds and assets as the daemon sees them."""
    _show(config, "/api/v1/state", as_json, "vppd.api.console", "status_table")


@app.command()
def orders(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the orders that are scheduled or active."""
    _show(config, "/api/v1/orders", as_json, "vppd.api.console", "orders_table")


@app.command()
def forecasts(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show what is foreseen of each series, by which method, and how good such forecasts have been."""
    _show(config, "/api/v1/forecasts", as_json, "vppd.api.console_forecasts", "forecasts_table")


@app.command()
def plan(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the plan: each cluster's power budget by the hour beside prices, renewable output and what was measured."""
    _show(config, "/api/v1/plan", as_json, "vppd.api.console_plan", "plan_table")


@app.command()
def bids(
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
    xml: Annotated[
        Path | None,
        typer.Option("--xml", help="Write open bids here as IEC 62325 documents, for a market that takes them."),
    ] = None,
) -> None:
    """Show what is offered to the market and what it has awarded."""
    if xml is not None:
        _export(config, xml)
        return
    _show(config, "/api/v1/bids", as_json, "vppd.api.console_bids", "bids_table")


@app.command()
def market(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the trading desk: products, the next gates, what is on offer, and what is not and why."""
    _show(config, "/api/v1/market", as_json, "vppd.api.console_market", "market_table")


@app.command()
def openadr(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the OpenADR server's events as this site takes them, and why a signal is not applied."""
    _show(config, "/api/v1/openadr", as_json, "vppd.api.console_openadr", "openadr_table")


@app.command()
def why(
    asset: Annotated[str, typer.Argument(help="Name of an asset, a cluster for example.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show why an asset does what it does: order, need, what it was told, what was chosen per job, what the meter shows."""
    found = _ask(config, "GET", f"/api/v1/assets/{quote(asset, safe='')}/why")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from vppd.api.console_why import why_lines

    for line in why_lines(found):
        typer.echo(line)


@app.command()
def release(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Give everything back to itself now and take no orders until ``resume``: the operator wins over the grid."""
    _ask(config, "POST", "/api/v1/release")
    typer.echo("Released: all orders are aborted, power is given back by the ramp. `vppd resume` takes orders again.")


@app.command()
def resume(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Take orders again after a release."""
    _ask(config, "POST", "/api/v1/resume")
    typer.echo("Resumed: orders are taken again.")


@app.command()
def agent(
    config: ConfigPath = Path("/etc/vppd/agent.toml"),
    restore: Annotated[
        bool, typer.Option("--restore", help="Put back what a dead agent left behind, and end.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print readings and limits as JSON; changes nothing.")] = False,
) -> None:
    """Run the node side: caps for this machine's GPUs and CPUs by lease, telemetry every second (docs/agent.md)."""
    from vppd.agent import command

    if once:
        typer.echo(json.dumps(command.seen_once(config), indent=2))
    elif restore:
        command.restore(config)
    else:
        command.run_agent(config)


app.command("demo")(demo_command)
app.command("market-sim")(market_command)


@app.command()
def adapters() -> None:
    """List the adapters that are installed."""
    from vppd.runtime.registry import installed

    for name in installed():
        typer.echo(name)


@app.command()
def products(
    config: ConfigPath = DEFAULT_CONFIG,
    folder: Annotated[Path | None, typer.Option(help="Folder of product files; default: those shipped.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which market products this site qualifies for, and what fails for the others and by how much."""
    from vppd.api.products import product_rows, products_table
    from vppd.config.load import load

    rows = product_rows(load(config), folder)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        products_table(rows)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Recorded telemetry, e.g. /var/lib/vppd/telemetry.db.")],
    show: Annotated[int, typer.Option(help="Show at most this many differing cycles.")] = 10,
) -> None:
    """Decide every recorded cycle again; exit code 1 when one comes out otherwise."""
    from vppd.app import replayed

    found = replayed(file)
    typer.echo(f"{found.cycles} cycles decided again, {len(found.differing)} came out otherwise.")
    for at in found.differing[:show]:
        typer.echo(f"  {at.isoformat()}")
    if found.differing:
        raise typer.Exit(1)


@app.command()
def simulate(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (docs/curtailment.md).")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result here; - is standard output.")
    ] = None,
) -> None:
    """Run the curtailment planner against a simulated cluster in virtual time; exit code 2 for a bad scenario."""
    from vppd.sim.command import simulated, summary, write

    found = simulated(scenario)
    if json_file == Path("-"):
        typer.echo(json.dumps(found, allow_nan=False))
        return
    if json_file is not None:
        write(found, json_file)
    for line in summary(found):
        typer.echo(line)


@app.command()
def schedule(
    problem: Annotated[
        Path, typer.Option("--problem", help="The instance to solve, a JSON file; - reads it from standard input.")
    ],
    as_json: AsJson = False,
) -> None:
    """Solve one scheduling instance within its time limit: the cheapest plan found, or the constraints that conflict."""
    from vppd.core.schedule.problem import parse
    from vppd.core.schedule.report import lines, report
    from vppd.core.schedule.solve import solve
    from vppd.runtime.clock import SystemClock

    instance = parse(_read_json(problem))
    answer = solve(instance, SystemClock().mono_s)
    typer.echo(json.dumps(report(instance, answer)) if as_json else "\n".join(lines(instance, answer)))


def _show(config: Path, path: str, as_json: bool, module: str, table: str) -> None:
    """Print what the daemon says, as JSON or by the table of a module, which is loaded only then."""
    found = _ask(config, "GET", path)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        getattr(import_module(module), table)(found)


def _export(config: Path, folder: Path) -> None:
    from vppd.config.load import load
    from vppd.planning.trade.submission import submit
    from vppd.runtime.clock import SystemClock

    files = submit(load(config), folder, SystemClock().now())
    typer.echo("\n".join(map(str, files)) or "No bid is open.")


def _read_json(path: Path) -> object:
    try:
        return json.loads(sys.stdin.buffer.read() if path == Path("-") else path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid JSON: {error}") from error


def _ask(config: Path, method: str, path: str) -> Any:
    """Return the answer of the daemon on its local socket. Raises Unreachable or Refused."""
    from vppd.api.client import ask
    from vppd.config.load import load

    return ask(load(config).site.socket, method, path)
