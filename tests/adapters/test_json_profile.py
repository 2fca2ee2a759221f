"""Profiles of JSON devices: what they may say, and how values are read by them."""

from __future__ import annotations

import asyncio
import json
import math
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters._json_points import Sequence, at, decode, epoch_s, placed, quantity
from adapters._json_profile import JsonConfig, Point, load
from adapters._json_state import DeviceState
from adapters._mqtt_news import Heard
from tests.support import ROOT
from vppd.errors import Garbled

SHIPPED = ROOT / "config" / "devices" / "json-battery.toml"
GOOD: dict[str, Any] = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))


def _changed(path: str, value: Any) -> dict[str, Any]:
    """Return the shipped profile with one key changed, or removed when ``value`` is None."""
    profile = deepcopy(GOOD)
    *tables, key = path.split(".")
    table = profile
    for name in tables:
        table = table[name]
    table[key] = value
    if value is None:
        del table[key]
    return profile


def _config(profile: object, **more: object) -> JsonConfig:
    return JsonConfig.model_validate({"host": "h", "base": "b", "profile": profile} | more)


@pytest.mark.parametrize("given_as", ["json-battery", str(SHIPPED), GOOD], ids=["name", "path", "in-line"])
def test_a_profile_is_given_by_name_path_or_in_line(given_as: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three ways give the same profile, and its topics take the connection's names."""
    monkeypatch.chdir(ROOT)
    config = _config(given_as, base="plant/bess-1")
    assert config.profile == load(str(SHIPPED))
    assert config.topic(config.profile.points["power"].topic) == "plant/bess-1/state"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("points.power.colour", "red", "colour"),
        ("points.power.positive", None, "positive"),
        ("points.power.unit", "hp", "hp"),
        ("points.power.max_age_s", None, "max_age_s"),
        ("points.power.pointer", "p_w", "pointer"),
        ("points.power.topic", "b/#", "topic"),
        ("points.power.good", [], "quality_pointer"),
        ("points.power.time_pointer", None, "time_pointer"),
        ("points.soc", None, "soc"),
        ("points.soc.role", "power", "frac"),
        ("commands.power.max", -60e3, "min must not"),
        ("commands.power.persistence", "flash", "volatile"),
        ("commands.power.envelope", False, "envelope"),
        ("commands.power.pointer", "", "pointer"),
        ("commands", {}, "command"),
        ("capability", "observe", "command"),
        ("watchdog", None, "watchdog"),
        ("watchdog.kind", "none", "safe_forever"),
        ("watchdog.refresh_s", 11.0, "third"),
        ("mqtt.keepalive_s", 5.0, "keepalive"),
        ("transport", "modbus", "mqtt"),
        ("schema", 2, "schema"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(path: str, value: object, reason: str) -> None:
    """Every wrong, missing or unknown key is refused with its name."""
    with pytest.raises(ValidationError, match=reason):
        _config(_changed(path, value))


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    """File and key are in the message, also for a file that is not there or no TOML."""
    path = tmp_path / "x.toml"
    path.write_text(SHIPPED.read_text(encoding="utf-8") + "\nsurplus = 1\n", encoding="utf-8")
    with pytest.raises(ValidationError, match=r"x\.toml: watchdog\.surplus"):
        _config(str(path))
    path.write_text("= 1", encoding="utf-8")
    with pytest.raises(ValidationError, match=r"x\.toml"):
        _config(str(path))
    with pytest.raises(ValidationError, match="No such file"):
        _config(str(tmp_path / "absent.toml"))
    with pytest.raises(ValidationError, match="no profile 'unheard-of'"):
        _config("unheard-of")


def test_a_name_without_a_value_is_found() -> None:
    """A topic that needs {base} needs a base."""
    with pytest.raises(ValidationError, match="base"):
        _config(GOOD, base="")


def _point(**more: Any) -> Point:
    return Point.model_validate(
        {"topic": "t", "role": "power", "unit": "W", "positive": "import", "max_age_s": 1.0} | more
    )


@pytest.mark.parametrize(
    ("raw", "more", "power_w"),
    [
        pytest.param(5, {}, 5.0, id="plain"),
        pytest.param(5, {"unit": "kW"}, 5e3, id="kW"),
        pytest.param(5, {"unit": "MW", "positive": "export"}, -5e6, id="exported-MW"),
        pytest.param(50, {"scale": 0.1, "offset": 1.0}, 6.0, id="scaled"),
        pytest.param(None, {}, None, id="null"),
    ],
)
def test_a_number_becomes_watts(raw: object, more: dict[str, Any], power_w: float | None) -> None:
    """Scale and offset first, then sign and unit."""
    assert quantity(raw, "W", _point(**more)) == power_w


@pytest.mark.parametrize("raw", ["5", True, [], {}, 101, 10**400, 1e300])
def test_what_is_no_number_in_range_is_garbled(raw: object) -> None:
    """Text, yes-or-no, and what lies outside the range are never a power."""
    with pytest.raises(Garbled):
        quantity(raw, "W", _point(range=(-100.0, 100.0)))


@given(st.binary(max_size=80))
def test_no_bytes_do_harm(payload: bytes) -> None:
    """Any bytes are read as JSON without NaN, or are Garbled."""
    try:
        value = decode(payload)
    except Garbled:
        return
    assert not (isinstance(value, float) and math.isnan(value))


@pytest.mark.parametrize("payload", [b"NaN", b"[Infinity]", b"[" * 100_000, b"\xff", b"", b"{"])
def test_what_is_not_json_is_garbled(payload: bytes) -> None:
    """NaN, Infinity and endless nesting are not JSON to us."""
    with pytest.raises(Garbled):
        decode(payload)


def test_pointers_lead_and_place() -> None:
    """RFC 6901 with its escapes, into tables and lists; what is placed is found."""
    document = {"a": [{"b/c": {"~": 7}}], "": 1}
    assert at(document, "/a/0/b~1c/~0") == 7
    assert at(document, "") == document
    assert at(placed("/x/y~1z", 3), "/x/y~1z") == 3
    for nowhere in ("/b", "/a/1", "/a/x", "/a/0/b~1c/~0/deeper"):
        with pytest.raises(Garbled):
            at(document, nowhere)


@pytest.mark.parametrize("raw", ["2026-07-01T12:00:00.000Z", "2026-07-01T14:00:00+02:00", 1782907200, 1782907200000])
def test_times_come_as_text_seconds_or_milliseconds(raw: object) -> None:
    """All of them are the same moment."""
    assert epoch_s(raw) == 1782907200.0


@pytest.mark.parametrize("raw", ["noon", "2026-07-01T12:00:00", None, True, -1, 1e15, math.inf])
def test_what_is_no_time_is_garbled(raw: object) -> None:
    """A time without a zone, or none at all, tells nothing."""
    with pytest.raises(Garbled):
        epoch_s(raw)


def test_a_sequence_lets_only_news_through() -> None:
    """Repeated and slightly older numbers are dropped, a fresh start is not."""
    sequence = Sequence()
    numbers = [100, 100, 99, 101, 68, 67, 68, 69]
    assert [n for n in numbers if sequence.is_new(n)] == [100, 101, 68, 69]


@pytest.mark.looptime
async def test_each_value_ages_by_itself() -> None:
    """A value is missing once it is older than its own max_age_s; the clock of the device runs on."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    power = _point(pointer="/p", max_age_s=5.0, time_pointer="/t")
    soc = Point(topic="t", role="soc", unit="%", pointer="/s", max_age_s=60.0)
    state = DeviceState({"t": [power, soc]})
    message = json.dumps({"p": 7, "s": 50, "t": 1_000_000.0}).encode()
    assert not state.take(Heard("t", message, retained=True, mono_s=loop.time()))
    assert state.device_time_s() is None
    assert state.take(Heard("t", message, retained=False, mono_s=loop.time()))
    assert state.next_old_s() == start_s + 5.0
    await asyncio.sleep(4.9)
    assert not state.forget_old(loop.time())
    assert state.number("power") == 7.0
    await asyncio.sleep(0.1)
    assert state.number("power") is None, "also before anybody has tidied up"
    assert state.forget_old(loop.time())
    assert (state.sample().power_w, state.sample().soc_frac) == (None, 0.5)
    assert state.device_time_s() == pytest.approx(1_000_005.0)
