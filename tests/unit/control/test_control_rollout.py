"""The arithmetic of a rollout, as tables; the numbers are those that Kubernetes comes to."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.control.owners import rollout


def deployment(replicas: int, surge: Any = "25%", away: Any = "25%", **status: int) -> Doc:
    rolling = {"maxSurge": surge, "maxUnavailable": away}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    return {"spec": {"replicas": replicas, "strategy": strategy}, "status": status}


def replica_set(name: str, size: int, available: int | None = None, before: int = 0) -> Doc:
    annotations = {rollout.MAX: str(before)} if before else {}
    metadata = {
        "name": name,
        "uid": name,
        "creationTimestamp": f"2026-01-01T00:00:0{name[-1]}Z",
        "annotations": annotations,
    }
    ready = size if available is None else available
    status = {"replicas": size, "availableReplicas": ready}
    return {"metadata": metadata, "spec": {"replicas": size}, "status": status}


@pytest.mark.parametrize(
    ("replicas", "surge", "away", "expected"),
    [
        (10, "25%", "25%", (3, 2)),  # the one is rounded up, the other down
        (1, "25%", "25%", (1, 0)),
        (3, 1, 0, (1, 0)),
        (10, "0%", "0%", (0, 1)),  # or nothing could ever move
        (4, 0, "10%", (0, 1)),
        (2, 0, 5, (0, 2)),  # no more can be missing than there are
        (0, 1, 1, (1, 0)),
        (5, "100%", "100%", (5, 5)),
    ],
)
def test_limits(replicas: int, surge: Any, away: Any, expected: tuple[int, int]) -> None:
    doc = deployment(replicas, surge, away)
    assert (rollout.max_surge(doc), rollout.max_unavailable(doc)) == expected


@pytest.mark.parametrize(
    ("replicas", "surge", "new", "old", "expected"),
    [
        (10, 3, 0, 10, 3),
        (10, 3, 3, 10, 3),  # no room
        (10, 3, 3, 8, 5),
        (10, 3, 8, 1, 10),  # never more than are wanted
        (10, 0, 0, 5, 5),
        (3, "25%", 0, 0, 3),
    ],
)
def test_the_new_one_grows_as_far_as_the_surge_allows(
    replicas: int, surge: Any, new: int, old: int, expected: int
) -> None:
    newest, older = replica_set("new2", new), replica_set("old1", old)
    doc = deployment(replicas, surge)
    assert rollout.next_size(doc, newest, [older, newest]) == expected


@pytest.mark.parametrize(
    ("away", "new", "old", "expected"),
    [
        # new and old: sizes and how many of them are available; 10 are wanted
        (2, (3, 0), (10, 10), 8),  # two may be missing
        (0, (3, 0), (10, 10), None),
        (0, (3, 2), (10, 10), 8),  # what is available more than wanted may go
        (2, (5, 5), (8, 8), 3),
        (2, (3, 3), (10, 6), 5),  # those that do not work go first
        (2, (10, 10), (2, 2), 0),
        (2, (10, 0), (0, 0), None),
    ],
)
def test_the_old_ones_shrink_as_far_as_enough_stay(
    away: int, new: tuple[int, int], old: tuple[int, int], expected: int | None
) -> None:
    newest, older = replica_set("new2", *new), replica_set("old1", *old)
    sizes = rollout.shrink_old(deployment(10, 3, away), newest, [older])
    assert [size for _, size in sizes] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("replicas", "sizes", "before", "expected"),
    [
        (12, [10], 13, [15]),  # grown to 12 with a surge of 3
        (20, [8, 5], 13, [15, 10]),  # 25 in all, shared as 8 to 5
        (5, [8, 5], 13, [4, 3]),  # 7 in all
        (10, [8, 5], 13, [8, 5]),
        (0, [8, 5], 13, [0, 0]),
        (20, [4, 4, 4], 12, [9, 8, 8]),  # what is left over goes to the newest of equals
    ],
)
def test_a_rollout_under_way_is_resized_in_proportion(
    replicas: int, sizes: list[int], before: int, expected: list[int]
) -> None:
    sets = [replica_set(f"set{n}", size, before=before) for n, size in enumerate(sizes)]
    found = rollout.spread(deployment(replicas, "25%"), sets)
    assert sorted((size for _, size in found), reverse=True) == expected


def test_old_ones_shrink_from_the_oldest_on() -> None:
    newest = replica_set("new3", 4)
    old = [replica_set("old1", 3), replica_set("old2", 3)]
    sizes = rollout.shrink_old(deployment(6, 4, 0), newest, old)
    assert [(doc["metadata"]["name"], size) for doc, size in sizes] == [("old1", 0), ("old2", 2)]
