"""What a Pod may be told about itself: fields and resources, as the downward API has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, Decimal

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.quantity import parse_quantity
from tandem.errors import InvalidSpec
from tandem.store import Key

Lookup = Callable[[Key], Doc | None]

_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_LISTS = {"status.podIPs": "status.podIP", "status.hostIPs": "status.hostIP"}
_FILLED_BY_THE_NODE = ("cpu", "memory", "ephemeral-storage")
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"} | {
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def field(pod: Doc, path: str, fields: Mapping[str, str] | None = None) -> str:
    """The value of a ``fieldRef``. ``fields`` has what the Pod itself does not say, or not yet."""
    if fields and path in fields:
        return fields[path]
    if match := _KEYED.fullmatch(path):
        values: Mapping[str, str] = get(pod, f"metadata.{match[1]}", {})
        return str(values.get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        named: Mapping[str, str] = get(pod, path, {})
        return "\n".join(f"{key}={_quoted(named[key])}" for key in sorted(named))
    if path in _LISTS:
        entries = [str(entry.get("ip", "")) for entry in get(pod, path, [])]
        return ",".join(entries) or str(get(pod, _LISTS[path], ""))
    if path == "spec.serviceAccountName":
        return str(get(pod, path) or "default")
    return str(get(pod, path, ""))


def _quoted(text: str) -> str:
    """As Go's ``%q``: control characters as escapes, everything that can be printed as it is."""
    found = []
    for character in text:
        if character in _ESCAPES:
            found.append(_ESCAPES[character])
        elif character == " " or character.isprintable():
            found.append(character)
        elif (number := ord(character)) < 0x80:
            found.append(f"\\x{number:02x}")
        else:
            found.append(f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}")
    return f'"{"".join(found)}"'


def resource(pod: Doc, container: Doc, reference: Doc, lookup: Lookup) -> str:
    """The value of a ``resourceFieldRef``, in whole divisors, rounded up.

    It is the container's, unless the reference names another. A limit that is not set is all that
    the node has to give. Raises ``InvalidSpec``.
    """
    named = reference.get("containerName")
    if named and named != container.get("name"):
        container = _container(pod, named)
    where, _, name = str(reference.get("resource", "")).partition(".")
    value = get(container, f"resources.{where}", {}).get(name)
    if value is None and where == "limits" and name in _FILLED_BY_THE_NODE:
        node = lookup(Key("nodes", "", str(get(pod, "spec.nodeName", "")))) or {}
        value = get(node, "status.allocatable", {}).get(name)
    divisor = parse_quantity(reference.get("divisor") or "1") or Decimal(1)
    parts = parse_quantity(value or "0") / divisor
    return str(int(parts.to_integral_value(ROUND_CEILING)))


def _container(pod: Doc, name: str) -> Doc:
    for part in ("containers", "initContainers"):
        for container in get(pod, f"spec.{part}", []):
            if container.get("name") == name:
                found: Doc = container
                return found
    raise InvalidSpec(f"container {name} not found")
