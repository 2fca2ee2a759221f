"""The SunSpec faces of what is only seen or only limited: the feed's meter and the PV inverter."""

from __future__ import annotations

import math
from collections.abc import Callable

from vppd.sim.faults import Clock
from vppd.sim.modbus import ILLEGAL_VALUE, Illegal
from vppd.sim.physics import FeedState, PvSpec, PvState
from vppd.sim.registers import PointName, SunSpecUnit, count_wh, current_a, line_frequency_hz, raw

_LINE_V = 480.0
_FULL_PCT = 10_000
_MPPT, _THROTTLED = 4, 5
_PV_DER = 4


class MeterUnit(SunSpecUnit):
    """Three-phase meter at a feed's point of interconnection: models 1 and 203, W + = import."""

    def __init__(self, name: str, state: Callable[[], FeedState], clock: Clock) -> None:
        super().__init__(name, (1, 203), (), clock)
        self._state = state
        line, phase = raw(_LINE_V, -1), raw(_LINE_V / math.sqrt(3.0), -1)
        self._bank.put(203, A_SF=0, V_SF=-1, Hz_SF=-2, W_SF=2, TotWh_SF=0, Evt=0, Hz=raw(line_frequency_hz(), -2))
        self._bank.put(203, PhV=phase, PhVphA=phase, PhVphB=phase, PhVphC=phase)
        self._bank.put(203, PPV=line, PhVphAB=line, PhVphBC=line, PhVphCA=line)

    def refresh(self) -> None:
        """Bring the registers up to now."""
        state = self._state()
        phase = raw(current_a(state.power_w, _LINE_V))
        self._bank.put(203, W=raw(state.power_w, 2), A=3 * phase, AphA=phase, AphB=phase, AphC=phase)
        self._bank.put(203, TotWhImp=count_wh(state.imported_wh), TotWhExp=count_wh(state.exported_wh))


class PvUnit(SunSpecUnit):
    """PV inverter: models 1, 103, 120, 121, 123, W + = generation; its limit ends with its reversion timer."""

    def __init__(self, name: str, spec: PvSpec, state: Callable[[], PvState], clock: Clock) -> None:
        controls = ("WMaxLimPct", "WMaxLimPct_WinTms", "WMaxLimPct_RvrtTms", "WMaxLimPct_RmpTms", "WMaxLim_Ena")
        super().__init__(name, (1, 103, 120, 121, 123), [(123, point) for point in controls], clock)
        self._spec = spec
        self._state = state
        self._reverts_at_s = math.inf
        self._followed_w = math.inf
        self._nameplate()

    def limit_w(self) -> float:
        """Return the most the plant may give now, inf for no limit. [W, >= 0]"""
        self._expire()
        if self._bank.get(123, "WMaxLim_Ena") != 1:
            return math.inf
        return self._spec.rated_w * self._bank.get(123, "WMaxLimPct") / _FULL_PCT

    def refresh(self) -> None:
        """Bring the registers up to now."""
        self._expire()
        state = self._state()
        phase = raw(current_a(state.output_w, _LINE_V))
        throttled = state.output_w < 0.99 * state.available_w
        self._bank.put(
            103, W=raw(state.output_w, 1), WH=count_wh(state.generated_wh), St=_THROTTLED if throttled else _MPPT
        )
        self._bank.put(103, A=3 * phase, AphA=phase, AphB=phase, AphC=phase)

    def check(self, touched: frozenset[PointName]) -> None:
        """Judge registers just written. Raises Illegal beyond 100 % and for unknown switches."""
        if self._bank.get(123, "WMaxLimPct") > _FULL_PCT or self._bank.get(123, "WMaxLim_Ena") not in (0, 1):
            raise Illegal(ILLEGAL_VALUE)

    def accept(self, touched: frozenset[PointName]) -> None:
        """Start the reversion timer anew and note what is followed now."""
        self.log.writes += 1
        timer_s = self._bank.get(123, "WMaxLimPct_RvrtTms")
        enabled = self._bank.get(123, "WMaxLim_Ena") == 1
        self._reverts_at_s = self._clock() + timer_s if enabled and timer_s else math.inf
        self._note("write")

    def _expire(self) -> None:
        """End the limit when its timer has run out."""
        if self._clock() < self._reverts_at_s:
            return
        self._reverts_at_s = math.inf
        self._bank.put(123, WMaxLim_Ena=0)
        self.log.reversions += 1
        self._note("reversion")

    def _note(self, what: str) -> None:
        """Log a change of the limit."""
        now_w = self.limit_w()
        if now_w == self._followed_w:
            return
        self._followed_w = now_w
        self.log.transitions += what == "write"
        self.log.note(self._clock(), what, -now_w if math.isfinite(now_w) else None)

    def _nameplate(self) -> None:
        """Fill in what never changes."""
        rated, phase = raw(self._spec.rated_w, 1), raw(_LINE_V / math.sqrt(3.0), -1)
        self._bank.put(103, A_SF=0, V_SF=-1, W_SF=1, Hz_SF=-2, WH_SF=0, Tmp_SF=0, TmpCab=35, Evt1=0, Evt2=0)
        self._bank.put(103, PhVphA=phase, PhVphB=phase, PhVphC=phase, Hz=raw(line_frequency_hz(), -2))
        self._bank.put(120, DERTyp=_PV_DER, WRtg=rated, WRtg_SF=1, VARtg=rated, VARtg_SF=1, ARtg=200, ARtg_SF=0)
        self._bank.put(121, WMax=rated, WMax_SF=1, VRef=raw(_LINE_V), VRef_SF=0, VRefOfs=0, VRefOfs_SF=0)
        self._bank.put(123, Conn=1, WMaxLimPct=_FULL_PCT, WMaxLimPct_SF=-2, WMaxLim_Ena=0, WMaxLimPct_RvrtTms=0)
        self._bank.put(123, WMaxLimPct_WinTms=0, WMaxLimPct_RmpTms=0)
        self._bank.put(123, OutPFSet=raw(1.0, -3), OutPFSet_SF=-3, OutPFSet_Ena=0, VArPct_Ena=0)
