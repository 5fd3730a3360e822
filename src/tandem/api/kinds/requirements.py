"""What a container may ask for: names and amounts of ``requests`` and ``limits``."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import quantity_causes
from tandem.api.meta import qualified_name_causes
from tandem.api.quantity import parse_quantity
from tandem.errors import Cause

_STANDARD = ("cpu", "memory", "ephemeral-storage")
_HUGEPAGES = "hugepages-"


def requirement_causes(resources: Doc, path: str) -> list[Cause]:
    """What is wrong with ``requests`` and ``limits``."""
    found = []
    requests, limits = (resources.get(name) or {} for name in ("requests", "limits"))
    for section, given in (("limits", limits), ("requests", requests)):
        for name, value in given.items():
            at = f"{path}.{section}[{name}]"
            found += _name_causes(name, at)
            found += _value_causes(name, value, at)
    if found:
        return found
    for name, value in requests.items():
        found += _against_limit(name, value, limits, path)
    names = {*requests, *limits}
    if any(name.startswith(_HUGEPAGES) for name in names) and not names & {"cpu", "memory"}:
        found.append(causes.forbidden(path, "HugePages require cpu or memory"))
    return found


def overhead_causes(overhead: Doc, path: str) -> list[Cause]:
    """What is wrong with a Pod's or RuntimeClass's overhead."""
    found = []
    for name, value in overhead.items():
        at = f"{path}[{name}]"
        found += _name_causes(name, at)
        found += _value_causes(name, value, at)
    return found


def is_extended(name: str) -> bool:
    """Whether a resource is one that somebody's device plugin would offer: ``example.com/gpu``."""
    return "/" in name and "kubernetes.io/" not in name


def _name_causes(name: str, path: str) -> list[Cause]:
    if found := qualified_name_causes(name, path):
        return found
    if "/" not in name:
        if name in _STANDARD or name.startswith(_HUGEPAGES):
            return []
        message = "must be a standard resource type or fully qualified"
        return [
            causes.invalid(path, name, message),
            causes.invalid(path, name, "must be a standard resource for containers"),
        ]
    if is_extended(name) and (
        name.startswith("requests.") or qualified_name_causes(f"requests.{name}", "")
    ):
        return [causes.invalid(path, name, "doesn't follow extended resource name standard")]
    return []


def _value_causes(name: str, value: Any, path: str) -> list[Cause]:
    if found := quantity_causes(value, path):
        return found
    amount = parse_quantity(value)
    if is_extended(name) and amount != amount.to_integral_value():
        return [causes.invalid(path, value, "must be an integer")]
    if name.startswith(_HUGEPAGES) and not _is_multiple(name, amount):
        message = f"{value} is not positive integer multiple of {name}"
        return [causes.invalid(path, value, message)]
    return []


def _is_multiple(name: str, amount: Decimal) -> bool:
    try:
        page = parse_quantity(name.removeprefix(_HUGEPAGES))
    except ValueError:
        return False
    return page > 0 and amount % page == 0


def _against_limit(name: str, value: Any, limits: Doc, path: str) -> list[Cause]:
    shared = not (is_extended(name) or name.startswith(_HUGEPAGES))
    limit = limits.get(name)
    if limit is None:
        message = "Limit must be set for non overcommitable resources"
        return [] if shared else [causes.required(f"{path}.limits", message)]
    request, most = parse_quantity(value), parse_quantity(limit)
    if request != most and not shared:
        message = f"must be equal to {name} limit of {limit}"
    elif request > most:
        message = f"must be less than or equal to {name} limit of {limit}"
    else:
        return []
    return [causes.invalid(f"{path}.requests", str(value), message)]
