"""The SunSpec points used here: type, offset from the model's ID register, offset of the scale factor."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Type(NamedTuple):
    """A SunSpec type: struct format, size in registers, the raw value that means not implemented (NaN has none)."""

    form: str
    words: int
    sentinel: int | None


class Point(NamedTuple):
    """Where a value lies in its model."""

    type: str
    offset: int
    scale_offset: int | None = None


TYPES: Mapping[str, Type] = MappingProxyType(
    {
        "int16": Type("h", 1, -0x8000),
        "uint16": Type("H", 1, 0xFFFF),
        "enum16": Type("H", 1, 0xFFFF),
        "bitfield16": Type("H", 1, 0xFFFF),
        "int32": Type("i", 2, -0x80000000),
        "uint32": Type("I", 2, 0xFFFFFFFF),
        "bitfield32": Type("I", 2, 0xFFFFFFFF),
        "uint64": Type("Q", 4, 0xFFFFFFFFFFFFFFFF),
        "acc32": Type("I", 2, 0),
        "float32": Type("f", 2, None),
    }
)

_INVERTER_INT = {
    "W": Point("int16", 14, 15),
    "St": Point("enum16", 38),
    "Evt1": Point("bitfield32", 40),
}
_INVERTER_FLOAT = {
    "W": Point("float32", 22),
    "St": Point("enum16", 48),
    "Evt1": Point("bitfield32", 50),
}
_METER_INT = {"W": Point("int16", 18, 22), "TotWhImp": Point("acc32", 46, 54)}
_METER_FLOAT = {"W": Point("float32", 28), "TotWhImp": Point("float32", 68)}

MODELS: Mapping[int, Mapping[str, Point]] = MappingProxyType(
    {
        **dict.fromkeys((101, 102, 103), _INVERTER_INT),
        **dict.fromkeys((111, 112, 113), _INVERTER_FLOAT),
        **dict.fromkeys((201, 202, 203, 204), _METER_INT),
        **dict.fromkeys((211, 212, 213, 214), _METER_FLOAT),
        120: {
            "WRtg": Point("uint16", 3, 4),
            "MaxChaRte": Point("uint16", 23, 24),
            "MaxDisChaRte": Point("uint16", 25, 26),
        },
        121: {"WMax": Point("uint16", 2, 22)},
        122: {"WAval": Point("uint16", 31, 32)},
        123: {
            "WMaxLimPct": Point("uint16", 5, 23),
            "WMaxLimPct_WinTms": Point("uint16", 6),
            "WMaxLimPct_RvrtTms": Point("uint16", 7),
            "WMaxLimPct_RmpTms": Point("uint16", 8),
            "WMaxLim_Ena": Point("enum16", 9),
            "WMaxLimPct_SF": Point("int16", 23),
        },
        124: {
            "WChaMax": Point("uint16", 2, 18),
            "StorCtl_Mod": Point("bitfield16", 5),
            "MinRsvPct": Point("uint16", 7, 21),
            "ChaState": Point("uint16", 8, 22),
            "OutWRte": Point("int16", 12, 25),
            "InWRte": Point("int16", 13, 25),
            "InOutWRte_WinTms": Point("uint16", 14),
            "InOutWRte_RvrtTms": Point("uint16", 15),
            "MinRsvPct_SF": Point("int16", 21),
            "InOutWRte_SF": Point("int16", 25),
        },
        701: {
            "InvSt": Point("enum16", 4),
            "Alrm": Point("bitfield32", 6),
            "DERMode": Point("bitfield32", 8),
            "W": Point("int16", 10, 116),
            "TotWhAbs": Point("uint64", 23, 120),
        },
        702: {
            "WMaxRtg": Point("uint16", 2, 45),
            "WChaRteMaxRtg": Point("uint16", 10, 45),
            "WDisChaRteMaxRtg": Point("uint16", 11, 45),
            "WMax": Point("uint16", 26, 45),
            "WChaRteMax": Point("uint16", 34, 45),
            "WDisChaRteMax": Point("uint16", 35, 45),
        },
        704: {
            "WMaxLimPctEna": Point("enum16", 14),
            "WMaxLimPct": Point("uint16", 15, 54),
            "WMaxLimPctRvrtTms": Point("uint32", 18),
            "WSetEna": Point("enum16", 22),
            "WSetMod": Point("enum16", 23),
            "WSet": Point("int32", 24, 55),
            "WSetPct": Point("int16", 28, 56),
            "WSetPctRvrt": Point("int16", 29, 56),
            "WSetRvrtTms": Point("uint32", 31),
            "WMaxLimPct_SF": Point("int16", 54),
            "WSet_SF": Point("int16", 55),
            "WSetPct_SF": Point("int16", 56),
        },
        713: {"SoC": Point("uint16", 4, 8), "Sta": Point("enum16", 6)},
        715: {"LocRemCtl": Point("enum16", 2), "ControllerHb": Point("uint32", 5)},
        802: {
            "WChaRteMax": Point("uint16", 4, 54),
            "WDisChaRteMax": Point("uint16", 5, 54),
            "SoCMax": Point("uint16", 7, 56),
            "SoCMin": Point("uint16", 8, 56),
            "SoCRsvMin": Point("uint16", 10, 56),
            "SoC": Point("uint16", 11, 56),
            "LocRemCtl": Point("enum16", 17),
            "CtrlHb": Point("uint16", 19),
            "State": Point("enum16", 22),
            "Evt1": Point("bitfield32", 26),
            "W": Point("int16", 47, 63),
            "SoC_SF": Point("int16", 56),
        },
    }
)
