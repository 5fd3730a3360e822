"""Manifests mean what they mean to kubectl, and a bad one is named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tandem.cli.manifests import parse, read
from tandem.errors import BadRequest

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2024-01-01", "2024-01-01"),
        ("22:30", "22:30"),
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("0644", 420),
        ("0o644", 420),
        ("0x1F", 31),
        ("-12", -12),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("2Gi", "2Gi"),
        ("v1", "v1"),
        ("yes", True),
        ("'yes'", "yes"),
        ("null", None),
        ("~", None),
        ("'1'", "1"),
        ("08", "08"),
    ],
)
def test_scalars(written: str, value: Any) -> None:
    [found] = parse(f"{HEAD}data: {written}\n".encode(), "f")
    assert found.doc["data"] == value
    assert type(found.doc["data"]) is type(value)


def test_keys_become_strings_as_json_has_them() -> None:
    [found] = parse(f"{HEAD}data: {{1: a, true: b, 2.5: c}}\n".encode(), "f")
    assert found.doc["data"] == {"1": "a", "true": "b", "2.5": "c"}


def test_anchors_and_merge_keys_are_resolved() -> None:
    [found] = parse(f"{HEAD}data: &d {{a: 1}}\nmore: {{<<: *d, b: 2}}\n".encode(), "f")
    assert found.doc["more"] == {"a": 1, "b": 2}


def test_json_is_yaml_and_a_list_is_taken_apart() -> None:
    content = b'{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"}]}'
    [found] = parse(content, "f")
    assert (found.kind, found.name, found.source) == ("Pod", "", "f, item 1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", r"^f:2:1: "),
        (b"a: 1\na: 2", r"^f:2:1: key 'a' is there twice"),
        (b"\xff", "^f: "),
        (b"words", "must be a mapping, not str"),
        (b"kind: Pod", "^f: apiVersion is missing"),
        (b"apiVersion: v1", "^f: kind is missing"),
        (b"apiVersion: v1\nkind: Pod\n---\nkind: Pod", r"^f \(document 2\): apiVersion is missing"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: x", "metadata must be a mapping"),
        (b"? [a]\n: 1", "a key must be a string"),
        (b"!!python/object:os.system {}", "^f:1:1: could not determine a constructor"),
        (b"apiVersion: v1\nkind: List\nitems: [1]", "f, item 1: an object must be a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        parse(content, "f")


def test_a_directory_is_read_in_order_and_below_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for place, name in (("2.yaml", "two"), ("1.json", "one"), ("below/3.yml", "three")):
        (tmp_path / place).write_text(HEAD.replace("name: a", f"name: {name}"))
    assert [m.name for m in read([str(tmp_path)])] == ["one", "two"]
    assert [m.name for m in read([str(tmp_path)], recursive=True)] == ["one", "two", "three"]


def test_a_file_that_is_not_there_and_one_without_objects(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"none\.yaml: No such file"):
        read([str(tmp_path / "none.yaml")])
    with pytest.raises(BadRequest, match="no objects in"):
        read([str(tmp_path)])
