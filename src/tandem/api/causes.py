"""Causes in Kubernetes' words, so that every refusal reads alike.

A cause's ``message`` opens with the rule's name (``Required value``, ``Invalid value: "x"``), and the
whole refusal joins ``field: message``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tandem.errors import Cause


def required(field: str, detail: str = "") -> Cause:
    """The field is missing or empty."""
    return Cause(field, _with("Required value", detail), "FieldValueRequired")


def invalid(field: str, value: Any, detail: str = "") -> Cause:
    """The value breaks a rule, which ``detail`` states."""
    return Cause(field, _with(f"Invalid value: {_show(value)}", detail), "FieldValueInvalid")


def type_invalid(field: str, value: Any, detail: str) -> Cause:
    """The value has the wrong JSON type; ``detail`` says which it must have."""
    return Cause(field, _with(f"Invalid value: {_show(value)}", detail), "FieldValueTypeInvalid")


def not_supported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    """The value is none of ``supported``."""
    choices = ", ".join(f'"{choice}"' for choice in sorted(supported))
    return Cause(
        field,
        f"Unsupported value: {_show(value)}: supported values: {choices}",
        "FieldValueNotSupported",
    )


def duplicate(field: str, value: Any) -> Cause:
    """The value must be unique and is not."""
    return Cause(field, f"Duplicate value: {_show(value)}", "FieldValueDuplicate")


def not_found(field: str, value: Any) -> Cause:
    """The value names something that is not there."""
    return Cause(field, f"Not found: {_show(value)}", "FieldValueNotFound")


def forbidden(field: str, detail: str) -> Cause:
    """The field may not be set, or not be changed, as ``detail`` says."""
    return Cause(field, f"Forbidden: {detail}", "FieldValueForbidden")


def too_long(field: str, limit: int) -> Cause:
    """The value has more than ``limit`` bytes; it is not repeated, as it is long."""
    return Cause(field, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")


def immutable(field: str, value: Any) -> Cause:
    """The field may not change once it is set."""
    return invalid(field, value, "field is immutable")


def describe(causes: Iterable[Cause]) -> str:
    """``field: message``, in brackets when there are several, as ``kubectl`` users know it."""
    parts = [
        f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes
    ]
    return parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"


_SHOWN = 256
"""Most characters of a value repeated in a message; more helps nobody."""


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text
