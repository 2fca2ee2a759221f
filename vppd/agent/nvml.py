"""GPUs through NVML, by NVIDIA's own Python binding, which is loaded only when a GPU is asked for.

Every call blocks, usually for well under 10 ms, sometimes for a second while a GPU wakes up: the agent calls from its one
worker thread, never from the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, TypeVar

from vppd.agent.device import Clocks, Limits, Reading
from vppd.errors import ConfigError, DeviceError, Refused, Unreachable

T = TypeVar("T")
_REFUSED = (
    "NotSupported",
    "NoPermission",
    "InvalidArgument",
    "FunctionNotFound",
    "FreqNotSupported",
    "InsufficientPower",
)
"""NVML's clear noes; anything else (lost, not ready, time-out, driver gone, unknown) may be different next time."""


class Nvml:
    """The library, initialised. Close it to let the driver go."""

    def __init__(self) -> None:
        """Load the binding and the driver's library. Raises ConfigError (no binding) or Unreachable (no driver)."""
        try:
            self.lib: Any = import_module("pynvml")
        except ImportError as error:
            raise ConfigError("GPUs need NVIDIA's binding: install vppd[gpu], or set gpus.watch = false") from error
        self.call(self.lib.nvmlInit)

    def close(self) -> None:
        """Give the library back."""
        try:
            self.call(self.lib.nvmlShutdown)
        except DeviceError:
            return  # it was gone already

    def devices(self) -> list[Gpu]:
        """Return all GPUs that can be reached, by index. Raises Unreachable when the driver has gone."""
        found: list[Gpu] = []
        for index in range(self.call(self.lib.nvmlDeviceGetCount)):
            try:
                found.append(Gpu(self, index))
            except DeviceError:
                continue  # fallen off the bus; the others must not suffer
        return found

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what NVML answers. Raises Refused for its clear noes, Unreachable for the rest."""
        try:
            return function(*arguments)
        except self.lib.NVMLError as error:
            text = f"{getattr(function, '__name__', 'nvml')}: {error}"
            names = (f"NVMLError_{name}" for name in _REFUSED)
            no = tuple(kind for name in names if (kind := getattr(self.lib, name, None)) is not None)
            raise (Refused if isinstance(error, no) else Unreachable)(text) from error

    def maybe(self, function: Callable[..., T], *arguments: object) -> T | None:
        """Return what NVML answers, None where the GPU does not offer it. Raises Unreachable when the GPU is lost."""
        try:
            return self.call(function, *arguments)
        except Refused:
            return None


class Gpu:
    """One GPU. A limit set here holds for the whole of it, all tenants and MIG slices."""

    kind: Literal["gpu"] = "gpu"

    def __init__(self, nvml: Nvml, index: int) -> None:
        self._nvml, self.index = nvml, index
        lib = nvml.lib
        self._handle: Any = nvml.call(lib.nvmlDeviceGetHandleByIndex, index)
        self.name = str(nvml.call(lib.nvmlDeviceGetUUID, self._handle))
        self._product = nvml.maybe(lib.nvmlDeviceGetName, self._handle)
        self.limits = self._limits()
        self.persistent = nvml.maybe(lib.nvmlDeviceGetPersistenceMode, self._handle)
        """1: the driver stays loaded, and with it the limits, when no program uses the GPU."""

    def about(self) -> dict[str, str | int]:
        """Return index and product name."""
        return {"index": self.index} | ({"name": str(self._product)} if self._product else {})

    def read(self) -> Reading:
        """Return what is known now. Raises Unreachable when the GPU is lost."""
        lib = self._nvml.lib
        busy = self._maybe(lib.nvmlDeviceGetUtilizationRates)
        celsius = self._maybe(lib.nvmlDeviceGetTemperature, lib.NVML_TEMPERATURE_GPU)
        clock = self._maybe(lib.nvmlDeviceGetClockInfo, lib.NVML_CLOCK_SM)
        return Reading(
            power_w=_thousandth(self._maybe(lib.nvmlDeviceGetPowerUsage)),
            utilisation_frac=None if busy is None else busy.gpu / 100.0,
            energy_ws=_thousandth(self._maybe(lib.nvmlDeviceGetTotalEnergyConsumption)),
            cap_w=_thousandth(self._maybe(lib.nvmlDeviceGetPowerManagementLimit)),
            enforced_w=_thousandth(self._maybe(lib.nvmlDeviceGetEnforcedPowerLimit)),
            clock_mhz=None if clock is None else int(clock),
            temperature_c=None if celsius is None else float(celsius),
        )

    def cap_w(self) -> float:
        """Return the limit that was set last. Raises Unreachable, or Refused where there is no limit. [W]"""
        return float(self._call(self._nvml.lib.nvmlDeviceGetPowerManagementLimit)) / 1e3

    def set_cap(self, cap_w: float) -> None:
        """Set the limit. Raises Refused (range, permission, not offered) or Unreachable. [W]"""
        self._call(self._nvml.lib.nvmlDeviceSetPowerManagementLimit, round(cap_w * 1e3))

    def lock_clocks(self, clocks: Clocks) -> None:
        """Keep the SM clock between two values; NVML cannot be asked for the lock again. Raises as ``set_cap``. [MHz]"""
        self._call(self._nvml.lib.nvmlDeviceSetGpuLockedClocks, *clocks)

    def free_clocks(self) -> None:
        """Let the GPU choose its clocks again. Raises as ``set_cap``."""
        self._call(self._nvml.lib.nvmlDeviceResetGpuLockedClocks)

    def _limits(self) -> Limits | None:
        lib = self._nvml.lib
        between = self._maybe(lib.nvmlDeviceGetPowerManagementLimitConstraints)
        default_mw = self._maybe(lib.nvmlDeviceGetPowerManagementDefaultLimit)
        if between is None or default_mw is None:
            return None
        return Limits(between[0] / 1e3, between[1] / 1e3, default_mw / 1e3)

    def _call(self, function: Callable[..., T], *arguments: object) -> T:
        return self._nvml.call(function, self._handle, *arguments)

    def _maybe(self, function: Callable[..., T], *arguments: object) -> T | None:
        return self._nvml.maybe(function, self._handle, *arguments)


def _thousandth(milli: int | None) -> float | None:
    return None if milli is None else milli / 1e3
