"""Kubernetes quantities (``500m``, ``2Gi``, ``1e3``): parsed exactly, never through a float.

A quantity is a decimal number with a suffix: ``n u m`` below one, ``k M G T P E`` in powers of 1000,
``Ki Mi Gi Ti Pi Ei`` in powers of 1024, or an exponent (``1e3``).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_UP, Decimal

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_PATTERN = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?\d{1,3}))?"
)

_DECIMAL_STEPS = tuple(_DECIMAL)
_EXPONENT_STEPS = tuple(f"e{power}" if power else "" for power in _DECIMAL.values())
_BINARY_STEPS = ("", *_BINARY)
# Below a thousand no factor can be moved into the suffix.
_CANONICAL = re.compile(r"[1-9]\d{0,2}([KMGTPE]i|[numkMGTPE])?")

RULE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def parse_quantity(value: str | int | float) -> Decimal:
    """The exact value. Raises ``ValueError`` that states the rule."""
    # A float comes from JSON such as 0.5: its shortest decimal form is what was written.
    text = value if isinstance(value, str) else repr(value)
    match = _PATTERN.fullmatch(text)
    if isinstance(value, bool) or match is None:
        raise ValueError(RULE)
    number = Decimal(match["number"])
    if match["exponent"]:
        return number.scaleb(int(match["exponent"]))
    suffix = match["suffix"] or ""
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY[suffix]
    return number.scaleb(_DECIMAL[suffix])


def to_bytes(value: str | int | float) -> int:
    """The value in whole units, rounded up: bytes of memory, number of Pods."""
    return int(parse_quantity(value).to_integral_value(ROUND_CEILING))


def to_millis(value: str | int | float) -> int:
    """The value in thousandths, rounded up: millicores of CPU."""
    return int(parse_quantity(value).scaleb(3).to_integral_value(ROUND_CEILING))


def canonical(value: str | int | float) -> str:
    """The form in which Kubernetes writes the value back: the suffix of the kind it was given in
    (binary, decimal or exponent), as large as leaves a whole number. Raises ``ValueError``.

    ``0.5`` becomes ``500m``, ``1024Mi`` becomes ``1Gi``, ``2000`` becomes ``2k``, ``1.5Gi`` becomes
    ``1536Mi``. What is already canonical, the usual case, is returned as it is.
    """
    if isinstance(value, str) and _CANONICAL.fullmatch(value):
        return value
    number = parse_quantity(value)
    text = value if isinstance(value, str) else ""
    if text[-1:] == "i" and abs(number) >= 1024 and number == number.to_integral_value():
        return _scaled(int(number), 1024, _BINARY_STEPS)
    # Nothing smaller than a nano exists: what is left over rounds away from zero.
    nanos = int(number.scaleb(9).to_integral_value(ROUND_UP))
    exponent = "e" in text or "E" in text[:-1]
    return _scaled(nanos, 1000, _EXPONENT_STEPS if exponent else _DECIMAL_STEPS)


def _scaled(number: int, base: int, steps: tuple[str, ...]) -> str:
    """``number`` with as many factors of ``base`` as it has put into the suffix."""
    if number == 0:
        return "0"
    step = 0
    while number % base == 0 and step < len(steps) - 1:
        number //= base
        step += 1
    return f"{number}{steps[step]}"
