"""The daemon's log: one line an event, for people and for machines.

    2026-11-22T15:04:05.123Z info  tandem.control.pods.loop  Pod started  pod=default/web ms=131

Time, level, part, message, then the fields given as ``extra={"fields": {...}}``. Workload secrets and
request bodies are never logged; callers pass names and numbers.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO


class LineFormatter(logging.Formatter):
    """One physical line a record, whatever is in the message: line breaks are escaped, so that text
    which came from a client cannot forge a line. A traceback follows on lines that are indented."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        parts = [
            f"{stamp}.{int(record.msecs):03d}Z",
            f"{record.levelname.lower():<7}",
            record.name,
            _one_line(record.getMessage()),
            *(f"{key}={_value(value)}" for key, value in fields.items()),
        ]
        line = " ".join(parts)
        if record.exc_info and record.exc_info[0] is not None:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {_one_line(part)}" for part in trace.splitlines())
        return line


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Send everything of ``level`` and above to ``stream`` (stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # By which process and thread a record was logged: asked of the system each time, never shown.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False


def _one_line(message: str) -> str:
    return (
        message.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        if ("\n" in message or "\r" in message)
        else message
    )


def _value(value: object) -> str:
    shown = _one_line(str(value))
    return f'"{shown}"' if " " in shown or not shown else shown
