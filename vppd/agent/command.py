"""``vppd agent``: run it, put the limits back, or print what it sees."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog

from vppd.agent.config import DEFAULT_CONFIG, DEFAULT_STATE, AgentConfig, load
from vppd.agent.device import Clocks
from vppd.agent.inventory import Inventory
from vppd.agent.rapl import POWERCAP
from vppd.agent.restore import PriorFile, alone, boot_id, restore_all
from vppd.agent.wire import device_json
from vppd.errors import ConfigError, DeviceError, Unreachable
from vppd.grid.strict_json import Json
from vppd.runtime.clock import SystemClock
from vppd.runtime.logs import configure
from vppd.runtime.watchdog import Notifier

log = structlog.get_logger()


def run_agent(path: Path = DEFAULT_CONFIG) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError, Refused (another runs here), Garbled (the file of limits)."""
    config = load(path)
    _log_to_stderr(config.log)
    with alone(config.state_dir):
        asyncio.run(_run(config))


def restore(path: Path = DEFAULT_CONFIG) -> None:
    """Put back what an agent that has died left behind; nothing happens where there is nothing to do.

    Works with a broken configuration too: it runs when everything else has failed. Raises Unreachable when a device
    could not be put back, Refused while an agent runs, Garbled when the file of limits makes no sense.
    """
    folder, powercap, clocks = _where(path)
    if not folder.is_dir():
        return  # no agent has ever run from here
    with alone(folder):
        file = PriorFile(folder, boot_id())
        names = set(file.load())
        gpus = any(name.startswith("GPU-") for name in names)
        inventory = Inventory(
            gpus=gpus, cpus=bool(names) and powercap.is_dir(), powercap=powercap, mono_s=SystemClock().mono_s
        )
        try:
            failed = restore_all(file, inventory.devices(), clocks)
        finally:
            inventory.close()
    if failed:
        raise Unreachable("not restored: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))


def seen_once(path: Path = DEFAULT_CONFIG) -> dict[str, Json]:
    """Return what every device reads and may be set to; changes nothing. Raises ConfigError."""
    config = load(path)
    _log_to_stderr("warning")
    inventory = _inventory(config)
    try:
        return {"site": config.site, "node": config.node, "devices": _devices(inventory)}
    finally:
        inventory.close()


async def _run(config: AgentConfig) -> None:
    from vppd.agent.agent import Agent

    clock = SystemClock()
    notifier = Notifier.from_environment(os.environ, os.getpid(), clock)
    agent = Agent(config, clock, notifier, _inventory(config))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # also when the terminal it was tried in goes away
        loop.add_signal_handler(number, agent.stop)
    log.info("agent_started", site=config.site, node=config.node)
    await agent.run()
    log.info("agent_stopped")


def _devices(inventory: Inventory) -> Json:
    found: dict[str, Json] = {}
    for name, device in inventory.devices().items():
        try:
            reading = device.read()
        except DeviceError as error:
            found[name] = {"kind": device.kind, "error": str(error)}
            continue
        # For people: which limit is in force when the BMC has one of its own.
        enforced: dict[str, Json] = {} if reading.enforced_w is None else {"enforced_cap_w": reading.enforced_w}
        found[name] = {**device_json(device, reading), **enforced}
    return found


def _inventory(config: AgentConfig) -> Inventory:
    gpus, cpus = config.gpus.watch or config.gpus.control, config.cpus.watch or config.cpus.control
    return Inventory(gpus=gpus, cpus=cpus, powercap=config.cpus.powercap, mono_s=SystemClock().mono_s)


def _where(path: Path) -> tuple[Path, Path, Clocks | None]:
    """Return where the limits are written down, without insisting on a good configuration."""
    try:
        config = load(path)
    except ConfigError as error:
        _log_to_stderr("info")
        folder = Path(os.environ.get("STATE_DIRECTORY", "") or DEFAULT_STATE)
        log.warning("agent_restores_without_configuration", reason=str(error), state_dir=str(folder))
        return folder, POWERCAP, None
    _log_to_stderr(config.log)
    return config.state_dir, config.cpus.powercap, config.gpus.prior_clocks_mhz


def _log_to_stderr(level: str) -> None:
    configure(level, SystemClock(), as_json=not sys.stderr.isatty(), to_journal="JOURNAL_STREAM" in os.environ)
