"""Lines for machines and for people."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from vppd.runtime.clock import FakeClock
from vppd.runtime.logs import configure, traced


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    """Return the JSON lines."""
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines_carry_event_level_time_and_keys() -> None:
    """One object a line."""
    out = io.StringIO()
    configure("info", FakeClock(), as_json=True, stream=out)
    structlog.get_logger().warning("device_lost", asset="ups-1", power_w=-5.0)
    structlog.get_logger().debug("too_fine")
    assert lines(out) == [
        {
            "event": "device_lost",
            "level": "warning",
            "asset": "ups-1",
            "power_w": -5.0,
            "at": "2026-01-01T00:00:00.000+00:00",
        }
    ]


def test_a_trace_goes_onto_every_line_inside() -> None:
    """The id of the dispatcher's traceparent, and nothing outside or without one."""
    out = io.StringIO()
    configure("info", FakeClock(), as_json=True, stream=out)
    log = structlog.get_logger()
    with traced("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"):
        log.info("inside")
    with traced(""):
        log.info("without")
    assert [line.get("trace_id") for line in lines(out)] == ["4bf92f3577b34da6a3ce929d0e0e4736", None]


def test_the_journal_gets_priorities() -> None:
    """Systemd takes the prefix off and stores it."""
    out = io.StringIO()
    configure("debug", FakeClock(), as_json=True, to_journal=True, stream=out)
    log = structlog.get_logger()
    for say in (log.debug, log.info, log.warning, log.error, log.critical):
        say("x")
    assert [line[:3] for line in out.getvalue().splitlines()] == ["<7>", "<6>", "<4>", "<3>", "<2>"]


def test_libraries_write_into_the_same_stream_from_warning_on() -> None:
    """Their chatter stays out."""
    out = io.StringIO()
    configure("info", FakeClock(), as_json=True, stream=out)
    logging.getLogger("some_library").info("chatter")
    logging.getLogger("some_library").warning("lost %s", "it")
    (line,) = lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("lost it", "warning", "some_library")


def test_an_exception_stays_one_line_of_json() -> None:
    """With its traceback as data."""
    out = io.StringIO()
    configure("info", FakeClock(), as_json=True, stream=out)
    try:
        int("bad")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(out)
    assert "bad" in json.dumps(line["exception"])


def test_people_get_columns() -> None:
    """No JSON, no colours where there is no terminal."""
    out = io.StringIO()
    configure("info", FakeClock(), as_json=False, stream=out)
    structlog.get_logger().info("started", site="dc1")
    assert "started" in out.getvalue()
    assert "site=dc1" in out.getvalue()
    assert "\x1b" not in out.getvalue()
