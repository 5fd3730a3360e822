"""The three languages of PATCH: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes'
strategic merge patch.

All are pure: neither the document nor the patch is altered, and the result shares nothing with the
patch, so that the same patch can be applied again to a newer state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from tandem.api.kind import Doc
from tandem.api.strategic import merge_by_schema
from tandem.errors import BadRequest, InvalidSpec, TooLarge

MAX_OPERATIONS = 10_000
"""Most operations of one JSON patch, as in Kubernetes."""

MAX_COPIED_BYTES = 3 * 1024 * 1024
"""Most bytes that all ``copy`` operations of one patch may add: each can double the document."""

_OPERATIONS = {"add", "remove", "replace", "move", "copy", "test"}


def merge_patch(doc: Doc, patch: Doc) -> Doc:
    """``doc`` with the fields of ``patch``: null removes, an object is merged, all else replaces.

    Raises ``BadRequest``.
    """
    with _not_too_deep():
        merged = _merge(doc, patch)
    if not isinstance(merged, dict):
        raise BadRequest("a merge patch must be an object")
    return merged


def json_patch(doc: Doc, operations: Sequence[Any]) -> Doc:
    """``doc`` after the operations, all of them or an error.

    Raises ``BadRequest`` for what is no JSON patch, ``InvalidSpec`` for an operation that cannot be
    done (no such path, a ``test`` that fails), ``TooLarge`` for too much of it.
    """
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, "
            f"got {len(operations)}"
        )
    with _not_too_deep():
        patcher = _JsonPatcher(_copy(doc))
        for index, operation in enumerate(operations):
            patcher.apply(index, operation)
    if not isinstance(patcher.root, dict):
        raise InvalidSpec("the patch leaves something that is not an object")
    return patcher.root


def strategic_merge_patch(doc: Doc, patch: Doc, schema_name: str) -> Doc:
    """``doc`` with ``patch`` merged into it by the rules of its schema: see
    :mod:`tandem.api.strategic`. Raises ``BadRequest``."""
    with _not_too_deep():
        return merge_by_schema(doc, patch, schema_name)


@contextmanager
def _not_too_deep() -> Iterator[None]:
    """Refuse what is nested deeper than we can follow; no real object is."""
    try:
        yield
    except RecursionError as error:
        raise BadRequest("the patch is nested too deeply") from error


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return _copy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


class _JsonPatcher:
    """A document under the operations of one patch."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._copied = 0

    def apply(self, index: int, operation: Any) -> None:
        """Do the operation at ``index`` in the patch."""
        if not isinstance(operation, dict) or operation.get("op") not in _OPERATIONS:
            raise BadRequest(
                f"JSON patch: operation {index} must be an object whose op is one of "
                + ", ".join(sorted(_OPERATIONS))
            )
        name, path = operation["op"], _pointer(operation, "path", index)
        try:
            match name:
                case "add":
                    self._add(path, _copy(_value(operation, index)))
                case "remove":
                    self._remove(path)
                case "replace":
                    value = _copy(_value(operation, index))
                    if path:
                        self._remove(path)
                    self._add(path, value)
                case "move":
                    source = _pointer(operation, "from", index)
                    if path[: len(source)] == source and path != source:
                        raise LookupError("a value cannot be moved into itself")
                    value = self._find(source)
                    self._remove(source)
                    self._add(path, value)
                case "copy":
                    self._add(path, self._duplicate(_pointer(operation, "from", index)))
                case "test":
                    if not _same(self._find(path), _value(operation, index)):
                        raise LookupError("testing the value failed: it is another one")
        except LookupError as error:
            raise InvalidSpec(
                f"the server rejected our request due to an error in our request: JSON patch "
                f"operation {index} ({name} {operation['path']}): {error.args[0]}"
            ) from error

    def _duplicate(self, path: list[str]) -> Any:
        value = self._find(path)
        self._copied += len(msgspec.json.encode(value))
        if self._copied > MAX_COPIED_BYTES:
            raise TooLarge(f"JSON patch: copies may add at most {MAX_COPIED_BYTES} bytes")
        return _copy(value)

    def _find(self, path: list[str]) -> Any:
        value = self.root
        for step in path:
            if isinstance(value, dict):
                if step not in value:
                    raise LookupError(f"there is no {step!r}")
                value = value[step]
            elif isinstance(value, list):
                value = value[_index(step, len(value) - 1)]
            else:
                raise LookupError(f"{step!r} is looked for in something without fields")
        return value

    def _add(self, path: list[str], value: Any) -> None:
        if not path:
            self.root = value
            return
        parent, step = self._find(path[:-1]), path[-1]
        if isinstance(parent, dict):
            parent[step] = value
        elif isinstance(parent, list):
            at = len(parent) if step == "-" else _index(step, len(parent))
            parent.insert(at, value)
        else:
            raise LookupError(f"{step!r} cannot be put into something without fields")

    def _remove(self, path: list[str]) -> None:
        if not path:
            raise LookupError("the whole document cannot be removed")
        self._find(path)
        parent, step = self._find(path[:-1]), path[-1]
        del parent[step if isinstance(parent, dict) else int(step)]


def _pointer(operation: Doc, field: str, index: int) -> list[str]:
    """A JSON pointer (RFC 6901) as its steps."""
    text = operation.get(field)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise BadRequest(
            f"JSON patch: the {field} of operation {index} must be a JSON pointer, such as /spec/x"
        )
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _value(operation: Doc, index: int) -> Any:
    if "value" not in operation:
        raise BadRequest(f"JSON patch: operation {index} ({operation['op']}) needs a value")
    return operation["value"]


def _index(step: str, last: int) -> int:
    if not (step.isascii() and step.isdigit()) or (step[0] == "0" and step != "0"):
        raise LookupError(f"{step!r} is not an index")
    if int(step) > last:
        raise LookupError(f"the index {step} is beyond the end")
    return int(step)


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON: Python holds True for 1, JSON does not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
