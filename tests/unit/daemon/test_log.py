"""A record is one line, whatever is in it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from tandem import log


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_has_time_level_part_message_and_fields(stream: io.StringIO) -> None:
    log.set_up("info", stream)
    fields = {"pod": "default/web", "ms": 5, "why": "two words", "empty": ""}
    logging.getLogger("tandem.part").info("started %s", "it", extra={"fields": fields})
    stamp, _, rest = stream.getvalue().partition(" ")
    assert stamp.endswith("Z")
    assert rest == 'info    tandem.part started it pod=default/web ms=5 why="two words" empty=""\n'


def test_what_a_client_sent_cannot_forge_a_line(stream: io.StringIO) -> None:
    log.set_up("info", stream)
    logging.getLogger("a").warning("x\n2026 error b", extra={"fields": {"name": "y\nz"}})
    assert stream.getvalue().count("\n") == 1
    assert "x\\n2026 error b name=y\\nz" in stream.getvalue()


def test_a_traceback_follows_on_indented_lines(stream: io.StringIO) -> None:
    log.set_up("info", stream)
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("a").exception("failed")
    first, *more = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in more)
    assert more[-1] == "    ValueError: bad"


def test_less_than_the_level_is_not_written(stream: io.StringIO) -> None:
    log.set_up("warning", stream)
    logging.getLogger("a").info("quiet")
    assert stream.getvalue() == ""
