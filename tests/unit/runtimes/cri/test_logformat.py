"""The CRI log format: records in, lines out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.cri.logformat import Formatter, start_of_last_lines


def record(text: str, *, second: int = 0, tag: str = "F", stream: str = "stdout") -> bytes:
    return f"2026-11-22T10:00:{second:02}.123456789Z {stream} {tag} {text}\n".encode()


LOG = record("one", second=1) + record("two", second=2, stream="stderr") + record("", second=3)


def output(data: bytes, **options: Any) -> bytes:
    return Formatter(LogOptions(**options)).feed(data)


def test_both_streams_are_one_output() -> None:
    assert output(LOG) == b"one\ntwo\n\n"


def test_a_line_in_parts_is_one_line() -> None:
    data = record("a" * 10, tag="P") + record("b", tag="P") + record("c") + record("d")
    assert output(data) == b"a" * 10 + b"bc\nd\n"


def test_the_time_stands_before_each_line_once() -> None:
    data = record("a", tag="P") + record("b") + record("c", second=5)
    time = b"2026-11-22T10:00:00.123456789Z "
    assert output(data, timestamps=True) == time + b"ab\n" + time.replace(b"00.1", b"05.1") + b"c\n"


def test_older_lines_are_dropped() -> None:
    since = datetime(2026, 11, 22, 10, 0, 2, tzinfo=UTC)
    assert output(LOG, since=since) == b"two\n\n"


def test_the_limit_cuts_inside_a_line() -> None:
    formatter = Formatter(LogOptions(limit_bytes=5))
    assert formatter.feed(LOG) == b"one\nt"
    assert formatter.finished
    assert formatter.feed(LOG) == b""


def test_the_last_lines_are_not_followed_by_what_comes_later() -> None:
    formatter = Formatter(LogOptions(tail_lines=2))
    assert formatter.feed(record("a", tag="P") + record("b") + LOG) == b"ab\none\n"
    assert formatter.finished
    assert Formatter(LogOptions(tail_lines=2, follow=True)).feed(LOG) == b"one\ntwo\n\n"


def test_what_is_no_record_is_shown_as_it_is() -> None:
    assert output(b"not a record\n\n2026 stdout\n", timestamps=True) == (
        b"not a record\n\n2026 stdout\n"
    )


def test_a_new_file_does_not_continue_the_old_ones_last_record() -> None:
    formatter = Formatter(LogOptions())
    assert formatter.feed(LOG + b"2026-11-22T10:00:04Z std") == b"one\ntwo\n\n"
    formatter.restart()
    assert formatter.feed(record("new")) == b"new\n"


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b)), st.integers(1, 40))
def test_the_pieces_a_file_is_read_in_do_not_matter(lines: list[bytes], step: int) -> None:
    data = b"".join(b"2026-11-22T10:00:00Z stdout F " + line + b"\n" for line in lines)
    formatter = Formatter(LogOptions())
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    assert b"".join(map(formatter.feed, pieces)) == b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(0, b""), (1, b"\n"), (2, b"two\n\n"), (3, b"one\ntwo\n\n"), (9, b"one\ntwo\n\n")],
)
def test_the_last_lines(lines: int, expected: bytes) -> None:
    start, _ = start_of_last_lines(LOG, lines, from_beginning=True)
    assert output(LOG[start:]) == expected


def test_a_line_in_parts_counts_as_one() -> None:
    data = record("first") + record("a", tag="P") + record("b", tag="P") + record("c")
    start, _ = start_of_last_lines(data, 1, from_beginning=True)
    assert output(data[start:]) == b"abc\n"


def test_a_line_that_has_not_ended_counts() -> None:
    data = record("first") + record("half", tag="P")
    start, _ = start_of_last_lines(data, 1, from_beginning=True)
    assert output(data[start:]) == b"half"


def test_a_piece_of_the_file_is_too_little_when_the_lines_may_begin_before_it() -> None:
    assert start_of_last_lines(LOG[5:], 3, from_beginning=False) == (None, 0)
    assert start_of_last_lines(LOG[5:], 1, from_beginning=False)[0] is not None


def test_lines_that_are_not_there_are_counted() -> None:
    assert start_of_last_lines(b"", 1, from_beginning=True) == (0, 1)
    assert start_of_last_lines(LOG, 3, from_beginning=True) == (0, 0)
    assert start_of_last_lines(LOG, 9, from_beginning=True) == (0, 6)
