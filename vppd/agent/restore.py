"""What every device had before us: on disk before the first change, put back from there whatever happened to us."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from vppd.agent.device import TOLERANCE_W, Clocks, Device
from vppd.errors import ConfigError, DeviceError, Garbled, Refused, Unreachable

log = structlog.get_logger()

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Prior:
    """What one device had before us."""

    cap_w: float | None = None
    """None: we have not touched its limit. [W]"""
    least_w: float | None = None
    """The lowest limit we have set since: one below it is not ours, and stays. [W]"""
    clocks: bool = False
    """We have locked its clocks."""


class PriorFile:
    """``prior.json`` in the state folder: there while something is held, gone when all is as it was."""

    def __init__(self, folder: Path, boot_id: str) -> None:
        self.path, self._boot_id = folder / "prior.json", boot_id

    def load(self) -> dict[str, Prior]:
        """Return what must be put back; nothing after a reboot, which has put the devices back by itself.

        Raises Garbled when the file makes no sense: then nobody but the operator knows what was there.
        """
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            if raw["version"] != _VERSION:
                raise Garbled(f"{self.path} is of version {raw['version']!r}, not {_VERSION}")
            priors = {str(name): _prior(said) for name, said in raw["devices"].items()}
            boot_id = str(raw["boot_id"])
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unreachable(f"{self.path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Garbled(f"{self.path} makes no sense ({error!r}): set the limits by hand, then remove it") from error
        if boot_id != self._boot_id:
            log.info("agent_prior_limits_outdated", file=str(self.path), reason="the machine was booted since")
            self.save({})
            return {}
        return priors

    def save(self, priors: Mapping[str, Prior]) -> None:
        """Write it so that it survives a power cut; without priors there is no file. Raises Unreachable (disk)."""
        try:
            if priors:
                devices = {name: asdict(prior) for name, prior in priors.items()}
                text = json.dumps({"version": _VERSION, "boot_id": self._boot_id, "devices": devices})
                _write_through(self.path, text)
            else:
                self.path.unlink(missing_ok=True)
                _sync(self.path.parent)
        except OSError as error:
            raise Unreachable(f"{self.path} cannot be written: {error.strerror}") from error


def give_back(device: Device, prior: Prior, ours_w: float | None = None, clocks: Clocks | None = None) -> None:
    """Put a device back as it was and read it back. Raises Refused or Unreachable when that fails.

    A limit below ``ours_w`` [W], what we set last, was set by somebody else meanwhile, and stays: it is never raised.
    ``clocks`` are locked where the site does so without us: NVML cannot tell what was there.
    """
    if prior.clocks:
        if clocks is not None:
            device.lock_clocks(clocks)
        else:
            device.free_clocks()
    if prior.cap_w is None:
        return
    ours_w = prior.least_w if ours_w is None else ours_w
    found_w = device.cap_w()
    if ours_w is not None and found_w < min(ours_w, prior.cap_w) - TOLERANCE_W:
        log.warning("agent_lower_limit_kept", device=device.name, limit_w=found_w, prior_w=prior.cap_w)
        return
    if abs(found_w - prior.cap_w) > TOLERANCE_W:
        device.set_cap(prior.cap_w)
    if abs(device.cap_w() - prior.cap_w) > TOLERANCE_W:
        raise Unreachable(f"{device.name} does not go back to {prior.cap_w:g} W")


def restore_all(file: PriorFile, devices: Mapping[str, Device], clocks: Clocks | None = None) -> dict[str, str]:
    """Put everything in the file back; return device and reason for what could not be, which stays in the file.

    Raises Garbled (the file) or Unreachable (the disk).
    """
    priors, failed = file.load(), {}
    for name, prior in sorted(priors.items()):
        try:
            if name not in devices:
                raise Unreachable("is not there")
            give_back(devices[name], prior, clocks=clocks)
        except DeviceError as error:
            failed[name] = str(error)
            log.error("agent_not_restored", device=name, reason=str(error))
        else:
            log.info("agent_restored", device=name, limit_w=prior.cap_w)
    if priors:
        file.save({name: priors[name] for name in failed})
    return failed


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one that sets limits from this folder; the kernel lets go when the process dies.

    Raises Refused when another agent has it, ConfigError when the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"state_dir {folder} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"another agent runs from {folder}: stop it first, it puts the limits back itself") from error
        yield
    finally:
        os.close(held)


def boot_id() -> str:
    """Return the kernel's name for this boot; '' where it has none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _prior(said: Mapping[str, object]) -> Prior:
    cap_w, least_w = said["cap_w"], said["least_w"]
    if not isinstance(cap_w, float | int | None) or not isinstance(least_w, float | int | None):
        raise TypeError("a limit that is no number")
    return Prior(cap_w, least_w, said["clocks"] is True)


def _write_through(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
