"""Types and units a register profile may name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TYPES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "u16": ("H", 1),
        "s16": ("h", 1),
        "u32": ("I", 2),
        "s32": ("i", 2),
        "u64": ("Q", 4),
        "s64": ("q", 4),
        "f32": ("f", 2),
        "f64": ("d", 4),
        "acc32": ("I", 2),
        "bits16": ("H", 1),
        "bits32": ("I", 2),
        "enum16": ("H", 1),
        "str": ("s", 0),
    }
)
"""Type -> struct format and registers."""

SUNSPEC_ABSENT: Mapping[str, int] = MappingProxyType(
    {
        "u16": 0xFFFF,
        "s16": 0x8000,
        "u32": 0xFFFFFFFF,
        "s32": 0x80000000,
        "u64": 0xFFFFFFFFFFFFFFFF,
        "s64": 0x8000000000000000,
        "acc32": 0,
        "bits16": 0xFFFF,
        "bits32": 0xFFFFFFFF,
        "enum16": 0xFFFF,
    }
)
"""Raw code, unsigned, that means not implemented; a float says it by NaN."""

SAMPLE_UNITS: Mapping[str, str] = MappingProxyType(
    {"power": "W", "energy_import": "Wh", "soc": "%", "reserve_soc": "%", "rated_power": "W"}
)
"""Role -> dimension, for the roles that reach a Sample."""

_UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "W": ("W", 1.0),
        "kW": ("W", 1e3),
        "MW": ("W", 1e6),
        "Wh": ("Wh", 1.0),
        "kWh": ("Wh", 1e3),
        "MWh": ("Wh", 1e6),
        "%": ("%", 1e-2),
    }
)


def factor(unit: str, dimension: str) -> float | None:
    """Return what turns ``unit`` into W, Wh or a fraction, None when it is of another dimension.

    ``% of POINT`` is a power: a fraction, times that point.
    """
    if unit.startswith("% of ") and dimension == "W":
        return 1e-2
    found = _UNITS.get(unit)
    return found[1] if found is not None and found[0] == dimension else None
