"""What of a kind's fields is acted upon here, as one table per kind, and the walk that applies it.

The schemas know far more than one node does. A field that is known to the schema and not to the table
is refused with its path, so that nothing a user asked for is dropped in silence; a field that cannot
matter here is taken, with a warning where somebody could have expected an effect.

A table is a tree of nested dicts along the field names; lists are walked through, each element against
the same branch, and ``"*"`` stands for any key of a map. A leaf is :data:`YES` (acted upon, or without
any effect that could be missed), :func:`ignored` with what the user should know, or :func:`only` with
the values that are acted upon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tandem.errors import Cause


@dataclass(frozen=True, slots=True)
class Leaf:
    """The end of a branch: everything below is taken, ``warning`` says what that means; with
    ``values``, nothing but those."""

    warning: str = ""
    values: tuple[Any, ...] = ()


Tree: TypeAlias = "Mapping[str, Tree] | Leaf"

YES = Leaf()


def ignored(why: str) -> Leaf:
    """Taken without effect; ``why`` completes the sentence "<field> has no effect: ..."."""
    return Leaf(why)


def only(*values: Any) -> Leaf:
    """Acted upon for ``values``; any other is refused."""
    return Leaf(values=values)


@dataclass(slots=True)
class Findings:
    """What a walk found: refusals, and warnings."""

    causes: list[Cause] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def walk(value: Any, tree: Tree, path: str) -> Findings:
    """Hold ``value``, which is at ``path``, against ``tree``. Empty values ask for nothing."""
    findings = Findings()
    _walk(value, tree, path, findings)
    return findings


def unsupported(path: str, value: Any = None) -> Cause:
    """The refusal of a field, or of the value that it has."""
    shown = "" if value is None else f" {_shown(value)}:"
    text = f"Unsupported value:{shown} not supported by Tandem"
    return Cause(path, text, "FieldValueNotSupported")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _walk(value: Any, tree: Tree, path: str, findings: Findings) -> None:
    if isinstance(tree, Leaf):
        if tree.values and value is not None and value not in tree.values:
            findings.causes.append(unsupported(path, value))
        if tree.warning and value not in (None, "", False, [], {}):
            findings.warnings.append(f"{path} has no effect: {tree.warning}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _walk(item, tree, f"{path}[{index}]", findings)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            branch = tree.get(name, tree.get("*"))
            below = f"{path}.{name}"
            if branch is not None:
                _walk(item, branch, below, findings)
            elif item not in (None, "", False, 0, [], {}):
                findings.causes.append(unsupported(below))
