"""Names, labels, times, conditions and references."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tandem.api import meta
from tandem.api.kind import Kind

KIND = Kind("kubevirt.io", "v1", "VirtualMachine", "virtualmachines", "virtualmachine", "")


@pytest.mark.parametrize("name", ["a", "a-b", "a.b", "0", "a" * 253, "web-1.example.com"])
def test_names_that_are_dns_subdomains_pass(name: str) -> None:
    assert meta.name_causes(name, "metadata.name") == []


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", "../a", "a%2fb", "a\n", "ä", "<a>"]
)
def test_names_that_are_none_are_refused_with_the_rule(name: str) -> None:
    (cause,) = meta.name_causes(name, "metadata.name")
    assert cause.field == "metadata.name"
    assert "lowercase RFC 1123 subdomain" in cause.message


def test_a_name_too_long_is_refused_for_that() -> None:
    (cause,) = meta.name_causes("a" * 254, "metadata.name")
    assert "no more than 253" in cause.message


def test_the_rules_for_labels_are_narrower() -> None:
    assert meta.name_causes("a.b", "x", "dns1123label")
    assert meta.name_causes("1a", "x", "dns1035label")
    assert not meta.name_causes("a1", "x", "dns1035label")


@pytest.mark.parametrize("key", ["a", "A.b_c-d", "example.com/a", "a" * 63])
def test_keys_of_labels_pass(key: str) -> None:
    assert meta.label_causes({key: "v"}, "metadata.labels") == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "-a", "a/b/c", "Example.com/a", "a" * 64, "a b"])
def test_keys_that_are_none_are_refused(key: str) -> None:
    assert meta.label_causes({key: "v"}, "metadata.labels")


@pytest.mark.parametrize("value", ["-a", "a/b", "a b", "x" * 64])
def test_values_that_are_none_are_refused(value: str) -> None:
    assert meta.label_causes({"a": value}, "metadata.labels")


def test_annotations_may_hold_anything_up_to_a_size() -> None:
    assert meta.annotation_causes({"Example.com/A": "any text <&>\n" * 10}, "x") == []
    (cause,) = meta.annotation_causes({"a": "x" * meta.ANNOTATIONS_LIMIT}, "metadata.annotations")
    assert cause.reason == "FieldValueTooLong"


def test_a_generated_name_keeps_to_a_label_s_length() -> None:
    assert len(meta.generate_name("x" * 100)) == 63
    assert meta.generate_name("web-").startswith("web-")
    assert meta.generate_name("web-") != meta.generate_name("web-")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02t03:04:05z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T05:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.5Z", datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
    ],
)
def test_times_are_read(text: str, moment: datetime) -> None:
    assert meta.parse_time(text) == moment


@pytest.mark.parametrize("text", ["", "2026-01-02", "2026-01-02T03:04:05", "20260102T030405Z"])
def test_times_without_a_zone_or_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        meta.parse_time(text)


def test_times_that_are_written_can_be_read() -> None:
    assert meta.parse_time(meta.now()) <= meta.parse_time(meta.micro_now())


def test_a_value_is_found_by_its_path() -> None:
    doc = {"spec": {"a": {"b": 0}, "n": None, "s": "text"}}
    assert meta.get(doc, "spec.a.b", 1) == 0
    assert meta.get(doc, "spec.n", "default") == "default"
    assert meta.get(doc, "spec.s.x", "default") == "default"
    assert meta.get(doc, "status.phase") is None


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    conditions: list[dict[str, Any]] = []
    assert meta.set_condition(conditions, "Ready", "False", "Starting", "soon")
    conditions[0]["lastTransitionTime"] = "then"
    assert not meta.set_condition(conditions, "Ready", "False", "Starting", "soon")
    assert meta.set_condition(conditions, "Ready", "False", "Pulling")
    assert conditions == [
        {"type": "Ready", "status": "False", "lastTransitionTime": "then", "reason": "Pulling"}
    ]
    assert meta.set_condition(conditions, "Ready", "True")
    assert conditions[0]["lastTransitionTime"] != "then"
    assert "reason" not in conditions[0]


def test_a_condition_is_found_by_its_type() -> None:
    doc = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert meta.condition(doc, "Ready") == {"type": "Ready", "status": "True"}
    assert meta.condition(doc, "Other") is None
    assert meta.condition({}, "Ready") is None


def test_references_name_what_they_refer_to() -> None:
    doc = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "vm", "namespace": "ns", "uid": "u", "resourceVersion": "3"},
    }
    owner = meta.owner_reference(KIND, doc)
    assert (owner["apiVersion"], owner["kind"], owner["name"], owner["uid"]) == (
        "kubevirt.io/v1",
        "VirtualMachine",
        "vm",
        "u",
    )
    assert meta.controller_of({"metadata": {"ownerReferences": [{"uid": "x"}, owner]}}) == owner
    assert meta.controller_of({"metadata": {}}) is None
    assert meta.object_reference(doc) == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "namespace": "ns",
        "name": "vm",
        "uid": "u",
        "resourceVersion": "3",
    }
