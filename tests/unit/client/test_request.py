"""Answers become documents or errors, whatever was sent."""

from __future__ import annotations

import json

import pytest

from tandem import errors
from tandem.client import request
from tandem.errors import Cause, TandemError


def status(code: int, reason: str, **more: object) -> bytes:
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": "words", **more}
    ).encode()


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Expired),
        (410, "Gone", errors.Expired),
        (422, "Invalid", errors.InvalidSpec),
        (500, "InternalError", TandemError),
        (503, "ServiceUnavailable", errors.Unavailable),
        (418, "Teapot", TandemError),
    ],
)
def test_a_status_becomes_the_error_of_its_reason(
    code: int, reason: str, kind: type[TandemError]
) -> None:
    with pytest.raises(TandemError, match="words") as caught:
        request.check(code, status(code, reason))
    assert type(caught.value) is kind


def test_the_causes_and_details_of_a_status_are_kept() -> None:
    details = {"name": "x", "causes": [{"field": "spec.a", "message": "m", "reason": "r"}]}
    with pytest.raises(errors.InvalidSpec) as caught:
        request.check(422, status(422, "Invalid", details=details))
    assert caught.value.causes == (Cause("spec.a", "m", "r"),)
    assert caught.value.details == {"name": "x"}


def test_an_error_that_is_no_status_keeps_its_words() -> None:
    with pytest.raises(errors.NotFound, match="404 page not found"):
        request.check(404, b"404 page\n not found")
    with pytest.raises(TandemError, match="the server answered 502"):
        request.check(502, b"")


def test_success_is_no_error() -> None:
    request.check(202, b"")


def test_an_error_in_a_watch_is_raised() -> None:
    line = b'{"type":"ERROR","object":' + status(410, "Expired") + b"}"
    with pytest.raises(errors.Expired, match="words"):
        request.watch_event(line)


def test_lines_are_put_together_however_the_stream_was_cut() -> None:
    assert list(request.split_lines(iter([b"a", b"b\nc\nd", b"", b"\ne"]))) == [b"ab", b"c", b"d"]


def test_warnings_are_read_out_of_their_headers() -> None:
    header = '299 - "unknown field \\"spec.x\\""'
    assert list(request.warnings_in([header])) == ['unknown field "spec.x"']


def test_empty_parameters_are_not_sent() -> None:
    assert request.log("ns", "a").target == "/api/v1/namespaces/ns/pods/a/log"
    part = request.LogSlice(follow=True, tail=0)
    assert request.log("ns", "a", "c", part).query == (
        ("container", "c"), ("follow", "true"), ("tailLines", "0"),
    )  # fmt: skip


def test_the_token_is_sent_as_a_bearer_and_only_when_there_is_one() -> None:
    question = request.Request("GET", "/")
    assert question.headers("t")["Authorization"] == "Bearer t"
    assert "Authorization" not in question.headers()
    assert "Content-Type" not in question.headers()
