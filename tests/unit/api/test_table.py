"""Tables and ages, as kubectl prints them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tandem.api.kind import Column, Kind
from tandem.api.table import age, human_duration, table

DOC = {
    "apiVersion": "v1",
    "kind": "Thing",
    "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"x": 1},
}


def kind(*columns: Column) -> Kind:
    return Kind("", "v1", "Thing", "things", "thing", "", columns=columns)


def names(kind: Kind) -> list[str]:
    return [column["name"] for column in table(kind, [])["columnDefinitions"]]


def test_name_comes_first_and_age_after_the_narrow_columns() -> None:
    columns = (Column("X", lambda doc: doc["spec"]["x"]), Column("Y", lambda _: 2, priority=1))
    assert names(kind(*columns)) == ["Name", "X", "Age", "Y"]


def test_a_kind_may_place_age_itself() -> None:
    columns = (Column("Age", lambda _: "1d"), Column("X", lambda _: 1))
    assert names(kind(*columns)) == ["Name", "Age", "X"]


def test_a_row_has_a_cell_for_each_column_and_the_object_s_metadata() -> None:
    (row,) = table(kind(Column("X", lambda doc: doc["spec"]["x"], type="integer")), [DOC])["rows"]
    assert row["cells"][:2] == ["a", 1]
    assert row["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": DOC["metadata"],
    }


def test_the_object_comes_whole_or_not_at_all_when_asked_for() -> None:
    assert table(kind(), [DOC], include_object="Object")["rows"][0]["object"] == DOC
    assert "object" not in table(kind(), [DOC], include_object="None")["rows"][0]


def test_the_list_s_metadata_is_the_table_s() -> None:
    assert table(kind(), [], metadata={"resourceVersion": "7"})["metadata"] == {
        "resourceVersion": "7"
    }


MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1.5, "0s"),
        (0, "0s"),
        (1.9, "1s"),
        (119, "119s"),
        (120, "2m"),
        (5 * MINUTE + 13, "5m13s"),
        (10 * MINUTE + 13, "10m"),
        (179 * MINUTE, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 5 * MINUTE, "3h5m"),
        (8 * HOUR + 5 * MINUTE, "8h"),
        (47 * HOUR, "47h"),
        (48 * HOUR, "2d"),
        (2 * DAY + 4 * HOUR, "2d4h"),
        (8 * DAY + 4 * HOUR, "8d"),
        (729 * DAY, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + 5 * DAY, "2y5d"),
        (8 * YEAR + 5 * DAY, "8y"),
    ],
)
def test_durations_are_kubectl_s(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_an_age_is_counted_from_the_timestamp() -> None:
    at = datetime(2026, 1, 1, 0, 5, 13, tzinfo=UTC)
    assert age("2026-01-01T00:00:00Z", at=at) == "5m13s"
    assert age(None) == "<unknown>"
