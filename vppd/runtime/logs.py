"""Logging: one event a line, JSON for machines or columns for people; libraries' logs in the same stream."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog

from vppd.runtime.clock import Clock

Event = MutableMapping[str, Any]

_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def configure(
    level: str, clock: Clock, *, as_json: bool, to_journal: bool = False, stream: TextIO | None = None
) -> None:
    """Send all logs of ``level`` and above to ``stream`` (standard error); once, at start-up.

    ``to_journal`` prefixes each line with its priority, which systemd takes off again.
    """

    def stamp(_: object, __: str, event: Event) -> Event:
        event["at"] = clock.now().isoformat(timespec="milliseconds")
        return event

    out = stream or sys.stderr
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        stamp,
        structlog.processors.dict_tracebacks if as_json else structlog.processors.StackInfoRenderer(),
    ]
    render = _rendering(as_json=as_json, to_journal=to_journal, is_terminal=out.isatty())
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _take_over_libraries(level, out, shared, render)


@contextmanager
def traced(traceparent: str) -> Iterator[None]:
    """Put the trace id of a W3C ``traceparent`` on every line logged inside; without one, nothing."""
    parts = traceparent.split("-")
    values = {"trace_id": parts[1]} if len(parts) == 4 else {}
    with structlog.contextvars.bound_contextvars(**values):
        yield


def _rendering(*, as_json: bool, to_journal: bool, is_terminal: bool) -> structlog.types.Processor:
    inner: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=is_terminal)
    )

    def render(logger: Any, name: str, event: Event) -> str:
        priority = _PRIORITY.get(str(event.get("level")), 6)
        line = str(inner(logger, name, event))
        return f"<{priority}>{line}" if to_journal else line

    return render


def _take_over_libraries(
    level: str, out: TextIO, shared: list[structlog.types.Processor], render: structlog.types.Processor
) -> None:
    """Let the standard library's loggers write through ours, warnings and worse unless we debug."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(
        logging.DEBUG if level == "debug" else max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    )
