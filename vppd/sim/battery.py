"""The SunSpec face of a storage unit: models 1, 701, 702, 704, 713, 715, 802; W + = discharge on the wire, as SunSpec has it."""

from __future__ import annotations

import math
from collections.abc import Callable

from vppd.sim.faults import Clock
from vppd.sim.modbus import ILLEGAL_VALUE, Illegal
from vppd.sim.physics import StorageCommand
from vppd.sim.registers import PointName, SunSpecUnit, line_frequency_hz, raw
from vppd.sim.storage import StorageSpec, StorageState

_FULL_PCT = 10_000
_HEARTBEATS: frozenset[PointName] = frozenset({(715, "ControllerHb"), (802, "CtrlHb")})
_SETPOINT = ("WSetEna", "WSetMod", "WSet", "WSetRvrt", "WSetPct", "WSetPctRvrt", "WSetEnaRvrt", "WSetRvrtTms")
_LIMIT = ("WMaxLimPctEna", "WMaxLimPct", "WMaxLimPctRvrt", "WMaxLimPctEnaRvrt", "WMaxLimPctRvrtTms")
_CONTROLS: tuple[PointName, ...] = (
    *((704, point) for point in (*_SETPOINT, *_LIMIT, "WRmp", "WRmpRef")),
    (715, "ControllerHb"),
    (715, "AlarmReset"),
    (715, "OpCtl"),
    (802, "SoCRsvMin"),
    (802, "SocRsvMax"),
    (802, "CtrlHb"),
    (802, "AlmRst"),
    (802, "SetOp"),
    (802, "SetInvState"),
)
_SWITCHES = ("WSetEna", "WSetMod", "WSetEnaRvrt", "WMaxLimPctEna", "WMaxLimPctEnaRvrt")
_RUNNING = (1, 3)
_EMPTY, _DISCHARGING, _CHARGING, _FULL, _HOLDING = 2, 3, 4, 5, 6
_STOP_LIMIT_W = 50.0


