"""``IntOrString`` as an amount: a number, or a percentage of something."""

from __future__ import annotations

import math
import re
from typing import Any

from tandem.api import causes
from tandem.errors import Cause

_PERCENT = re.compile(r"[0-9]+%")
_PERCENT_RULE = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
    "regex used for validation is '[0-9]+%')"
)


def amount_causes(value: Any, field: str) -> list[Cause]:
    """What is wrong with a number or percentage that may not be negative."""
    if isinstance(value, str):
        return [] if _PERCENT.fullmatch(value) else [causes.invalid(field, value, _PERCENT_RULE)]
    if value is not None and value < 0:
        return [causes.invalid(field, value, "must be greater than or equal to 0")]
    return []


def percentage(value: Any) -> int | None:
    """25 for ``25%``; None for what is no percentage."""
    return int(value[:-1]) if isinstance(value, str) and _PERCENT.fullmatch(value) else None


def resolve(value: Any, total: int, *, up: bool) -> int:
    """The amount of ``total`` that a valid ``value`` stands for, rounded up or down."""
    percent = percentage(value)
    if percent is None:
        return int(value or 0)
    share = percent * total / 100
    return math.ceil(share) if up else math.floor(share)
