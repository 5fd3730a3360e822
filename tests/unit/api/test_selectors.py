"""Label and field selectors, in text and in documents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.api.kind import Kind
from tandem.api.selectors import (
    FieldRequirement,
    label_selector_from_doc,
    parse_field_selector,
    parse_label_selector,
)
from tandem.errors import BadRequest

WEB = {"app": "web", "tier": "front", "weight": "7", "example.com/x": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("  ", True),
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app != web", False),
        ("missing!=x", True),
        ("missing=x", False),
        ("missing=", False),
        ("example.com/x=", True),
        ("example.com/x", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app notin (db)", True),
        ("missing notin (db)", True),
        ("app in (web),tier=front,!legacy", True),
        ("app in (web),tier=back", False),
        ("weight>6", True),
        ("weight>7", False),
        ("weight<10", True),
        ("app>1", False),
        ("example.com/x in (,a)", True),
        ("in=x", False),
    ],
)
def test_selects_as_kubernetes_does(text: str, selected: bool) -> None:
    assert parse_label_selector(text).matches(WEB) is selected


@pytest.mark.parametrize(
    "text",
    [
        "=x",
        "a=b=c",
        "a in b",
        "a in (b",
        "a in",
        "a b",
        "a,",
        ",a",
        "!",
        "!!a",
        "a>b",
        "a>",
        "-a=b",
        "a=b c",
        "a=-b",
        "a=" + "x" * 64,
        "a/b/c=d",
        "()",
    ],
)
def test_refuses_what_is_no_selector(text: str) -> None:
    with pytest.raises(BadRequest, match="unable to parse"):
        parse_label_selector(text)


@given(st.text(alphabet="ab=!,() in<>-/.0", max_size=16))
def test_no_text_does_worse_than_a_bad_request(text: str) -> None:
    try:
        parse_label_selector(text).matches(WEB)
    except BadRequest:
        return


def test_objects_without_labels_can_be_selected_by_what_they_lack() -> None:
    assert parse_label_selector("!app").matches(None)
    assert not parse_label_selector("app").matches(None)


def test_a_selector_document_means_the_same_as_its_text() -> None:
    selector = label_selector_from_doc(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "legacy", "operator": "DoesNotExist"},
                {"key": "weight", "operator": "Exists"},
                {"key": "app", "operator": "NotIn", "values": ["db"]},
            ],
        }
    )
    text = "app=web,tier in (front,back),!legacy,weight,app notin (db)"
    assert selector == parse_label_selector(text)
    assert selector.matches(WEB)


def test_an_empty_selector_document_selects_everything() -> None:
    assert label_selector_from_doc({}).matches({})
    assert label_selector_from_doc(None).matches({})


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(BadRequest, match="Like"):
        label_selector_from_doc({"matchExpressions": [{"key": "a", "operator": "Like"}]})


KIND = Kind(
    "", "v1", "Pod", "pods", "pod", "", field_labels={"status.phase": lambda doc: doc["phase"]}
)
DOC = {"metadata": {"name": "a", "namespace": "b"}, "phase": "Running"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("metadata.name=a", True),
        ("metadata.name==a,metadata.namespace=b", True),
        ("metadata.name!=a", False),
        ("status.phase=Running", True),
        ("status.phase!=Running", False),
        ("status.phase!=Pending,metadata.name=a", True),
    ],
)
def test_selects_by_the_fields_of_a_kind(text: str, selected: bool) -> None:
    assert parse_field_selector(text).for_kind(KIND)(DOC) is selected


def test_a_field_that_a_kind_cannot_be_selected_by_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.x") as caught:
        parse_field_selector("spec.x=1").for_kind(KIND)
    assert "status.phase" in str(caught.value.hint)


def test_a_field_selector_needs_an_operator() -> None:
    with pytest.raises(BadRequest, match="no operator"):
        parse_field_selector("metadata.name")


def test_a_backslash_keeps_what_follows_out_of_the_syntax() -> None:
    assert parse_field_selector(r"message=a\,b\=c").requirements == (
        FieldRequirement("message", "a,b=c"),
    )


def test_the_one_name_asked_for_is_known() -> None:
    assert parse_field_selector("status.phase=x,metadata.name=a").exact("metadata.name") == "a"
    assert parse_field_selector("metadata.name!=a").exact("metadata.name") is None
