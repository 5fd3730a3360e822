"""Label and field selectors: what a list, a watch or an owner asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tandem.api.causes import describe
from tandem.api.kind import Doc, Kind
from tandem.api.meta import label_value_causes, qualified_name_causes
from tandem.errors import BadRequest

_TOKEN = re.compile(r"\s*(!=|==|=|!|,|\(|\)|>|<|[^\s=!,()<>]+)")
_SYMBOLS = frozenset({"!=", "==", "=", "!", ",", "(", ")", ">", "<"})
_INTEGER = re.compile(r"[+-]?\d+")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition. ``operator`` is ``in``, ``notin``, ``exists``, ``!``, ``gt`` or ``lt``;
    equality is ``in`` with one value, inequality ``notin``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it; an absent key meets ``notin`` and ``!``, as in Kubernetes."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        try:
            left, right = int(value or ""), int(self.values[0])
        except ValueError:
            return False
        return left > right if self.operator == "gt" else left < right


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of ``requirements``; none at all selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with ``labels`` is selected."""
        labels = labels or {}
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """``field`` equals ``value``, or with ``negated`` does not."""

    field: str
    value: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All of ``requirements``; none at all selects everything."""

    requirements: tuple[FieldRequirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def exact(self, field: str) -> str | None:
        """The value ``field`` must have, or None: lets a reader of one object skip the rest."""
        for requirement in self.requirements:
            if requirement.field == field and not requirement.negated:
                return requirement.value
        return None

    def matches(self, values: Mapping[str, str]) -> bool:
        """Whether an object whose selectable fields are ``values`` is selected."""
        return all(
            (values.get(requirement.field, "") == requirement.value) is not requirement.negated
            for requirement in self.requirements
        )

    def for_kind(self, kind: Kind) -> Callable[[Doc], bool]:
        """The selector as a test of objects of ``kind``. Raises ``BadRequest`` for a field by which
        the kind cannot be selected."""
        tests: list[tuple[Callable[[Doc], str], str, bool]] = []
        for requirement in self.requirements:
            getter = _COMMON_FIELDS.get(requirement.field) or kind.field_labels.get(
                requirement.field
            )
            if getter is None or (
                requirement.field == "metadata.namespace" and not kind.namespaced
            ):
                raise BadRequest(
                    f"field label not supported: {requirement.field}",
                    hint="this kind can be selected by "
                    + ", ".join([*_COMMON_FIELDS, *kind.field_labels]),
                )
            tests.append((getter, requirement.value, requirement.negated))
        return lambda doc: all((get(doc) == value) is not negated for get, value, negated in tests)


_COMMON_FIELDS: dict[str, Callable[[Doc], str]] = {
    "metadata.name": lambda doc: doc["metadata"].get("name", ""),
    "metadata.namespace": lambda doc: doc["metadata"].get("namespace", ""),
}


def parse_label_selector(text: str | None) -> LabelSelector:
    """``app=web,tier in (front,back),!legacy`` and so on. Raises ``BadRequest``."""
    return _LabelParser(text or "").selector()


def parse_field_selector(text: str | None) -> FieldSelector:
    """``metadata.name=web,status.phase!=Running``. Raises ``BadRequest``."""
    requirements = []
    for term in _split_terms(text or ""):
        for operator in ("!=", "==", "="):
            field, found, value = term.partition(operator)
            if found:
                requirements.append(
                    FieldRequirement(field.strip(), _unescape(value.strip()), operator == "!=")
                )
                break
        else:
            raise BadRequest(f"invalid field selector: {text!r}: {term!r} has no operator")
    return FieldSelector(tuple(requirements))


def label_selector_from_doc(doc: Mapping[str, Any] | None) -> LabelSelector:
    """The selector of a ``metav1.LabelSelector`` document. Raises ``BadRequest``."""
    doc = doc or {}
    requirements = [
        Requirement(key, "in", (value,)) for key, value in (doc.get("matchLabels") or {}).items()
    ]
    for expression in doc.get("matchExpressions") or []:
        operator = _DOC_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise BadRequest(
                f"{expression.get('operator')!r} is not a valid label selector operator"
            )
        requirements.append(
            Requirement(expression["key"], operator, tuple(expression.get("values") or ()))
        )
    return LabelSelector(tuple(requirements))


_DOC_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


class _LabelParser:
    """Recursive descent over the tokens of one label selector."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [match[1] for match in _TOKEN.finditer(text)]
        self._next = 0

    def selector(self) -> LabelSelector:
        if not self._tokens:
            return LabelSelector()
        requirements = [self._requirement()]
        while self._peek():
            self._expect(",")
            requirements.append(self._requirement())
        return LabelSelector(tuple(requirements))

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._take()
            return Requirement(self._key(), "!")
        key = self._key()
        match self._peek():
            case "" | ",":
                return Requirement(key, "exists")
            case "=" | "==" | "!=" as operator:
                self._take()
                value = self._value()
                return Requirement(key, "notin" if operator == "!=" else "in", (value,))
            case "in" | "notin" as operator:
                self._take()
                return Requirement(key, operator, self._values())
            case ">" | "<" as operator:
                self._take()
                value = self._value()
                if not _INTEGER.fullmatch(value):
                    raise self._fault(f"for {operator} the value must be an integer, not {value!r}")
                return Requirement(key, "gt" if operator == ">" else "lt", (value,))
            case other:
                raise self._fault(f"found {other!r}, expected: in, notin, =, ==, !=, gt, lt")

    def _values(self) -> tuple[str, ...]:
        self._expect("(")
        values = [self._value()]
        while self._peek() == ",":
            self._take()
            values.append(self._value())
        self._expect(")")
        return tuple(values)

    def _key(self) -> str:
        key = self._take()
        if not key or key in _SYMBOLS:
            raise self._fault(f"found {key!r}, expected: !, identifier, or 'end of string'")
        if found := qualified_name_causes(key, "key"):
            raise self._fault(describe(found))
        return key

    def _value(self) -> str:
        """A value; an empty one is nothing at all before a comma, a bracket or the end."""
        if self._peek() in {"", ",", ")"}:
            return ""
        value = self._take()
        if value in _SYMBOLS:
            raise self._fault(f"found {value!r}, expected: identifier")
        if found := label_value_causes(value, "value"):
            raise self._fault(describe(found))
        return value

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _expect(self, symbol: str) -> None:
        if (found := self._take()) != symbol:
            raise self._fault(f"found {found!r}, expected: {symbol!r}")

    def _fault(self, problem: str) -> BadRequest:
        return BadRequest(f"unable to parse label selector {self._text!r}: {problem}")


def _split_terms(text: str) -> Iterator[str]:
    """The comma-separated terms; a backslash keeps the character after it out of the syntax."""
    term, characters = "", iter(text)
    for character in characters:
        if character == "\\":
            term += character + next(characters, "")
        elif character == ",":
            if term.strip():
                yield term
            term = ""
        else:
            term += character
    if term.strip():
        yield term


def _unescape(value: str) -> str:
    return _ESCAPED.sub(r"\1", value)
