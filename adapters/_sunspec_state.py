"""What SunSpec state codes and alarm bits say in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from adapters._sunspec import Values

INVERTERS = (101, 102, 103, 111, 112, 113)

_INVERTER_ALARMS = (
    "ground fault",
    "DC over-voltage",
    "AC disconnect open",
    "DC disconnect open",
    "grid disconnected",
    "cabinet open",
    "manual shutdown",
    "over-temperature",
    "over-frequency",
    "under-frequency",
    "AC over-voltage",
    "AC under-voltage",
    "blown string fuse",
    "under-temperature",
    "memory loss",
    "hardware test failure",
    "manufacturer's alarm",
)
# Warnings of model 802 are left out: they are not faults.
_BATTERY_ALARMS: Mapping[int, str] = MappingProxyType(
    {
        0: "communication error",
        1: "over-temperature",
        3: "under-temperature",
        5: "over-charge current",
        7: "over-discharge current",
        9: "over-voltage",
        11: "under-voltage",
        13: "charge below minimum",
        15: "charge above maximum",
        18: "temperature imbalance",
        20: "contactor error",
        21: "fan error",
        22: "ground fault",
        23: "open door",
        24: "current imbalance",
        25: "other alarm",
        28: "configuration alarm",
    }
)
_STATES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        **{key: {7: "inverter fault"} for key in (f"{number}.St" for number in INVERTERS)},
        "701.InvSt": {6: "inverter fault"},
        "713.Sta": {2: "storage error"},
        "802.State": {99: "battery fault"},
        "715.LocRemCtl": {1: "in local control"},
        "802.LocRemCtl": {1: "in local control"},
    }
)
_ALARMS: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        **{key: dict(enumerate(_INVERTER_ALARMS)) for key in (f"{number}.Evt1" for number in INVERTERS)},
        "701.Alrm": dict(enumerate(_INVERTER_ALARMS)),
        "802.Evt1": _BATTERY_ALARMS,
    }
)
_GRID_FOLLOWING, _GRID_FORMING, _GRID_DISCONNECT = 1 << 0, 1 << 1, 1 << 4


def state_keys(models: Iterable[int]) -> tuple[str, ...]:
    """Return the points of ``models`` that tell how the device is."""
    chosen = {str(number) for number in models}
    return tuple(key for key in (*_STATES, *_ALARMS) if key.partition(".")[0] in chosen)


def fault_text(values: Values) -> str:
    """Return the device's alarms in words, empty when it is well."""
    said = [
        names[int(code)] for key, names in _STATES.items() if (code := values.get(key)) in names and code is not None
    ]
    for key, names in _ALARMS.items():
        bits = int(values.get(key) or 0)
        said += [name for bit, name in names.items() if bits >> bit & 1]
    return ", ".join(dict.fromkeys(said))


def is_islanded(values: Values) -> bool:
    """Say whether the device feeds its load without the grid."""
    mode, alarms = int(values.get("701.DERMode") or 0), int(values.get("701.Alrm") or 0)
    return bool(alarms & _GRID_DISCONNECT) or (bool(mode & _GRID_FORMING) and not mode & _GRID_FOLLOWING)
