"""Strategic merge patch: a merge patch that knows which lists are maps in disguise.

The schema says, by ``x-kubernetes-patch-strategy`` and ``-merge-key``, that the items of a list such
as ``containers`` are merged by their ``name`` rather than replaced as a whole. The patch may say more,
in fields of its own:

- ``$patch: replace`` or ``delete`` in an object, or in an item of a merged list;
- ``$retainKeys: [...]`` beside a union's members: all other members go;
- ``$deleteFromPrimitiveList/x: [...]``: values to take out of the list of scalars ``x``;
- ``$setElementOrder/x: [...]``: the order the merged list ``x`` is to have.

This is what ``kubectl apply``, ``edit``, ``label`` and ``patch`` send for the built-in kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from tandem.api.kind import Doc
from tandem.api.schema import Definition, definition, reference
from tandem.errors import BadRequest

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_SET_ORDER = "$setElementOrder/"


def merge_by_schema(doc: Doc, patch: Doc, schema_name: str) -> Doc:
    """``doc`` with ``patch`` merged into it by the rules of its schema. Raises ``BadRequest``."""
    return _merge_object(doc, patch, definition(schema_name))


@dataclass(frozen=True, slots=True)
class _Field:
    """How a field is merged: the schema of its value or items, the strategies, the merge key."""

    schema: Definition | None
    strategies: frozenset[str] = frozenset()
    merge_key: str = ""


_UNKNOWN = _Field(None)


def _field(schema: Definition | None, name: str) -> _Field:
    if schema is None:
        return _UNKNOWN
    node = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
    if not isinstance(node, dict):
        return _UNKNOWN
    strategies = frozenset(node.get("x-kubernetes-patch-strategy", "").split(",")) - {""}
    target = node.get("items", node)
    ref = reference(target)
    return _Field(
        definition(ref) if ref else target,
        strategies,
        node.get("x-kubernetes-patch-merge-key", ""),
    )


# Objects -------------------------------------------------------------------------------------


def _merge_object(original: Doc, patch: Doc, schema: Definition | None) -> Doc:
    match patch.get(_PATCH):
        case None:
            pass
        case "replace":
            return _plain_object(patch)
        case "delete":
            return {}
        case other:
            raise BadRequest(f"strategic merge patch: {_PATCH} cannot be {other!r} in an object")
    result = _retained(original, patch)
    ordered = set()
    for directive, order in patch.items():
        if directive.startswith(_SET_ORDER):
            name = directive.removeprefix(_SET_ORDER)
            ordered.add(name)
            _merge_ordered(result, name, patch.get(name), order, _field(schema, name))
    for name, value in patch.items():
        if name.startswith(_DELETE_FROM):
            _delete_from(result, name.removeprefix(_DELETE_FROM), value)
        elif name in ordered or name == _RETAIN_KEYS or name.startswith(_SET_ORDER):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = _merge_value(result.get(name), value, _field(schema, name))
    return result


def _merge_value(original: Any, patch: Any, field: _Field) -> Any:
    if isinstance(original, dict) and isinstance(patch, dict):
        if "replace" in field.strategies:
            return _plain(patch)
        return _merge_object(original, patch, field.schema)
    if isinstance(original, list) and isinstance(patch, list) and "merge" in field.strategies:
        return _merge_list(original, patch, field)
    return _plain(patch)


def _retained(original: Doc, patch: Doc) -> Doc:
    """A copy of ``original`` without what ``$retainKeys`` leaves out."""
    keys = patch.get(_RETAIN_KEYS)
    if keys is None:
        return dict(original)
    if not isinstance(keys, list):
        raise BadRequest(f"strategic merge patch: {_RETAIN_KEYS} must be a list of fields")
    for name, value in patch.items():
        if not _is_directive(name) and value is not None and name not in keys:
            raise BadRequest(f"strategic merge patch: {name} is not in {_RETAIN_KEYS} {keys}")
    return {name: value for name, value in original.items() if name in keys}


def _delete_from(result: Doc, name: str, values: Any) -> None:
    if not isinstance(values, list):
        raise BadRequest(f"strategic merge patch: {_DELETE_FROM}{name} must be a list")
    if isinstance(result.get(name), list):
        result[name] = [value for value in result[name] if value not in values]


# Lists ---------------------------------------------------------------------------------------


def _merge_ordered(result: Doc, name: str, patch: Any, order: Any, field: _Field) -> None:
    """Merge the list ``name`` of ``result`` and bring it into ``order``."""
    if not isinstance(order, list) or not isinstance(patch, list | None):
        raise BadRequest(f"strategic merge patch: {_SET_ORDER}{name} must be a list, for a list")
    original = result.get(name)
    if patch is None and original is None:
        return
    identity = _identity(field)
    _check_order(name, patch or [], order, identity)
    if patch is None:
        merged = original
    elif isinstance(original, list):
        merged = _merge_value(original, patch, field)
    else:
        merged = _plain(patch)
    if isinstance(merged, list):
        result[name] = _in_order(merged, order, original or [], identity)


def _merge_list(original: list[Any], patch: list[Any], field: _Field) -> list[Any]:
    if not any(isinstance(item, dict) for item in [*original, *patch]):
        merged = [*original, *(value for value in patch if value not in original)]
        return _in_order(merged, patch, original, _scalar)
    identity = _identity(field)
    result, replaced = list(original), False
    additions = []
    for item in patch:
        directive = item.get(_PATCH) if isinstance(item, dict) else None
        if directive == "delete":
            result = [kept for kept in result if identity(kept) != identity(item)]
        elif directive == "replace":
            replaced = True  # a marker: the other items are all there will be
        elif directive is None:
            additions.append(item)
        else:
            raise BadRequest(f"strategic merge patch: {_PATCH} cannot be {directive!r} in a list")
    if replaced:
        return [_plain(item) for item in additions]
    places = {identity(item): index for index, item in enumerate(result)}
    for item in additions:
        place = places.get(identity(item))
        if place is None:
            places[identity(item)] = len(result)
            result.append(_plain(item))
        else:
            result[place] = _merge_object(result[place], item, field.schema)
    return _in_order(result, additions, original, identity)


_Identity = Callable[[Any], Hashable]


def _identity(field: _Field) -> _Identity:
    """What makes two items of a list the same one."""

    def by_key(item: Any) -> Hashable:
        if not isinstance(item, dict):
            return _scalar(item)
        value = item.get(field.merge_key)
        if value is None or isinstance(value, dict | list):
            raise BadRequest(
                f"strategic merge patch: map: {item} does not contain declared merge key: "
                f"{field.merge_key}"
            )
        return _scalar(value)

    return by_key if field.merge_key else _scalar


def _scalar(value: Any) -> Hashable:
    # By their text, as 1 and True are the same key to Python, and lists cannot be one.
    return repr(value)


def _check_order(name: str, patch: list[Any], order: list[Any], identity: _Identity) -> None:
    """Refuse an order that does not hold the patch's own items, in the order they come."""
    wanted = iter([identity(item) for item in order])
    for item in patch:
        if isinstance(item, dict) and item.get(_PATCH) is not None:
            continue
        if identity(item) not in wanted:  # consumes up to the match: a subsequence test
            raise BadRequest(
                f"strategic merge patch: the order in {_SET_ORDER}{name} doesn't match the items of "
                f"{name}"
            )


