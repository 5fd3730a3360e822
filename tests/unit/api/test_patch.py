"""JSON patch and merge patch: the RFCs' own examples, and what must never happen."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.api import patch as patches
from tandem.api.patch import json_patch, merge_patch, strategic_merge_patch
from tandem.errors import BadRequest, InvalidSpec, TooLarge


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # RFC 7386, appendix A, the cases whose result is an object.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ],
)
def test_a_merge_patch_follows_its_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("doc", "operations", "result"),
    [
        # RFC 6902, appendix A.
        (
            {"foo": "bar"},
            [{"op": "add", "path": "/baz", "value": "qux"}],
            {"baz": "qux", "foo": "bar"},
        ),
        (
            {"foo": ["bar", "baz"]},
            [{"op": "add", "path": "/foo/1", "value": "qux"}],
            {"foo": ["bar", "qux", "baz"]},
        ),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        (
            {"foo": ["bar", "qux", "baz"]},
            [{"op": "remove", "path": "/foo/1"}],
            {"foo": ["bar", "baz"]},
        ),
        (
            {"baz": "qux", "foo": "bar"},
            [{"op": "replace", "path": "/baz", "value": "boo"}],
            {"baz": "boo", "foo": "bar"},
        ),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        (
            {"baz": "qux", "foo": ["a", 2, "c"]},
            [
                {"op": "test", "path": "/baz", "value": "qux"},
                {"op": "test", "path": "/foo/1", "value": 2},
            ],
            {"baz": "qux", "foo": ["a", 2, "c"]},
        ),
        (
            {"foo": "bar"},
            [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
            {"foo": "bar", "child": {"grandchild": {}}},
        ),
        (
            {"foo": "bar"},
            [{"op": "add", "path": "/baz", "value": 1, "xyz": 1}],
            {"foo": "bar", "baz": 1},
        ),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        (
            {"foo": ["bar"]},
            [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
            {"foo": ["bar", ["abc", "def"]]},
        ),
        # What kubectl and virtctl send.
        (
            {"metadata": {"labels": {"example.com/a": "b"}}},
            [{"op": "remove", "path": "/metadata/labels/example.com~1a"}],
            {"metadata": {"labels": {}}},
        ),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": None}, [{"op": "test", "path": "/a", "value": None}], {"a": None}),
    ],
)
def test_a_json_patch_follows_its_rfc(doc: Any, operations: Any, result: Any) -> None:
    before = copy.deepcopy((doc, operations))
    assert json_patch(doc, operations) == result
    assert (doc, operations) == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/missing"},
        {"op": "replace", "path": "/missing", "value": 1},
        {"op": "add", "path": "/missing/deeper", "value": 1},
        {"op": "add", "path": "/list/3", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "/list/-1", "value": 1},
        {"op": "add", "path": "/list/x", "value": 1},
        {"op": "remove", "path": "/list/-"},
        {"op": "remove", "path": "/list/2"},
        {"op": "add", "path": "/text/x", "value": 1},
        {"op": "remove", "path": ""},
        {"op": "replace", "path": "", "value": [1]},
        {"op": "move", "from": "/object", "path": "/object/inner"},
        {"op": "move", "from": "/objects/0", "path": "/objects/0/inner"},
        {"op": "copy", "from": "/missing", "path": "/x"},
        {"op": "test", "path": "/text", "value": "other"},
        {"op": "test", "path": "/one", "value": True},
        {"op": "test", "path": "/list", "value": ["a"]},
        {"op": "test", "path": "/object", "value": {"x": 1, "y": 2}},
    ],
)
def test_an_operation_that_cannot_be_done_fails_the_whole_patch(operation: Any) -> None:
    doc = {"text": "a", "one": 1, "list": ["a", "b"], "object": {"x": 1}, "objects": [{}, {}]}
    before = copy.deepcopy(doc)
    with pytest.raises(InvalidSpec):
        json_patch(doc, [{"op": "add", "path": "/new", "value": 1}, operation])
    assert doc == before


@pytest.mark.parametrize(
    "operation",
    [
        "remove",
        {},
        {"op": "delete", "path": "/a"},
        {"op": "remove"},
        {"op": "remove", "path": "a"},
        {"op": "remove", "path": 5},
        {"op": "add", "path": "/a"},
        {"op": "move", "path": "/a"},
    ],
)
def test_what_is_no_operation_is_a_bad_request(operation: Any) -> None:
    with pytest.raises(BadRequest, match="operation 0"):
        json_patch({"a": 1}, [operation])


def test_a_fault_names_the_operation_and_its_path() -> None:
    with pytest.raises(InvalidSpec, match=r"operation 1 \(remove /spec/x\): there is no 'spec'"):
        json_patch(
            {"a": 1},
            [{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/spec/x"}],
        )


def test_too_many_operations_are_refused() -> None:
    with pytest.raises(TooLarge, match="10000"):
        json_patch({}, [{"op": "test", "path": "", "value": {}}] * (patches.MAX_OPERATIONS + 1))


def test_copies_that_double_the_document_each_time_are_refused() -> None:
    operations = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40
    with pytest.raises(TooLarge, match="copies"):
        json_patch({"a": ["x" * 1000]}, operations)


def test_a_patch_nested_beyond_reason_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(BadRequest, match="too deeply"):
        merge_patch({}, deep)
    with pytest.raises(BadRequest, match="too deeply"):
        json_patch({}, [{"op": "add", "path": "/a", "value": deep}])
    with pytest.raises(BadRequest, match="too deeply"):
        strategic_merge_patch({}, deep, "io.k8s.api.core.v1.Pod")


def test_the_result_shares_nothing_with_the_patch() -> None:
    value: dict[str, Any] = {"list": []}
    merged = merge_patch({}, {"a": value})
    added = json_patch({}, [{"op": "add", "path": "/a", "value": value}])
    merged["a"]["list"].append(1)
    added["a"]["list"].append(1)
    assert value == {"list": []}


json = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), json, max_size=3)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


@given(objects, objects)
def test_merging_twice_is_merging_once(doc: Any, patch: Any) -> None:
    once = merge_patch(doc, patch)
    assert merge_patch(once, patch) == once


@given(objects)
def test_a_merge_patch_of_nothing_changes_nothing_and_onto_nothing_gives_itself(doc: Any) -> None:
    assert merge_patch(doc, {}) == doc
    assert merge_patch({}, doc) == without_nulls(doc)


paths = st.lists(st.sampled_from(["a", "b", "c", "0", "1", "-"]), max_size=3).map(
    lambda steps: "".join(f"/{step}" for step in steps)
)
operations = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": paths,
        "from": paths,
        "value": json,
    }
)


@given(objects, st.lists(operations, max_size=4))
def test_a_json_patch_gives_an_object_or_a_refusal_and_alters_nothing(
    doc: Any, operations: list[Any]
) -> None:
    before = copy.deepcopy((doc, operations))
    with contextlib.suppress(BadRequest, InvalidSpec):
        assert isinstance(json_patch(doc, operations), dict)
    assert (doc, operations) == before
