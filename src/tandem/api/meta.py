"""Object metadata: names, identities, times, labels, conditions and references. Pure helpers."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc, Kind
from tandem.errors import Cause

# Kubernetes leaves out vowels and look-alikes, so that no name spells a word.
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_GENERATED_LENGTH = 63

ANNOTATIONS_LIMIT = 256 * 1024
"""Most bytes of all annotations of one object, keys and values together."""

_DNS1123_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS1123_SUBDOMAIN = rf"{_DNS1123_LABEL}(\.{_DNS1123_LABEL})*"
_DNS1035_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"

_RULES: dict[str, tuple[re.Pattern[str], int, str]] = {
    "dns1123label": (
        re.compile(_DNS1123_LABEL),
        63,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
        "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "
        "used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ),
    "dns1123subdomain": (
        re.compile(_DNS1123_SUBDOMAIN),
        253,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
        "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
        "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ),
    "dns1035label": (
        re.compile(_DNS1035_LABEL),
        63,
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
        "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "
        "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    ),
}

_QUALIFIED_RE = re.compile(_QUALIFIED)
_LABEL_VALUE_RE = re.compile(_LABEL_VALUE)
_QUALIFIED_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
    "an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
    "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def now() -> str:
    """The time as Kubernetes writes it: RFC 3339, UTC, whole seconds (``2026-01-02T03:04:05Z``)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_now() -> str:
    """The time to the microsecond, as ``eventTime`` wants it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as an aware datetime. Raises ``ValueError``."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    # Go writes nanoseconds where it has them; datetime knows microseconds.
    return datetime.fromisoformat(_BEYOND_MICROS.sub(r"\1", text.upper()))


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_BEYOND_MICROS = re.compile(r"(\.\d{6})\d+")


def new_uid() -> str:
    """A new ``metadata.uid``."""
    return str(uuid.uuid4())


def generate_name(base: str) -> str:
    """``base`` with a random suffix, cut so that the whole stays a DNS label's length."""
    suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))
    return base[: _GENERATED_LENGTH - _SUFFIX_LENGTH] + suffix


def get(doc: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """The value at a dotted path, or ``default`` where any step is missing, null or no object."""
    value: Any = doc
    for step in path.split("."):
        if not isinstance(value, Mapping):
            return default
        value = value.get(step)
        if value is None:
            return default
    return value


def name_causes(name: Any, field: str, rule: str = "dns1123subdomain") -> list[Cause]:
    """What is wrong with a name: ``rule`` is ``dns1123subdomain``, ``dns1123label`` or
    ``dns1035label``."""
    pattern, limit, text = _RULES[rule]
    if not isinstance(name, str):
        return [causes.type_invalid(field, name, "must be a string")]
    found = []
    if len(name) > limit:
        found.append(causes.invalid(field, name, f"must be no more than {limit} characters"))
    if not pattern.fullmatch(name):
        found.append(causes.invalid(field, name, text))
    return found


def qualified_name_causes(key: str, field: str) -> list[Cause]:
    """What is wrong with a label's, annotation's or finalizer's key: ``[prefix/]name``."""
    prefix, slash, name = key.rpartition("/")
    found = []
    if slash:
        if not prefix:
            found.append(causes.invalid(field, key, "prefix part must be non-empty"))
        else:
            pattern, limit, text = _RULES["dns1123subdomain"]
            if len(prefix) > limit:
                found.append(
                    causes.invalid(
                        field, key, f"prefix part must be no more than {limit} characters"
                    )
                )
            if not pattern.fullmatch(prefix):
                found.append(causes.invalid(field, key, f"prefix part {text}"))
    if not name:
        found.append(causes.invalid(field, key, "name part must be non-empty"))
    elif len(name) > 63:
        found.append(causes.invalid(field, key, "name part must be no more than 63 characters"))
    if not _QUALIFIED_RE.fullmatch(name):
        found.append(causes.invalid(field, key, _QUALIFIED_RULE))
    return found


def label_value_causes(value: str, field: str) -> list[Cause]:
    """What is wrong with a label's value."""
    found = []
    if len(value) > 63:
        found.append(causes.invalid(field, value, "must be no more than 63 characters"))
    if not _LABEL_VALUE_RE.fullmatch(value):
        found.append(causes.invalid(field, value, _LABEL_VALUE_RULE))
    return found


def label_causes(labels: Mapping[str, str], field: str) -> list[Cause]:
    """What is wrong with a set of labels."""
    found = []
    for key, value in labels.items():
        found += qualified_name_causes(key, field)
        found += label_value_causes(value, field)
    return found


def annotation_causes(annotations: Mapping[str, str], field: str) -> list[Cause]:
    """What is wrong with a set of annotations: their keys, and their size as a whole."""
    found = []
    size = 0
    for key, value in annotations.items():
        found += qualified_name_causes(key.lower(), field)
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT:
        found.append(causes.too_long(field, ANNOTATIONS_LIMIT))
    return found


def set_condition(
    conditions: list[Doc], type_: str, status: str, reason: str = "", message: str = ""
) -> bool:
    """Put a condition in its place in ``conditions``; returns whether anything changed.

    ``lastTransitionTime`` moves only when ``status`` does.
    """
    for condition in conditions:
        if condition.get("type") == type_:
            break
    else:
        condition = {"type": type_}
        conditions.append(condition)
    before = dict(condition)
    if condition.get("status") != status:
        condition["status"] = status
        condition["lastTransitionTime"] = now()
    for field, text in (("reason", reason), ("message", message)):
        if text:
            condition[field] = text
        else:
            condition.pop(field, None)
    return condition != before


def condition(doc: Doc, type_: str) -> Doc | None:
    """The condition of that type in ``status.conditions``, or None."""
    for entry in get(doc, "status.conditions", []):
        if entry.get("type") == type_:
            return dict(entry)
    return None


def owner_reference(kind: Kind, doc: Doc) -> Doc:
    """The entry in ``ownerReferences`` by which ``doc``, of ``kind``, controls another object."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": doc["metadata"]["name"],
        "uid": doc["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(doc: Doc) -> Doc | None:
    """The owner reference of the object that controls ``doc``, or None."""
    for reference in get(doc, "metadata.ownerReferences", []):
        if reference.get("controller"):
            return dict(reference)
    return None


def object_reference(doc: Doc) -> Doc:
    """An ObjectReference to ``doc``, as an Event's ``involvedObject`` has it."""
    metadata = doc["metadata"]
    reference = {
        "apiVersion": doc.get("apiVersion"),
        "kind": doc.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata["name"],
        "uid": metadata.get("uid"),
        "resourceVersion": metadata.get("resourceVersion"),
    }
    return {field: value for field, value in reference.items() if value}