def _in_order(
    merged: list[Any], order: list[Any], original: list[Any], identity: _Identity
) -> list[Any]:
    """``merged`` with the items of ``order`` in that order, the others where the original had them.

    An item the patch does not speak of comes before the next ordered one if it did so before.
    """
    wanted = {identity(item): place for place, item in reversed(list(enumerate(order)))}
    before = {identity(item): place for place, item in reversed(list(enumerate(original)))}
    ours = sorted(
        (item for item in merged if identity(item) in wanted),
        key=lambda item: wanted[identity(item)],
    )
    others = [item for item in merged if identity(item) not in wanted]
    result = []
    while ours and others:
        left, right = before.get(identity(others[0])), before.get(identity(ours[0]))
        first = left is not None and right is not None and left < right
        result.append((others if first else ours).pop(0))
    return [*result, *ours, *others]


def _plain(value: Any) -> Any:
    """A copy of a part of a patch that meets nothing to merge with: no directives, no nulls."""
    if isinstance(value, dict):
        return _plain_object(value)
    if isinstance(value, list):
        return [
            _plain(item)
            for item in value
            if not (isinstance(item, dict) and item.get(_PATCH) is not None)
        ]
    return value


def _plain_object(value: Doc) -> Doc:
    return {
        name: _plain(item)
        for name, item in value.items()
        if item is not None and not _is_directive(name)
    }


def _is_directive(name: str) -> bool:
    return name in (_PATCH, _RETAIN_KEYS) or name.startswith((_DELETE_FROM, _SET_ORDER))
