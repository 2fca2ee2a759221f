"""SunSpec register maps: the layout of the models the site speaks, and a bank of registers in that layout.

A layout names the points a simulated device fills; all others are there with their type's "not implemented" value, so that a stock
client finds every model whole. Point order, types and sizes follow the SunSpec information models.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BASE_ADDRESS = 40000

LAYOUTS: Mapping[int, str] = {
    1: "Mn:str16 Md:str16 Opt:str8 Vr:str8 SN:str16 DA:u16 pad",
    103: (
        "A:u16 AphA:u16 AphB:u16 AphC:u16 A_SF:sf 3*u16 PhVphA:u16 PhVphB:u16 PhVphC:u16 V_SF:sf W:i16 W_SF:sf Hz:u16 Hz_SF:sf "
        "i16 sf i16 sf i16 sf WH:acc32 WH_SF:sf u16 sf u16 sf i16 sf TmpCab:i16 3*i16 Tmp_SF:sf St:e16 e16 Evt1:b32 Evt2:b32 4*b32"
    ),
    120: "DERTyp:e16 WRtg:u16 WRtg_SF:sf VARtg:u16 VARtg_SF:sf 4*i16 sf ARtg:u16 ARtg_SF:sf 4*i16 sf u16 sf u16 sf u16 sf u16 sf pad",
    121: (
        "WMax:u16 VRef:u16 VRefOfs:i16 3*u16 4*i16 WGra:u16 4*i16 2*e16 2*u16 e16 WMax_SF:sf VRef_SF:sf VRefOfs_SF:sf 3*sf "
        "WGra_SF:sf 3*sf"
    ),
    123: (
        "2*u16 Conn:e16 WMaxLimPct:u16 WMaxLimPct_WinTms:u16 WMaxLimPct_RvrtTms:u16 WMaxLimPct_RmpTms:u16 WMaxLim_Ena:e16 "
        "OutPFSet:i16 3*u16 OutPFSet_Ena:e16 3*i16 3*u16 e16 VArPct_Ena:e16 WMaxLimPct_SF:sf OutPFSet_SF:sf sf"
    ),
    203: (
        "A:i16 AphA:i16 AphB:i16 AphC:i16 A_SF:sf PhV:i16 PhVphA:i16 PhVphB:i16 PhVphC:i16 PPV:i16 PhVphAB:i16 PhVphBC:i16 "
        "PhVphCA:i16 V_SF:sf Hz:i16 Hz_SF:sf W:i16 3*i16 W_SF:sf 4*i16 sf 4*i16 sf 4*i16 sf TotWhExp:acc32 3*acc32 "
        "TotWhImp:acc32 3*acc32 TotWh_SF:sf 8*acc32 sf 16*acc32 sf Evt:b32"
    ),
    701: (
        "ACType:e16 St:e16 InvSt:e16 ConnSt:e16 Alrm:b32 DERMode:b32 W:i16 VA:i16 3*i16 LLV:u16 u16 Hz:u32 TotWhInj:u64 "
        "TotWhAbs:u64 2*u64 11*i16 2*u16 4*u64 5*i16 2*u16 4*u64 5*i16 2*u16 4*u64 u16 b32 sf V_SF:sf Hz_SF:sf W_SF:sf sf "
        "VA_SF:sf sf TotWh_SF:sf 2*sf str32"
    ),
    702: (
        "WMaxRtg:u16 4*u16 VAMaxRtg:u16 2*u16 WChaRteMaxRtg:u16 WDisChaRteMaxRtg:u16 9*u16 2*e16 CtrlModes:b32 b16 WMax:u16 4*u16 "
        "VAMax:u16 2*u16 WChaRteMax:u16 WDisChaRteMax:u16 8*u16 b16 W_SF:sf sf VA_SF:sf 4*sf"
    ),
    704: (
        "2*e16 2*u32 2*e16 2*u32 WMaxLimPctEna:e16 WMaxLimPct:u16 WMaxLimPctRvrt:u16 WMaxLimPctEnaRvrt:e16 WMaxLimPctRvrtTms:u32 "
        "WMaxLimPctRvrtRem:u32 WSetEna:e16 WSetMod:e16 WSet:i32 WSetRvrt:i32 WSetPct:i16 WSetPctRvrt:i16 WSetEnaRvrt:e16 "
        "WSetRvrtTms:u32 WSetRvrtRem:u32 3*e16 2*i32 2*i16 e16 2*u32 WRmp:u16 WRmpRef:e16 u16 e16 sf WMaxLimPct_SF:sf WSet_SF:sf "
        "WSetPct_SF:sf 2*sf u16 e16 u16 e16 u16 e16 u16 e16"
    ),
    713: "WHRtg:u16 WHAvail:u16 SoC:u16 SoH:u16 Sta:e16 WH_SF:sf Pct_SF:sf",
    715: "LocRemCtl:e16 DERHb:u32 ControllerHb:u32 AlarmReset:u16 OpCtl:e16",
    802: (
        "AHRtg:u16 WHRtg:u16 WChaRteMax:u16 WDisChaRteMax:u16 u16 SoCMax:u16 SoCMin:u16 SocRsvMax:u16 SoCRsvMin:u16 SoC:u16 u16 "
        "SoH:u16 u32 ChaSt:e16 LocRemCtl:e16 Hb:u16 CtrlHb:u16 AlmRst:u16 Typ:e16 State:e16 e16 u32 Evt1:b32 Evt2:b32 "
        "EvtVnd1:b32 EvtVnd2:b32 V:u16 9*u16 A:i16 2*u16 W:i16 e16 i16 SetOp:e16 SetInvState:e16 AHRtg_SF:sf WHRtg_SF:sf "
        "WChaDisChaMax_SF:sf sf SoC_SF:sf sf SoH_SF:sf V_SF:sf CellV_SF:sf A_SF:sf AMax_SF:sf W_SF:sf"
    ),
}
"""Model id -> points in order after ID and L; ``3*u16`` is three unnamed points that are not implemented."""

_FORMATS = {
    "i16": (">h", -0x8000),
    "u16": (">H", 0xFFFF),
    "e16": (">H", 0xFFFF),
    "b16": (">H", 0xFFFF),
    "sf": (">h", -0x8000),
    "pad": (">h", -0x8000),
    "i32": (">i", -0x8000_0000),
    "u32": (">I", 0xFFFF_FFFF),
    "b32": (">I", 0xFFFF_FFFF),
    "acc32": (">I", 0),
    "u64": (">Q", 0xFFFF_FFFF_FFFF_FFFF),
}


@dataclass(frozen=True, slots=True)
class Point:
    """Where a point lies in the bank, in bytes from its start, and how it is packed."""

    offset: int
    size: int
    packed: struct.Struct | None
    """None for strings."""
    missing: int

    def numbers(self) -> range:
        """Return the registers the point occupies, counted from the start of the bank."""
        return range(self.offset // 2, (self.offset + self.size) // 2)


class Bank:
    """All registers of one device, from "SunS" to the end marker, as the bytes that go on the wire."""

    def __init__(self, models: Iterable[int]) -> None:
        self._bytes = bytearray(b"SunS")
        self._points: dict[tuple[int, str], Point] = {}
        for model in models:
            self._append(model)
        self._bytes += struct.pack(">HH", 0xFFFF, 0)

    def __len__(self) -> int:
        """Return the number of registers."""
        return len(self._bytes) // 2

    def point(self, model: int, name: str) -> Point:
        """Return where a point lies. Raises KeyError for one the device does not fill."""
        return self._points[model, name]

    def get(self, model: int, name: str) -> int:
        """Return the raw number of a point."""
        point = self._points[model, name]
        assert point.packed is not None
        value: int = point.packed.unpack_from(self._bytes, point.offset)[0]
        return value

    def put(self, model: int, **values: int) -> None:
        """Store raw numbers."""
        for name, value in values.items():
            point = self._points[model, name]
            assert point.packed is not None
            point.packed.pack_into(self._bytes, point.offset, value)

    def put_text(self, model: int, **values: str) -> None:
        """Store strings, padded with NUL."""
        for name, value in values.items():
            point = self._points[model, name]
            self._bytes[point.offset : point.offset + point.size] = value.encode("ascii").ljust(point.size, b"\0")

    def read(self, start: int, count: int) -> bytes:
        """Return ``count`` registers from register ``start`` of the bank."""
        return bytes(self._bytes[2 * start : 2 * (start + count)])

    def write(self, start: int, data: bytes) -> None:
        """Overwrite registers from register ``start`` of the bank."""
        self._bytes[2 * start : 2 * start + len(data)] = data

    def _append(self, model: int) -> None:
        """Add a model with every point at its "not implemented" value."""
        head = len(self._bytes)
        self._bytes += struct.pack(">HH", model, 0)
        for entry in LAYOUTS[model].split():
            name, _, kind = entry.rpartition(":")
            times, _, kind = kind.rpartition("*")
            for _repeat in range(int(times or 1)):
                point = _point(len(self._bytes), kind)
                if name:
                    self._points[model, name] = point
                self._bytes += point.packed.pack(point.missing) if point.packed else bytes(point.size)
        struct.pack_into(">H", self._bytes, head + 2, (len(self._bytes) - head) // 2 - 2)


def _point(offset: int, kind: str) -> Point:
    """Return the point of a type at a byte offset."""
    if kind.startswith("str"):
        return Point(offset, 2 * int(kind.removeprefix("str")), None, 0)
    code, missing = _FORMATS[kind]
    packed = struct.Struct(code)
    return Point(offset, packed.size, packed, missing)
