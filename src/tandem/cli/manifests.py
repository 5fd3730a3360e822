"""Reads manifests: YAML or JSON, one document or many, from files, directories or stdin.

Values mean what they mean to kubectl. Plain YAML 1.1, as the library has it by default, would make a
date of ``2024-01-01`` and the number 1350 of ``22:30``, neither of which JSON or Kubernetes knows, and
would let the second of two equal keys win in silence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tandem.client.request import Doc
from tandem.errors import BadRequest

_SUFFIXES = (".yaml", ".yml", ".json")

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the C loader has no types
    """The safe loader, with Kubernetes' idea of scalars and keys."""

    def construct_json_mapping(self, node: yaml.MappingNode) -> Doc:
        self.flatten_mapping(node)
        found: Doc = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool):
                key = str(key).lower()  # as JSON has it
            if not isinstance(key, str | int | float):
                raise _at(key_node, "a key must be a string")
            if str(key) in found:
                raise _at(key_node, f"key {key!r} is there twice")
            found[str(key)] = self.construct_object(value_node, deep=True)
        return found


def _at(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, rule) for tag, rule in rules if not tag.endswith((":timestamp", ":int", ":float"))
    ]
    for first, rules in _Loader.yaml_implicit_resolvers.items()
}
_INTEGER = re.compile(r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_json_mapping)
_Loader.add_constructor(
    "tag:yaml.org,2002:int",
    lambda loader, node: _integer(loader.construct_scalar(node)),
)


def _integer(written: str) -> int:
    plain = written.replace("_", "")
    sign = -1 if plain.startswith("-") else 1
    plain = plain.lstrip("+-")
    if len(plain) > 1 and plain[0] == "0" and plain[1].isdigit():
        return sign * int(plain, 8)
    return sign * int(plain, 0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object, and where it was read, for messages."""

    doc: Doc
    source: str

    @property
    def api_version(self) -> str:
        return str(self.doc["apiVersion"])

    @property
    def kind(self) -> str:
        return str(self.doc["kind"])

    @property
    def name(self) -> str:
        return str(self.doc.get("metadata", {}).get("name") or "")

    @property
    def namespace(self) -> str:
        return str(self.doc.get("metadata", {}).get("namespace") or "")


def read(places: list[str], *, recursive: bool = False) -> list[Manifest]:
    """Every object of the files and directories (``-`` is stdin), in the order in which they stand.

    A ``List`` is taken apart. Raises ``BadRequest`` naming file, document and what is wrong.
    """
    found: list[Manifest] = []
    for place in places:
        for source, content in _contents(place, recursive):
            found += parse(content, source)
    if not found:
        raise BadRequest(f"no objects in {', '.join(places)}")
    return found


def parse(content: bytes, source: str) -> list[Manifest]:
    """The objects of one file's content."""
    try:
        documents = list(yaml.load_all(content.decode("utf-8"), Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise BadRequest(f"{source}{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise BadRequest(f"{source}: {' '.join(str(error).split())}") from error
    found: list[Manifest] = []
    for number, document in enumerate(documents, 1):
        if document is not None:
            where = source if len(documents) == 1 else f"{source} (document {number})"
            found += _objects(document, where)
    return found


def _objects(document: object, where: str) -> Iterator[Manifest]:
    if not isinstance(document, dict):
        raise BadRequest(f"{where}: an object must be a mapping, not {type(document).__name__}")
    for key in ("apiVersion", "kind"):
        if not isinstance(document.get(key), str) or not document[key]:
            raise BadRequest(f"{where}: {key} is missing")
    if document["kind"] == "List":
        for number, item in enumerate(document.get("items") or (), 1):
            yield from _objects(item, f"{where}, item {number}")
        return
    if not isinstance(document.get("metadata", {}), dict):
        raise BadRequest(f"{where}: metadata must be a mapping")
    yield Manifest(document, where)


def _contents(place: str, recursive: bool) -> Iterator[tuple[str, bytes]]:
    if place == "-":
        yield "stdin", sys.stdin.buffer.read()
        return
    path = Path(place)
    try:
        if path.is_dir():
            inside = path.rglob("*") if recursive else path.iterdir()
            files = sorted(file for file in inside if file.suffix in _SUFFIXES and file.is_file())
        else:
            files = [path]
        for file in files:
            yield str(file), file.read_bytes()
    except OSError as error:
        raise BadRequest(f"{error.filename or place}: {error.strerror}") from error
