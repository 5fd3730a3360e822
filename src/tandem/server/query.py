"""Query parameters with Kubernetes' own ideas of what a boolean and a number are."""

from __future__ import annotations

from urllib.parse import parse_qsl

from tandem.errors import BadRequest


class Query:
    """The parameters of one request; the first value of each counts, as in kube-apiserver."""

    __slots__ = ("_raw", "_values")

    def __init__(self, raw: str) -> None:
        self._raw = raw
        self._values: dict[str, str] = {}
        for name, value in parse_qsl(raw, keep_blank_values=True) if raw else ():
            self._values.setdefault(name, value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """The value, empty when absent."""
        return self._values.get(name, "")

    def texts(self, name: str) -> list[str]:
        """All values, in their order: a parameter may be given several times (``command``)."""
        return [value for key, value in parse_qsl(self._raw, keep_blank_values=True) if key == name]

    def flag(self, name: str) -> bool:
        """True for anything but absence, ``0`` and ``false``: ``?watch`` alone is true."""
        return name in self._values and self._values[name].lower() not in ("0", "false")

    def integer(self, name: str) -> int | None:
        """The value, or None when absent or empty. Raises ``BadRequest`` for what is no number."""
        text = self._values.get(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError as error:
            raise BadRequest(f"query parameter {name}: {text!r} is not a number") from error
