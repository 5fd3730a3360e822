"""A container's environment, and the references to a Pod's own fields: defaults and rules."""

from __future__ import annotations

import re

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.configmap import key_causes
from tandem.api.meta import name_causes, qualified_name_causes
from tandem.api.quantity import canonical
from tandem.errors import Cause

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""What ``fieldRef`` may name in ``env``, beside a single label or annotation."""

VOLUME_FIELDS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
"""What ``fieldRef`` may name in a downwardAPI volume."""

# What the API knows as paths into a Pod; which of them may be referred to depends on where.
_KNOWN_FIELDS = {
    *ENV_FIELDS,
    *VOLUME_FIELDS,
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
}
_SUBSCRIPTED = re.compile(r"(?P<path>[^\[\]]+)\['(?P<key>[^']*)'\]")
_RESOURCES = tuple(
    f"{section}.{name}"
    for section in ("limits", "requests")
    for name in ("cpu", "ephemeral-storage", "memory")
)
_CPU_DIVISORS = ("1", "1m")
_BYTE_DIVISORS = ("1", *(f"1{unit}" for unit in ("k", "M", "G", "T", "P", "E")))
_BYTE_DIVISORS += tuple(f"1{unit}" for unit in ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))

_NAME = re.compile(r"[ -<>-~]+")
_NAME_RULE = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
_SOURCE_RULE = (
    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
)


def default_reference(holder: Doc) -> None:
    """Fill in what a ``fieldRef`` or ``resourceFieldRef`` of ``holder`` leaves out."""
    if (field_ref := holder.get("fieldRef")) is not None:
        field_ref.setdefault("apiVersion", "v1")
    if (resource_ref := holder.get("resourceFieldRef")) is not None:
        resource_ref.setdefault("divisor", "0")


def env_causes(env: list[Doc], path: str) -> list[Cause]:
    """What is wrong with the variables."""
    found = []
    for index, entry in enumerate(env):
        at = f"{path}[{index}]"
        name = entry.get("name")
        if not name:
            found.append(causes.required(f"{at}.name"))
        elif not _NAME.fullmatch(name):
            found.append(causes.invalid(f"{at}.name", name, _NAME_RULE))
        source = entry.get("valueFrom")
        if source is not None:
            found += _source_causes(entry, source, f"{at}.valueFrom")
    return found


def _source_causes(entry: Doc, source: Doc, path: str) -> list[Cause]:
    given = [name for name in _SOURCES if source.get(name) is not None]
    found = []
    if not given:
        found.append(causes.invalid(path, "", _SOURCE_RULE))
    elif entry.get("value"):
        found.append(causes.invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        message = "may not have more than one field specified at a time"
        found.append(causes.invalid(path, "", message))
    for name in given:
        at = f"{path}.{name}"
        match name:
            case "fieldRef":
                found += field_ref_causes(source[name], at, ENV_FIELDS)
            case "resourceFieldRef":
                found += resource_ref_causes(source[name], at)
            case _:
                found += _key_ref_causes(source[name], at)
    return found


def _key_ref_causes(reference: Doc, path: str) -> list[Cause]:
    found = name_causes(reference.get("name") or "", f"{path}.name")
    if not reference.get("key"):
        return [*found, causes.required(f"{path}.key")]
    return found + key_causes(reference["key"], f"{path}.key")


def field_ref_causes(reference: Doc, path: str, allowed: tuple[str, ...]) -> list[Cause]:
    """What is wrong with a reference to a field of the Pod."""
    at = f"{path}.fieldPath"
    field = reference.get("fieldPath")
    if not field:
        return [causes.required(at)]
    if match := _SUBSCRIPTED.fullmatch(field):
        if match["path"] == "metadata.annotations":
            return qualified_name_causes(match["key"].lower(), path)
        if match["path"] == "metadata.labels":
            return qualified_name_causes(match["key"], path)
        message = f"error converting fieldPath: field label does not support subscript: {field}"
        return [causes.invalid(at, field, message)]
    if field not in _KNOWN_FIELDS:
        message = f"error converting fieldPath: field label not supported: {field}"
        return [causes.invalid(at, field, message)]
    if field not in allowed:
        return [causes.not_supported(at, field, allowed)]
    return []


def resource_ref_causes(reference: Doc, path: str, *, in_volume: bool = False) -> list[Cause]:
    """What is wrong with a reference to a container's resource. A volume belongs to no container, so
    there one must be named."""
    found = []
    resource = reference.get("resource") or ""
    hugepages = resource.startswith(("limits.hugepages-", "requests.hugepages-"))
    if in_volume and not reference.get("containerName"):
        found.append(causes.required(f"{path}.containerName"))
    elif not resource:
        found.append(causes.required(f"{path}.resource"))
    elif resource not in _RESOURCES and not hugepages:
        found.append(causes.not_supported(f"{path}.resource", resource, _RESOURCES))
    divisor = canonical(reference.get("divisor") or "0")
    if divisor == "0":
        return found
    what = resource.partition(".")[2]
    divisors = _CPU_DIVISORS if what == "cpu" else _BYTE_DIVISORS
    if divisor not in divisors:
        values = "1m and 1" if what == "cpu" else ", ".join(_BYTE_DIVISORS)
        what = {"ephemeral-storage": "local ephemeral storage"}.get(what, what)
        message = f"only divisor's values {values} are supported with the {what} resource"
        found.append(causes.invalid(f"{path}.divisor", resource, message))
    return found


def env_from_causes(sources: list[Doc], path: str) -> list[Cause]:
    """What is wrong with ``envFrom``."""
    found = []
    for index, source in enumerate(sources):
        at = f"{path}[{index}]"
        given = [name for name in ("configMapRef", "secretRef") if source.get(name) is not None]
        if len(given) != 1:
            message = "must specify one of: `configMapRef` or `secretRef`"
            if given:
                message = "may not have more than one field specified at a time"
            found.append(causes.invalid(at, "", message))
        for name in given:
            reference = source[name]
            if not reference.get("name"):
                found.append(causes.required(f"{at}.{name}.name"))
            else:
                found += name_causes(reference["name"], f"{at}.{name}.name")
        if (prefix := source.get("prefix")) and not _NAME.fullmatch(prefix):
            found.append(causes.invalid(f"{at}.prefix", prefix, _NAME_RULE))
    return found
