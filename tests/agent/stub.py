"""The stand-in driver of the tests: compiled once, its state in a file that outlives every process."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import require

SOURCE = Path(__file__).with_name("nvml_stub.c")
_HEAD, _GPU = struct.Struct("<4I"), struct.Struct("<8I2Q")
_MOST = 16
_FIELDS = ("limit_mw", "low_mhz", "high_mhz", "demand_mw", "error", "set_error", "sets", "locks")
NO_PERMISSION, GPU_IS_LOST = 4, 15


def compiled(folder: Path) -> Path:
    """Return the folder with the library; skip where there is no C compiler (fail where CI=true)."""
    compiler = require("gcc", "the stand-in for NVIDIA's library is written in C")
    library = folder / "libnvidia-ml.so.1"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-Wl,-soname,{library.name}"]
    subprocess.run([compiler, *options, "-o", library, SOURCE], check=True)
    return folder


def uuid(index: int) -> str:
    """Return the name of a GPU."""
    return f"GPU-{index:08x}-0000-0000-0000-000000000000"


class Stub:
    """The GPUs as the hardware has them, for a test to look at and to meddle with."""

    def __init__(self, folder: Path, library: Path, gpus: int = 8, demand_w: float = 650.0) -> None:
        self.path, self._library = folder / "gpus", library
        self.more_environment: dict[str, str] = {}
        self.path.write_bytes(bytes(_HEAD.size + _MOST * _GPU.size))
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._map[: _HEAD.size] = _HEAD.pack(gpus, 0, 0, 0)
        for index in range(gpus):
            self.put(index, limit_mw=700_000, demand_mw=round(demand_w * 1000))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._map.close()

    def load(self) -> None:
        """Let this very process find these GPUs: a library that is loaded already is taken by its name."""
        ctypes.CDLL(str(self._library / "libnvidia-ml.so.1"))

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find these GPUs."""
        own = {"LD_LIBRARY_PATH": str(self._library), "VPPD_STUB_NVML": str(self.path)}
        return os.environ | own | self.more_environment

    @property
    def limits_w(self) -> list[float]:
        """The limits as set. [W]"""
        return [self.get(index, "limit_mw") / 1e3 for index in range(_HEAD.unpack_from(self._map)[0])]

    def get(self, index: int, field: str) -> int:
        """Return one number of a GPU."""
        return int(_GPU.unpack_from(self._map, _HEAD.size + index * _GPU.size)[_FIELDS.index(field)])

    def put(self, index: int, **fields: int) -> None:
        """Change numbers of a GPU, as hardware or a foreign program would."""
        for field, value in fields.items():
            struct.pack_into("<I", self._map, _HEAD.size + index * _GPU.size + 4 * _FIELDS.index(field), value)

    def stall(self, for_s: float) -> None:
        """Let every slow call of the driver take this long. [s]"""
        struct.pack_into("<I", self._map, 4, round(for_s * 1000))

    def offer_no_energy(self) -> None:
        """Let the driver have no energy counter."""
        struct.pack_into("<I", self._map, 8, 1)
