"""Small rules that many fields of a Pod share, in Kubernetes' words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.quantity import RULE, parse_quantity
from tandem.errors import Cause

MAX_INT32 = (1 << 31) - 1
NOT_NEGATIVE = "must be greater than or equal to 0"
MODE_RULE = "must be a number between 0 and 0777 (octal), both inclusive"

_PORT_NAME_LETTERS = re.compile(r"[-a-z0-9]+")


def choice_causes(doc: Doc, field: str, choices: Iterable[str], path: str) -> list[Cause]:
    """Whether an optional field has one of ``choices``."""
    value = doc.get(field)
    if value in (None, "") or value in choices:
        return []
    return [causes.not_supported(f"{path}.{field}", value, choices)]


def range_causes(doc: Doc, field: str, low: int, high: int, path: str) -> list[Cause]:
    """Whether an optional number is between ``low`` and ``high``."""
    value = doc.get(field)
    if value is None or low <= value <= high:
        return []
    message = f"must be between {low} and {high}, inclusive"
    return [causes.invalid(f"{path}.{field}", value, message)]


def not_negative_causes(doc: Doc, fields: Iterable[str], path: str) -> list[Cause]:
    """Whether optional numbers are 0 or more."""
    return [
        causes.invalid(f"{path}.{field}", doc[field], NOT_NEGATIVE)
        for field in fields
        if (doc.get(field) or 0) < 0
    ]


def id_causes(doc: Doc, fields: Iterable[str], path: str) -> list[Cause]:
    """Whether optional user and group ids are such."""
    return [cause for field in fields for cause in range_causes(doc, field, 0, MAX_INT32, path)]


def mode_causes(doc: Doc, field: str, path: str) -> list[Cause]:
    """Whether an optional file mode is one."""
    mode = doc.get(field)
    if mode is None or 0 <= mode <= 0o777:
        return []
    return [causes.invalid(f"{path}.{field}", mode, MODE_RULE)]


def port_causes(port: Any, path: str) -> list[Cause]:
    """Whether ``port`` is a port's number, or the name of one."""
    if isinstance(port, str):
        return port_name_causes(port, path)
    if isinstance(port, int) and 0 < port < 65536:
        return []
    return [causes.invalid(path, port, "must be between 1 and 65535, inclusive")]


def port_name_causes(name: str, path: str) -> list[Cause]:
    """What is wrong with a port's name."""
    found = []
    if len(name) > 15:
        found.append("must be no more than 15 characters")
    if not _PORT_NAME_LETTERS.fullmatch(name):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", name):
        found.append("must contain at least one letter (a-z)")
    if "--" in name:
        found.append("must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        found.append("must not begin or end with a hyphen")
    return [causes.invalid(path, name, message) for message in found]


def ip_causes(address: Any, path: str) -> list[Cause]:
    """Whether ``address`` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        return [causes.invalid(path, address, message)]
    return []


def quantity_causes(value: Any, path: str) -> list[Cause]:
    """Whether ``value`` is a quantity, and not below zero."""
    try:
        number = parse_quantity(value)
    except (ValueError, TypeError):
        return [causes.invalid(path, value, RULE)]
    return [causes.invalid(path, value, NOT_NEGATIVE)] if number < 0 else []


def inside_path_causes(value: str, path: str) -> list[Cause]:
    """Whether a path stays below where it begins: relative, without ``..``."""
    found = []
    if value.startswith("/"):
        found.append(causes.invalid(path, value, "must be a relative path"))
    return found + no_backsteps_causes(value, path)


def no_backsteps_causes(value: str, path: str) -> list[Cause]:
    """Whether a path has no step ``..``."""
    if ".." in value.split("/"):
        return [causes.invalid(path, value, "must not contain '..'")]
    return []


def file_path_causes(value: str, path: str) -> list[Cause]:
    """Whether a path may be a file of a volume that is written atomically, whose own files begin
    with two dots."""
    found = inside_path_causes(value, path)
    if value.startswith("..") and not value.startswith("../") and value != "..":
        found.append(causes.invalid(path, value, "must not start with '..'"))
    return found


def one_of_causes(
    doc: Doc, fields: Iterable[str], path: str, *, kind: str, missing: str | None
) -> tuple[str | None, list[Cause]]:
    """The one of ``fields`` that is set, and what is wrong when it is none or several. ``kind`` is
    what the message calls them; ``missing`` is the rule for none, None where none is fine."""
    given = [field for field in fields if doc.get(field) is not None]
    found = [
        causes.forbidden(f"{path}.{field}", f"may not specify more than 1 {kind}")
        for field in given[1:]
    ]
    if not given and missing is not None:
        found.append(causes.required(path, missing))
    return (given[0] if given else None), found