class StorageUnit(SunSpecUnit):
    """A battery or UPS that follows WSet while it is enabled, falls back when its timer or its controller's heartbeat ends."""

    def __init__(
        self,
        name: str,
        spec: StorageSpec,
        state: Callable[[], StorageState],
        clock: Clock,
        *,
        heartbeat_s: float = 30.0,
        before_look: Callable[[StorageUnit], None] | None = None,
    ) -> None:
        super().__init__(name, (1, 701, 702, 704, 713, 715, 802), _CONTROLS, clock)
        self._spec = spec
        self._state = state
        self._heartbeat_s = heartbeat_s
        self._before_look = before_look
        self._born_s = clock()
        self._set_ends_s = math.inf
        self._limit_ends_s = math.inf
        self._heart_stops_s = math.inf
        self._followed_w: float | None = None
        self._nameplate()

    def command(self) -> StorageCommand:
        """Return what the unit follows now; it rests at 0 W when nobody tells it anything."""
        self._expire()
        reserve_frac = self._bank.get(802, "SoCRsvMin") / _FULL_PCT
        target_w = self.setpoint_w()
        if target_w is None or self._bank.get(715, "OpCtl") not in _RUNNING:
            return StorageCommand(0.0, reserve_frac)
        if self._bank.get(704, "WMaxLimPctEna") == 1:
            target_w = max(target_w, -self._spec.rated_w * self._bank.get(704, "WMaxLimPct") / _FULL_PCT)
        return StorageCommand(target_w, reserve_frac)

    def setpoint_w(self) -> float | None:
        """Return the enabled setpoint, None when there is none. [W, + = charging]"""
        if self._bank.get(704, "WSetEna") != 1:
            return None
        if self._bank.get(704, "WSetMod") == 1:
            return -float(self._bank.get(704, "WSet"))
        return -self._spec.rated_w * self._bank.get(704, "WSetPct") / _FULL_PCT

    def refresh(self) -> None:
        """Bring the registers up to now."""
        if self._before_look is not None:
            self._before_look(self)
        self._expire()
        now_s, state = self._clock(), self._state()
        out = raw(-state.power_w, 1)
        soc = min(_FULL_PCT, max(0, raw(state.soc_frac, -4)))
        beat = int(now_s - self._born_s)
        self._bank.put(701, W=out, VA=abs(out), InvSt=3 if out else 7)
        self._bank.put(701, TotWhInj=int(state.discharged_wh), TotWhAbs=int(state.charged_wh))
        self._bank.put(
            704, WSetRvrtRem=_left(self._set_ends_s, now_s), WMaxLimPctRvrtRem=_left(self._limit_ends_s, now_s)
        )
        self._bank.put(713, WHAvail=raw(state.soc_frac * self._spec.capacity_wh, 2), SoC=soc)
        self._bank.put(715, DERHb=beat % 2**32)
        self._bank.put(
            802, W=out, SoC=soc, Hb=beat % 2**16, ChaSt=self._charge_state(state), A=raw(-state.power_w / 800.0)
        )

    def check(self, touched: frozenset[PointName]) -> None:
        """Judge registers just written. Raises Illegal beyond the nameplate, beyond 100 % and for unknown switches."""
        bank, rated = self._bank, self._spec.rated_w
        bad = (
            any(bank.get(704, switch) not in (0, 1) for switch in _SWITCHES)
            or abs(bank.get(704, "WSet")) > rated
            or abs(bank.get(704, "WSetRvrt")) > rated
            or abs(bank.get(704, "WSetPct")) > _FULL_PCT
            or bank.get(704, "WMaxLimPct") > _FULL_PCT
            or bank.get(802, "SoCRsvMin") > _FULL_PCT
            or bank.get(715, "OpCtl") not in (0, 1, 2, 3)
        )
        if bad:
            raise Illegal(ILLEGAL_VALUE)

    def accept(self, touched: frozenset[PointName]) -> None:
        """Restart the timers the write feeds, and note what is followed now."""
        now_s = self._clock()
        if touched & _HEARTBEATS:
            self.log.heartbeats += 1
            self._heart_stops_s = now_s + self._heartbeat_s
        if not touched - _HEARTBEATS:
            return
        self.log.writes += 1
        names = {name for model, name in touched if model == 704}
        if names & set(_SETPOINT):
            self._set_ends_s = now_s + self._timer_s("WSetEna", "WSetRvrtTms")
        if names & set(_LIMIT):
            self._limit_ends_s = now_s + self._timer_s("WMaxLimPctEna", "WMaxLimPctRvrtTms")
        self._note("write")

    def _timer_s(self, switch: str, timer: str) -> float:
        """Return how long a control lasts from now on, inf when it is off or has no timer. [s]"""
        seconds = self._bank.get(704, timer)
        return float(seconds) if self._bank.get(704, switch) == 1 and seconds else math.inf

    def _expire(self) -> None:
        """Fall back where a timer has run out or the controller's heart has stopped."""
        now_s = self._clock()
        if now_s >= self._set_ends_s:
            self._revert_setpoint()
            self._fell_back("reversion")
        if now_s >= self._limit_ends_s:
            self._limit_ends_s = math.inf
            self._bank.put(704, WMaxLimPctEna=self._bank.get(704, "WMaxLimPctEnaRvrt"))
            self._bank.put(704, WMaxLimPct=self._bank.get(704, "WMaxLimPctRvrt"))
            self._fell_back("reversion")
        if now_s >= self._heart_stops_s:
            self._heart_stops_s = math.inf
            if self._bank.get(704, "WSetEna") == 1:
                self._revert_setpoint()
                self._fell_back("heartbeat")

    def _revert_setpoint(self) -> None:
        """Put the programmed fallback in the place of the setpoint."""
        self._set_ends_s = math.inf
        self._bank.put(704, WSetEna=self._bank.get(704, "WSetEnaRvrt"), WSet=self._bank.get(704, "WSetRvrt"))
        self._bank.put(704, WSetPct=self._bank.get(704, "WSetPctRvrt"))

    def _fell_back(self, why: str) -> None:
        """Count and log a fallback."""
        self.log.reversions += 1
        self._note(why)

    def _note(self, what: str) -> None:
        """Log a change of the setpoint."""
        now_w = self.setpoint_w()
        if now_w == self._followed_w:
            return
        self._followed_w = now_w
        self.log.transitions += what == "write"
        self.log.note(self._clock(), what, now_w)

    def _charge_state(self, state: StorageState) -> int:
        """Return ChaSt."""
        if state.power_w > _STOP_LIMIT_W:
            return _CHARGING
        if state.power_w < -_STOP_LIMIT_W:
            return _DISCHARGING
        if state.soc_frac > 0.999:
            return _FULL
        return _EMPTY if state.soc_frac < 0.001 else _HOLDING

    def _nameplate(self) -> None:
        """Fill in what never changes, and the controls as they are after power-on."""
        bank, spec = self._bank, self._spec
        rated, charge, discharge = raw(spec.rated_w, 1), raw(spec.max_charge_w, 1), raw(spec.max_discharge_w, 1)
        bank.put(701, ACType=2, St=1, ConnSt=1, Alrm=0, DERMode=1, W_SF=1, VA_SF=1, Hz_SF=-2, TotWh_SF=0, V_SF=-1)
        bank.put(701, LLV=4800, Hz=raw(line_frequency_hz(), -2))
        bank.put(702, WMaxRtg=rated, VAMaxRtg=rated, WChaRteMaxRtg=rated, WDisChaRteMaxRtg=rated, CtrlModes=1)
        bank.put(702, WMax=rated, VAMax=rated, WChaRteMax=charge, WDisChaRteMax=discharge, W_SF=1, VA_SF=1)
        bank.put(704, **dict.fromkeys((*_SETPOINT, *_LIMIT, "WRmp", "WRmpRef", "WSetRvrtRem", "WMaxLimPctRvrtRem"), 0))
        bank.put(
            704, WSetMod=1, WMaxLimPct=_FULL_PCT, WMaxLimPctRvrt=_FULL_PCT, WMaxLimPct_SF=-2, WSet_SF=0, WSetPct_SF=-2
        )
        bank.put(704, WRmp=min(_FULL_PCT, raw(100.0 * spec.ramp_w_per_s / spec.rated_w)))
        bank.put(713, WHRtg=raw(spec.capacity_wh, 2), WH_SF=2, SoH=_FULL_PCT, Pct_SF=-2, Sta=0)
        bank.put(715, LocRemCtl=0, ControllerHb=0, AlarmReset=0, OpCtl=1)
        bank.put(802, AHRtg=raw(spec.capacity_wh / 800.0), WHRtg=raw(spec.capacity_wh, 2), WChaRteMax=charge)
        bank.put(802, WDisChaRteMax=discharge, SoCMax=_FULL_PCT, SoCMin=0, SocRsvMax=_FULL_PCT, SoH=_FULL_PCT)
        bank.put(802, SoCRsvMin=raw(spec.reserve_frac, -4), LocRemCtl=0, CtrlHb=0, AlmRst=0, Typ=4, State=3, V=8000)
        bank.put(802, Evt1=0, Evt2=0, EvtVnd1=0, EvtVnd2=0, SetOp=1, SetInvState=2)
        bank.put(802, AHRtg_SF=0, WHRtg_SF=2, WChaDisChaMax_SF=1, SoC_SF=-2, SoH_SF=-2, V_SF=-1, CellV_SF=-3)
        bank.put(802, A_SF=0, AMax_SF=0, W_SF=1)


def _left(ends_s: float, now_s: float) -> int:
    """Return the whole seconds left on a timer, 0 when none runs. [s]"""
    return math.ceil(ends_s - now_s) if math.isfinite(ends_s) else 0
