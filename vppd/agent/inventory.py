"""Which devices there are; GPUs are looked for again when the driver comes late or goes away for a while."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from vppd.agent import rapl
from vppd.agent.device import Device
from vppd.agent.nvml import Gpu, Nvml
from vppd.errors import Unreachable

log = structlog.get_logger()

_AGAIN_S = 30.0
"""The driver is asked for again after this. [s]"""


class Inventory:
    """The node's devices by name. Blocks."""

    def __init__(self, *, gpus: bool, cpus: bool, powercap: Path, mono_s: Callable[[], float]) -> None:
        self._with_gpus, self._mono_s = gpus, mono_s
        self._nvml: Nvml | None = None
        self._gpus: list[Gpu] = []
        self._packages = rapl.packages(powercap, mono_s) if cpus else []
        self._asked_s: float | None = None
        self._told = False

    def devices(self, *, lost: bool = False) -> dict[str, Device]:
        """Return all devices; ``lost`` says that a GPU no longer answers. Raises ConfigError (no binding)."""
        if self._with_gpus and (lost or not self._gpus) and self._is_time():
            self._open()
        every: list[Device] = [*self._gpus, *self._packages]
        return {device.name: device for device in every}

    def close(self) -> None:
        """Give the driver back."""
        if self._nvml is not None:
            self._nvml.close()
        self._nvml, self._gpus = None, []

    def _is_time(self) -> bool:
        now_s = self._mono_s()
        if self._asked_s is not None and now_s - self._asked_s < _AGAIN_S:
            return False
        self._asked_s = now_s
        return True

    def _open(self) -> None:
        self.close()
        try:
            self._nvml = Nvml()
            self._gpus = self._nvml.devices()
        except Unreachable as error:
            if not self._told:
                log.warning("agent_no_gpus", reason=str(error))
            self._told = True
            return
        self._told = False
        log.info("agent_gpus_found", count=len(self._gpus))
        for gpu in self._gpus:
            if gpu.persistent == 0:
                log.warning("agent_persistence_mode_off", device=gpu.name, advice="start nvidia-persistenced")
