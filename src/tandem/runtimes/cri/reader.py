"""Reading a ``v1`` document field by field, with every fault kept beside the path it was found at.

The translation has to look at each field once anyway; reading through a :class:`Reader` makes the
same look check the type. Nothing raises while reading: a faulty field reads as its default, and
:meth:`Faults.check` raises once, with all causes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from tandem.api import causes
from tandem.errors import Cause, InvalidSpec, Unsupported

_NumberT = TypeVar("_NumberT", int, float)

_EMPTY: tuple[object, ...] = (None, "", [], {}, False)


class Faults:
    """What is wrong with one spec, and what in it is right and more than we can do."""

    def __init__(self) -> None:
        self.invalid: list[Cause] = []
        self.unsupported: list[Cause] = []

    def check(self, subject: str) -> None:
        """Raise ``InvalidSpec``, or ``Unsupported`` when nothing is wrong beside that."""
        # What belongs to the whole Pod is read once for each of its containers.
        found = list(dict.fromkeys([*self.invalid, *self.unsupported]))
        if self.invalid:
            raise InvalidSpec(f"{subject} is invalid: {causes.describe(found)}", causes=found)
        if found:
            text = causes.describe(found)
            raise Unsupported(f"{subject} is not supported: {text}", causes=found)


class Reader:
    """One mapping of the document, at ``path``."""

    def __init__(self, document: object, path: str, faults: Faults) -> None:
        self.path = path
        self.faults = faults
        self._values: Mapping[str, Any] = {}
        if isinstance(document, Mapping):
            self._values = document
        elif document is not None:
            self._wrong_type(path, document, "must be an object")

    def at(self, key: str) -> str:
        """The path of ``key``."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether ``key`` is there and not null."""
        return self._values.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        text: str = self._typed(key, str, "must be a string", default)
        return text

    def flag(self, key: str) -> bool | None:
        """The boolean, None when it is not given, for what has a third meaning then."""
        flag: bool | None = self._typed(key, bool, "must be a boolean", None)
        return flag

    def number(self, key: str, low: int, high: int) -> int | None:
        """An integer of ``low`` to ``high``, None when it is not given or not that."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(self.at(key), value, "must be an integer")
        elif not low <= value <= high:
            rule = f"must be between {low} and {high}, inclusive"
            self.faults.invalid.append(causes.invalid(self.at(key), value, rule))
        else:
            return value
        return None

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        """One of ``choices``."""
        value = self.text(key) or default
        if value not in choices:
            self.faults.invalid.append(causes.not_supported(self.at(key), value, choices))
            return default
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        items = self._typed(key, list, "must be an array", [])
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self._wrong_type(f"{self.at(key)}[{index}]", item, "must be a string")
        return [item for item in items if isinstance(item, str)]

    def numbers(self, key: str) -> list[int]:
        """A list of integers."""
        items = self._typed(key, list, "must be an array", [])
        for index, item in enumerate(items):
            if isinstance(item, bool) or not isinstance(item, int):
                self._wrong_type(f"{self.at(key)}[{index}]", item, "must be an integer")
        return [item for item in items if isinstance(item, int) and not isinstance(item, bool)]

    def child(self, key: str) -> Reader:
        """The mapping at ``key``, an empty one when it is not given."""
        return Reader(self._values.get(key), self.at(key), self.faults)

    def children(self, key: str) -> list[Reader]:
        """The mappings in the list at ``key``."""
        items = self._typed(key, list, "must be an array", [])
        return [
            Reader(item, f"{self.at(key)}[{index}]", self.faults)
            for index, item in enumerate(items)
        ]

    def convert(self, key: str, parse: Callable[[Any], _NumberT]) -> _NumberT | None:
        """What ``parse`` makes of the value; its ``ValueError`` becomes a cause."""
        value = self._values.get(key)
        if value is None:
            return None
        try:
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                return parse(value)
            self._wrong_type(self.at(key), value, "must be a string or a number")
        except ValueError as error:
            self.faults.invalid.append(causes.invalid(self.at(key), value, str(error)))
        return None

    def keys(self) -> list[str]:
        return [str(key) for key in self._values]

    def require(self, key: str) -> str:
        """A string that must not be empty."""
        value = self.text(key)
        if not value and not isinstance(self._values.get(key), bool | int | float | list | dict):
            self.faults.invalid.append(causes.required(self.at(key)))
        return value

    def invalid(self, key: str, rule: str) -> None:
        """The value at ``key`` breaks ``rule``."""
        self.faults.invalid.append(causes.invalid(self.at(key), self._values.get(key), rule))

    def refuse(self, *keys: str, why: str) -> None:
        """Whatever is set at ``keys`` is more than we can do; what is empty asks for nothing."""
        for key in keys:
            if self._values.get(key) not in _EMPTY:
                self.refuse_even_empty(key, why=why)

    def refuse_even_empty(self, key: str, *, why: str) -> None:
        """Where the key alone asks for something."""
        self.faults.unsupported.append(causes.forbidden(self.at(key), why))

    def _typed(self, key: str, kind: type, rule: str, default: Any) -> Any:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, kind):
            self._wrong_type(self.at(key), value, rule)
            return default
        return value

    def _wrong_type(self, path: str, value: object, rule: str) -> None:
        self.faults.invalid.append(causes.type_invalid(path, value, rule))
