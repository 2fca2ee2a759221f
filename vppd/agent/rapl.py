"""CPU packages through the kernel's powercap tree (RAPL): the long-term limit and the energy counter of each package.

Reading and writing a file here takes microseconds; the agent does it in its worker thread all the same.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from vppd.agent.device import Clocks, Limits, Reading
from vppd.errors import DeviceError, Garbled, Refused, Unreachable

POWERCAP = Path("/sys/class/powercap")
_ZONE = re.compile(r"intel-rapl:(\d+)$")
"""A package; ``intel-rapl:0:0`` is a part of one and counted in it. AMD's packages have this name too."""
_PACKAGE = re.compile(r"package-\d+(-die-\d+)?$")
_NO = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENODATA, errno.EROFS)
_SHORTEST_S = 0.05
"""Between two readings closer than this the counter has hardly moved: its step would be the result. [s]"""


def packages(root: Path, mono_s: Callable[[], float]) -> list[Package]:
    """Return the CPU packages below ``root``; none where the kernel has no powercap."""
    zones = sorted((int(match[1]), path) for path in root.glob("intel-rapl:*") if (match := _ZONE.match(path.name)))
    found = []
    for index, path in zones:
        try:
            name = _text(path / "name")
            if _PACKAGE.match(name):
                found.append(Package(path, index, name, mono_s))
        except DeviceError:
            continue  # a zone that cannot be read is nobody's
    return found


class Package:
    """One CPU package."""

    kind: Literal["cpu"] = "cpu"

    def __init__(self, path: Path, index: int, name: str, mono_s: Callable[[], float]) -> None:
        self._path, self.index, self.name, self._mono_s = path, index, name, mono_s
        self._range_ws = _known(path / "max_energy_range_uj")
        self._counted: tuple[float, float] | None = None
        self._total_ws = 0.0
        self._power_w: float | None = None
        self.limits = self._limits()

    def about(self) -> dict[str, str | int]:
        """Return the number of the package."""
        return {"index": self.index}

    def read(self) -> Reading:
        """Return the power since the last reading and what was used since the first. Raises Unreachable."""
        self._count()
        cap_w = _known(self._path / "constraint_0_power_limit_uw")
        energy_ws = None if self._counted is None else self._total_ws
        return Reading(power_w=self._power_w, energy_ws=energy_ws, cap_w=cap_w, enforced_w=cap_w)

    def cap_w(self) -> float:
        """Return the long-term limit. Raises Refused (no limit here) or Unreachable. [W]"""
        return _millionth(self._path / "constraint_0_power_limit_uw")

    def set_cap(self, cap_w: float) -> None:
        """Set the long-term limit. Raises Refused (locked, switched off, not root) or Unreachable. [W]"""
        enabled = self._path / "enabled"
        if enabled.exists() and _text(enabled) == "0":
            raise Refused(f"limiting is switched off in this package: write 1 to {enabled}")
        _write(self._path / "constraint_0_power_limit_uw", round(cap_w * 1e6))

    def lock_clocks(self, clocks: Clocks) -> None:
        """Refuse: a package has no such lock. Raises Refused."""
        raise Refused("a CPU package has no locked clocks")

    def free_clocks(self) -> None:
        """Do nothing: there was no lock."""

    def _limits(self) -> Limits | None:
        """The kernel knows no least limit; the configured floor is a part of the default, so it is the least."""
        try:
            set_w = self.cap_w()
        except DeviceError:
            return None
        # 0 or absent where the firmware does not say: then what is set now is the most we may set.
        max_w = max(_known(self._path / "constraint_0_max_power_uw") or 0.0, set_w)
        return Limits(0.0, max_w, max_w)

    def _count(self) -> None:
        now_s, counter_ws = self._mono_s(), _known(self._path / "energy_uj")
        if counter_ws is None:
            self._counted = self._power_w = None
            return
        if self._counted is None:
            self._counted = now_s, counter_ws
            return
        took_s, used_ws = now_s - self._counted[0], counter_ws - self._counted[1]
        if took_s < _SHORTEST_S:
            return
        if used_ws < 0.0:
            used_ws += self._range_ws or 0.0
        self._counted = now_s, counter_ws
        if used_ws < 0.0:  # the counter began anew and its range is not known: this stretch cannot be told
            self._power_w = None
            return
        self._total_ws += used_ws
        self._power_w = used_ws / took_s


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise _meaning(path, error) from error
    except UnicodeDecodeError as error:
        raise Garbled(f"{path} holds no text") from error


def _millionth(path: Path) -> float:
    text = _text(path)
    if not text.isdigit():
        raise Garbled(f"{path} holds {text[:20]!r}, not a number")
    return int(text) / 1e6


def _known(path: Path) -> float | None:
    try:
        return _millionth(path)
    except (Refused, Garbled):
        return None


def _write(path: Path, value: int) -> None:
    try:
        target = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(target, str(value).encode("ascii"))
        finally:
            os.close(target)
    except OSError as error:
        raise _meaning(path, error) from error


def _meaning(path: Path, error: OSError) -> DeviceError:
    is_no = error.errno in _NO or isinstance(error, FileNotFoundError)
    return (Refused if is_no else Unreachable)(f"{path}: {error.strerror}")
