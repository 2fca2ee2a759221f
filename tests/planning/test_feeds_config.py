"""``[forecast]`` and its feeds: what is asked for must be there, fit together and be safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vppd.config.forecast import ForecastConfig
from vppd.config.load import examine
from vppd.config.table import problems_of

HTTP = {"name": "spot", "series": "price/import", "kind": "http", "url": "https://a.example/x", "unit": "per_mwh"}
FILE = {"name": "sun", "series": "generation/pv-1", "kind": "file", "path": "pv.json", "unit": "kw"}

PLANT = """
[site]
id = "dc1"
agent_id = "a"
import_max_w = 1e6
[[feeds]]
tag = "main-a"
meter = "poi"
import_max_w = 1e6
[[assets]]
id = "poi"
kind = "meter"
feed = "main-a"
adapter = "x"
[[assets]]
id = "pv-1"
kind = "pv"
feed = "main-a"
adapter = "x"
rated_w = 1e5
[forecast]
"""


def feed(**more: Any) -> dict[str, Any]:
    """Return a feed of prices with keys replaced; ``...`` takes one out."""
    return {key: value for key, value in (HTTP | more).items() if value is not ...}


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"step_s": 700.0}, "not a whole number of 300 s that divides a day"),
        ({"step_s": 2100.0}, "not a whole number of 300 s that divides a day"),
        ({"time_zone": "Europe/Atlantis"}, "there is no time zone 'Europe/Atlantis'"),
        ({"time_zone": "../../etc/passwd"}, "there is no time zone"),
        ({"feeds": [feed(), feed(series="price/export")]}, "name 'spot' is used twice"),
        ({"feeds": [feed(trust="never")]}, "'score' or 'always'"),
        ({"feeds": [feed(series="price/both")]}, "allowed: load/FEED"),
        ({"feeds": [feed(series="compute/x/tier4")]}, "allowed: load/FEED"),
        ({"feeds": [feed(url=...)]}, "a feed of the kind http needs url"),
        ({"feeds": [feed(topic="a/b")]}, "a feed of the kind http has no topic"),
        ({"feeds": [feed(kind="mqtt")]}, "a feed of the kind mqtt needs topic"),
        ({"feeds": [feed(unit="kw")]}, "price/import is not told in kw, but in per_wh, per_kwh, per_mwh"),
        ({"feeds": [feed(series="carbon")]}, "carbon is not told in per_mwh"),
        ({"feeds": [feed(url="http://a.example/x")]}, "url must begin with https://"),
        ({"feeds": [feed(url="file:///etc/passwd", insecure_lab=True)]}, "url must begin with https://"),
        ({"feeds": [feed(url="https://")]}, "names no host"),
        ({"feeds": [feed(poll_s=0.1)]}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(table: dict[str, Any], complaint: str) -> None:
    """Each mistake is told in words that say what would be right."""
    with pytest.raises(ValidationError) as caught:
        ForecastConfig.model_validate(table)
    assert any(complaint in problem.reason for problem in problems_of(caught.value)), caught.value


def test_good_feeds_of_all_kinds() -> None:
    """A lab may use http, a topic needs no path, and names with slashes are left to those who know the plant."""
    topic = feed(name="m", kind="mqtt", url=..., topic="a/b", series="carbon", unit="g_per_kwh")
    lab = feed(name="l", url="http://127.0.0.1:1/x", insecure_lab=True, series="price/export")
    assert len(ForecastConfig.model_validate({"feeds": [feed(), FILE, topic, lab]}).feeds) == 4


def written(tmp_path: Path, feeds: str) -> tuple[list[str], Path | None]:
    """Return the mistakes of a whole configuration and where its first feed looks."""
    path = tmp_path / "vppd.toml"
    path.write_text(PLANT + feeds, encoding="utf-8")
    config, problems = examine(path)
    assert config is not None
    assert config.forecast is not None
    return [str(problem) for problem in problems], config.forecast.feeds[0].path


def test_paths_are_those_of_the_configuration(tmp_path: Path) -> None:
    """A relative path is relative to the file that names it."""
    found, where = written(
        tmp_path, '[[forecast.feeds]]\nname="s"\nseries="generation/pv-1"\nkind="file"\npath="x/pv.json"\nunit="kw"\n'
    )
    assert not found
    assert where == tmp_path / "x" / "pv.json"


@pytest.mark.parametrize(
    ("series", "unit", "complaint"),
    [
        ("generation/poi", "kw", "there is no series generation/poi (allowed: pv-1)"),
        ("load/main-b", "kw", "there is no series load/main-b (allowed: main-a)"),
        ("compute/hall/tier2", "kw", "there is no series compute/hall (allowed: none"),
        ("contract/wind", "kw", "(allowed: none: there is no entry in planning.contracts with a series contract/"),
    ],
)
def test_a_series_must_be_of_the_plant(tmp_path: Path, series: str, unit: str, complaint: str) -> None:
    """A feed about something that is not there is told when the file is checked, not when it first speaks."""
    text = f'[[forecast.feeds]]\nname="s"\nseries="{series}"\nkind="mqtt"\ntopic="a"\nunit="{unit}"\n'
    found, _ = written(tmp_path, text)
    assert any(complaint in problem for problem in found), found
    assert any("a table [forecast.feeds.broker], or [grid]" in problem for problem in found), found


def test_a_contract_needs_a_feed(tmp_path: Path) -> None:
    """Of a contract somebody has to tell what it produces; a feed of a contract that is named is fine."""
    feed = '[[forecast.feeds]]\nname="s"\nseries="contract/wind"\nkind="http"\nurl="https://a.example/x"\nunit="mw"\n'
    assert written(tmp_path, feed + '[planning]\ncontracts=["wind"]\n')[0] == []
    (problem,) = written(tmp_path, feed + '[planning]\ncontracts=["wind", "sun"]\n')[0]
    assert "planning.contracts: no feed tells contract/sun" in problem
    found = written(tmp_path, feed + '[planning]\ncontracts=["wind", "wind"]\n')[0]
    assert "'wind' is named twice" in found[0]


def test_files_are_looked_for_before_the_start(tmp_path: Path) -> None:
    """Authorities and tokens must be there, and nobody else may read a token; the document itself may come later."""
    (tmp_path / "open.token").write_text("x", encoding="utf-8")
    (tmp_path / "open.token").chmod(0o644)
    text = (
        '[[forecast.feeds]]\nname="s"\nseries="price/import"\nkind="http"\nurl="https://a.example/x"\nunit="per_mwh"\n'
        'ca_file="none.pem"\ntoken_file="open.token"\n'
        '[[forecast.feeds]]\nname="t"\nseries="carbon"\nkind="mqtt"\ntopic="x"\nunit="g_per_kwh"\n'
        'broker={host="b",ca_file="none.pem",username="u",password_file="none.password"}\n'
    )
    found, _ = written(tmp_path, text)
    keys = [problem.partition(":")[0] for problem in found]
    assert keys == [
        "forecast.feeds[0].ca_file", "forecast.feeds[0].token_file", "forecast.feeds[1].broker.ca_file",
        "forecast.feeds[1].broker.password_file",
    ]  # fmt: skip
    assert "can be read by others" in found[1]
