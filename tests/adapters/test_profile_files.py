"""Register profiles as files: the shipped ones load, every mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters._device_files import find
from adapters._profile_files import load, parse
from adapters.modbus_profile import Config
from tests.adapters.profile_rig import BATTERY, METER, edited
from vppd.errors import ConfigError

DEVICES = Path(__file__).parents[2] / "config" / "devices"
MODBUS = sorted(path for path in DEVICES.glob("*.toml") if 'transport = "modbus"' in path.read_text())
SHIPPED = {
    "apc-smart-ups",
    "dse-genset",
    "eastron-sdm630",
    "fox-ess-h3-smart",
    "huawei-sun2000",
    "janitza-umg96",
    "pv-inverter-fixed-sunspec",
    "schneider-iem3000",
    "sungrow-sh",
    "victron-gx",
}


def test_all_promised_profiles_are_there() -> None:
    """The set of shipped profiles is the promised one."""
    assert {path.stem for path in MODBUS} >= SHIPPED


@pytest.mark.parametrize("path", MODBUS, ids=lambda path: path.stem)
def test_shipped_profiles_load_and_say_their_source(path: Path) -> None:
    """Each file in config/devices is a valid profile that names its source, and none claims more than it has."""
    profile = load(path.stem)
    assert profile.source
    assert not profile.confirmed
    assert profile.role("power")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"colour": "red"}, "colour"),
        ({"wire__speed": 9600}, "wire.speed"),
        ({"points__power__adress": 3}, "points.power.adress"),
        ({"points__power__type": "float"}, "points.power.type"),
        ({"points__power__positive": None}, "positive is required"),
        ({"points__power__group": "slow"}, "points.power.group"),
        ({"points__power__unit": "kWh"}, "is none that role power can have"),
        ({"points__power__unit": "% of rating"}, "points.power.unit"),
        ({"points__power__scale_addr": 40}, "points.power.scale_addr"),
        ({"points__power__words": 3}, "words belongs to"),
        ({"points__power__scale": 0.0}, "scale must not be 0"),
        ({"wire__max_read_words": 1}, "takes 2 registers"),
        ({"wire__max_read_words": 126}, "wire.max_read_words"),
        ({"groups__fast": {}}, "every_s or at"),
        ({"schema": 2}, "schema"),
        ({"capability": "dispatchable"}, "needs commands and watchdog"),
        ({"transport": "carrier pigeon"}, "transport"),
        ({"identify": {"addr": 0, "type": "u16"}}, "equals or contains"),
    ],
)
def test_mistakes_name_file_and_key(changes: dict[str, Any], key: str) -> None:
    """A wrong profile is a ConfigError that says where."""
    with pytest.raises(ConfigError) as caught:
        parse(edited(METER, **changes), Path("some/test.toml"))
    assert "some/test.toml: " in str(caught.value)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"commands__power__verify": None}, "commands.power.verify"),
        ({"commands__power__release": []}, "commands.power.release"),
        ({"commands__power__persistence": "flash"}, "max_writes_per_day is required"),
        ({"commands__power__min": 1e5}, "min is greater than max"),
        ({"commands__power__unit": "%"}, "rated_power"),
        ({"commands__power__unit": "Hz"}, "no unit of power"),
        ({"commands__power__verify__point": "torque"}, "commands.power.verify.point"),
        ({"commands__power__steps": [{"addr": 1, "type": "s32", "write": "single", "const": 1}]}, "multiple"),
        ({"commands__power__steps": [{"addr": 1, "type": "u16", "write": "single"}]}, "const or from"),
        (
            {"commands__power__steps": [{"addr": 1, "type": "u16", "write": "single", "from": "direction"}]},
            "map belongs",
        ),
        ({"wire__max_write_words": 1}, "commands.power.steps"),
        ({"watchdog__refresh_s": 30.0}, "timeout_s / 3"),
        ({"watchdog__arm": None}, "arm (may be empty)"),
        ({"watchdog__fed_by": None}, "fed_by"),
        ({"watchdog": {"kind": "none"}}, "safe_forever"),
        ({"watchdog": None}, "needs commands and watchdog"),
        ({"capability": "observe"}, "takes none"),
        ({"wire__address_base": 1, "points__power__addr": 0}, "address_base"),
    ],
)
def test_mistakes_in_commands_name_the_key(changes: dict[str, Any], key: str) -> None:
    """What may be written is checked as strictly as what is read."""
    with pytest.raises(ConfigError) as caught:
        parse(edited(BATTERY, **changes), Path("test.toml"))
    assert key in str(caught.value)


def test_a_profile_is_named_like_its_file_and_unknown_names_list_the_known(tmp_path: Path) -> None:
    """Files cannot pose as others; a misspelt name shows what there is."""
    with pytest.raises(ConfigError, match="must be the file's name"):
        parse(METER, Path("other.toml"))
    with pytest.raises(ConfigError, match="eastron-sdm630"):
        find("eastron")
    broken = tmp_path / "test.toml"
    broken.write_text("= nothing")
    with pytest.raises(ConfigError, match=r"test\.toml"):
        load(str(broken))
    with pytest.raises(ConfigError, match="No such file"):
        load(str(tmp_path / "absent.toml"))


def test_the_working_folder_goes_before_the_shipped_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's own config/devices wins."""
    own = tmp_path / "config" / "devices" / "eastron-sdm630.toml"
    own.parent.mkdir(parents=True)
    own.write_text("")
    monkeypatch.chdir(tmp_path)
    assert find("eastron-sdm630").resolve() == own.resolve()
    assert find("dse-genset").is_file()


def test_a_wrong_profile_is_found_when_the_connection_is_checked() -> None:
    """``vppd check`` sees it, before anything starts; misspelt keys too."""
    with pytest.raises(ValidationError, match="there is no profile"):
        Config.model_validate({"host": "h", "profile": "nonsense"})
    with pytest.raises(ValidationError, match="reserve"):
        Config.model_validate({"host": "h", "profile": "dse-genset", "reserve": 1})
