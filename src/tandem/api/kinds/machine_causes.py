"""Causes as KubeVirt's admission writes them: whole sentences that name their field themselves."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from tandem.api.meta import name_causes
from tandem.api.quantity import RULE, parse_quantity
from tandem.errors import Cause

MAX_TEXT = 256
_TEXT = re.compile(r"[A-Za-z0-9_.+-]+")


def invalid(field: str, message: str) -> Cause:
    """The value breaks a rule."""
    return Cause(field, message, "FieldValueInvalid")


def required(field: str, message: str) -> Cause:
    """The field is missing."""
    return Cause(field, message, "FieldValueRequired")


def duplicate(field: str, message: str) -> Cause:
    """The value is taken."""
    return Cause(field, message, "FieldValueDuplicate")


def not_supported(field: str, message: str) -> Cause:
    """The value is not one of those that there are, or nobody here can do it."""
    return Cause(field, message, "FieldValueNotSupported")


def amount(value: Any) -> Decimal | None:
    """A quantity as a number; None for one that is none, which :func:`amount_causes` tells."""
    if value is None:
        return None
    try:
        return parse_quantity(value)
    except (ValueError, TypeError):
        return None


def amount_causes(value: Any, field: str) -> list[Cause]:
    """Whether ``value`` is a quantity, and not below zero."""
    number = amount(value)
    if number is None:
        return [invalid(field, f"{field} '{value}': {RULE}")]
    if number < 0:
        return [invalid(field, f"{field} '{value}': must be greater than or equal to 0.")]
    return []


def text_size(text: str) -> int:
    """Its length in bytes; JSON can carry what is no Unicode, and that has a size as well."""
    return len(text.encode("utf-8", "surrogatepass"))


def text_causes(value: str, subject: str, field: str) -> list[Cause]:
    """Whether a serial number is made of what every guest and tool can read; ``subject`` is what the
    message calls it."""
    found = []
    if not _TEXT.fullmatch(value):
        message = (
            f"{subject} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        )
        found.append(invalid(field, message))
    if len(value) > MAX_TEXT:
        message = f"{subject} must be less than or equal to {MAX_TEXT} in length, if specified"
        found.append(invalid(field, message))
    return found


def label_causes(value: Any, field: str, rule: str = "dns1123label") -> list[Cause]:
    """What is wrong with a name, without the value in front."""
    return [
        invalid(field, cause.message.partition(": ")[2].partition(": ")[2] or cause.message)
        for cause in name_causes(value, field, rule)
    ]


def image_path_causes(value: str, field: str) -> list[Cause]:
    """Whether a path inside an image leads to a file in it."""
    if value == "/":
        return [invalid(field, f"{field} must not point to root")]
    steps = value.removesuffix("/").split("/")
    if steps[0] or any(step in ("", ".", "..") for step in steps[1:]):
        message = f"{field} must be an absolute path to a file without relative components"
        return [invalid(field, message)]
    return []
