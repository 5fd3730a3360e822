"""Query parameters."""

from __future__ import annotations

import pytest

from tandem.errors import BadRequest
from tandem.server.query import Query


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", False),
        ("watch", True),
        ("watch=", True),
        ("watch=1", True),
        ("watch=true", True),
        ("watch=0", False),
        ("watch=False", False),
    ],
)
def test_a_flag_is_what_kubernetes_takes_for_true(raw: str, expected: bool) -> None:
    assert Query(raw).flag("watch") is expected


def test_values_are_decoded_and_the_first_counts() -> None:
    query = Query("labelSelector=a%3Db%2Cc&labelSelector=d")
    assert query.text("labelSelector") == "a=b,c"
    assert query.text("fieldSelector") == ""


def test_a_number_that_is_none_is_refused_by_name() -> None:
    query = Query("limit=many&tailLines=-1&timeoutSeconds=")
    assert query.integer("tailLines") == -1
    assert query.integer("timeoutSeconds") is None
    with pytest.raises(BadRequest, match="limit: 'many'"):
        query.integer("limit")
