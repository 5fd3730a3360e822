"""Defaults and rules of one ``v1`` Container, wherever it appears."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.meta import name_causes
from tandem.api.quantity import RULE, parse_quantity
from tandem.errors import Cause

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("TCP", "UDP", "SCTP")

_ENV_NAME = re.compile(r"[ -<>-~]+")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_PORT_NAME_RULE = "must be no more than 15 characters of lower case letters, digits and '-', with at least one letter"
_FIELD_REF = re.compile(
    r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])"
    r"|spec\.(nodeName|serviceAccountName)|status\.hostIPs?"
)
_FIELD_REFS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels['<KEY>']",
    "metadata.annotations['<KEY>']",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
)
_SOURCES = ("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef")
_RESOURCES = {"limits": ("cpu", "memory"), "requests": ("cpu", "memory", "ephemeral-storage")}
_MAX_ID = (1 << 31) - 1


def pull_policy(image: str) -> str:
    """What Kubernetes takes when none is given: Always for ``:latest`` or no tag, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def default_container(container: Doc) -> None:
    """Fill in what Kubernetes fills in."""
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if container.get("image"):
        container.setdefault("imagePullPolicy", pull_policy(str(container["image"])))
    resources = container.setdefault("resources", {})
    if limits := resources.get("limits"):
        # A limit without a request asks for all of it.
        resources["requests"] = {**limits, **(resources.get("requests") or {})}
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for entry in container.get("env") or ():
        if field_ref := (entry.get("valueFrom") or {}).get("fieldRef"):
            field_ref.setdefault("apiVersion", "v1")


def containers_causes(containers: list[Doc], path: str) -> list[Cause]:
    """What is wrong with a list of containers."""
    found: list[Cause] = []
    names: set[str] = set()
    for index, container in enumerate(containers):
        found += _container_causes(container, f"{path}[{index}]", names)
    return found


def _container_causes(container: Doc, path: str, names: set[str]) -> list[Cause]:
    found = []
    name = container.get("name")
    if not name:
        found.append(causes.required(f"{path}.name"))
    else:
        found += name_causes(name, f"{path}.name", "dns1123label")
        if name in names:
            found.append(causes.duplicate(f"{path}.name", name))
        names.add(name)
    image = container.get("image")
    if not image:
        found.append(causes.required(f"{path}.image"))
    elif image != image.strip():
        message = "must not have leading or trailing whitespace"
        found.append(causes.invalid(f"{path}.image", image, message))
    found += choice_causes(container, "imagePullPolicy", PULL_POLICIES, path)
    policies = ("File", "FallbackToLogsOnError")
    found += choice_causes(container, "terminationMessagePolicy", policies, path)
    found += _port_causes(container.get("ports") or [], f"{path}.ports")
    found += _env_causes(container.get("env") or [], f"{path}.env")
    found += _env_from_causes(container.get("envFrom") or [], f"{path}.envFrom")
    found += resource_causes(container.get("resources") or {}, f"{path}.resources")
    security = container.get("securityContext") or {}
    found += identity_causes(security, f"{path}.securityContext")
    if security.get("privileged") and security.get("allowPrivilegeEscalation") is False:
        message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        found.append(causes.invalid(f"{path}.securityContext", "", message))
    return found


def identity_causes(security: Doc, path: str) -> list[Cause]:
    """What is wrong with the users and groups, and the seccomp profile, of a security context."""
    found = [
        causes.invalid(f"{path}.{name}", value, f"must be between 0 and {_MAX_ID}, inclusive")
        for name in ("runAsUser", "runAsGroup", "fsGroup")
        if (value := security.get(name)) is not None and not 0 <= value <= _MAX_ID
    ]
    profile = security.get("seccompProfile") or {}
    kinds = ("RuntimeDefault", "Unconfined")
    return found + choice_causes(profile, "type", kinds, f"{path}.seccompProfile")


def choice_causes(doc: Doc, field: str, choices: Iterable[str], path: str) -> list[Cause]:
    """Whether an optional field has one of ``choices``."""
    value = doc.get(field)
    if value in (None, "") or value in choices:
        return []
    return [causes.not_supported(f"{path}.{field}", value, choices)]


def _port_causes(ports: list[Doc], path: str) -> list[Cause]:
    found = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        number = port.get("containerPort")
        if not number:
            found.append(causes.required(f"{at}.containerPort"))
        elif not 0 < number < 65536:
            message = "must be between 1 and 65535, inclusive"
            found.append(causes.invalid(f"{at}.containerPort", number, message))
        host_port = port.get("hostPort")
        if host_port and not 0 < host_port < 65536:
            message = "must be between 1 and 65535, inclusive"
            found.append(causes.invalid(f"{at}.hostPort", host_port, message))
        found += choice_causes(port, "protocol", PROTOCOLS, at)
        if name := port.get("name"):
            if len(name) > 15 or not _PORT_NAME.fullmatch(name):
                found.append(causes.invalid(f"{at}.name", name, _PORT_NAME_RULE))
            elif name in names:
                found.append(causes.duplicate(f"{at}.name", name))
            names.add(name)
    return found


def _env_causes(env: list[Doc], path: str) -> list[Cause]:
    found = []
    for index, entry in enumerate(env):
        at = f"{path}[{index}]"
        name = entry.get("name")
        if not name:
            found.append(causes.required(f"{at}.name"))
        elif not _ENV_NAME.fullmatch(name):
            message = "must consist only of printable ASCII characters other than '='"
            found.append(causes.invalid(f"{at}.name", name, message))
        source = entry.get("valueFrom")
        if source is not None:
            found += _source_causes(entry, source, f"{at}.valueFrom")
    return found


def _source_causes(entry: Doc, source: Doc, path: str) -> list[Cause]:
    given = [name for name in _SOURCES if source.get(name)]
    found = []
    if entry.get("value"):
        found.append(causes.invalid(path, "", "may not be specified when `value` is not empty"))
    if not given:
        choices = ", ".join(f"`{name}`" for name in _SOURCES)
        found.append(causes.invalid(path, "", f"must specify one of: {choices}"))
    elif len(given) > 1:
        found.append(
            causes.invalid(path, "", "may not have more than one field specified at a time")
        )
    for name in ("configMapKeyRef", "secretKeyRef"):
        if reference := source.get(name):
            found += _reference_causes(reference, f"{path}.{name}")
            if not reference.get("key"):
                found.append(causes.required(f"{path}.{name}.key"))
    if field_ref := source.get("fieldRef"):
        at = f"{path}.fieldRef.fieldPath"
        if not field_ref.get("fieldPath"):
            found.append(causes.required(at))
        elif not _FIELD_REF.fullmatch(field_ref["fieldPath"]):
            found.append(causes.not_supported(at, field_ref["fieldPath"], _FIELD_REFS))
    return found


def _env_from_causes(sources: list[Doc], path: str) -> list[Cause]:
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
            found += _reference_causes(source[name], f"{at}.{name}")
        if (prefix := source.get("prefix")) and not _ENV_NAME.fullmatch(prefix):
            message = "must consist only of printable ASCII characters other than '='"
            found.append(causes.invalid(f"{at}.prefix", prefix, message))
    return found


def _reference_causes(reference: Doc, path: str) -> list[Cause]:
    if not reference.get("name"):
        return [causes.required(f"{path}.name")]
    return name_causes(reference["name"], f"{path}.name")


def resource_causes(resources: Doc, path: str) -> list[Cause]:
    """What is wrong with ``requests`` and ``limits``."""
    found = []
    limits = resources.get("limits") or {}
    for section in ("limits", "requests"):
        for name, value in (resources.get(section) or {}).items():
            at = f"{path}.{section}[{name}]"
            if name not in _RESOURCES[section]:
                found.append(causes.not_supported(at, name, _RESOURCES[section]))
                continue
            found += quantity_causes(value, at)
    for name, value in (resources.get("requests") or {}).items():
        limit = limits.get(name)
        if limit is None or quantity_causes(value, "") or quantity_causes(limit, ""):
            continue
        if parse_quantity(value) > parse_quantity(limit):
            message = f"must be less than or equal to {name} limit of {limit}"
            found.append(causes.invalid(f"{path}.requests", str(value), message))
    return found


def quantity_causes(value: Any, path: str) -> list[Cause]:
    """Whether ``value`` is a quantity, and not below zero."""
    try:
        number = parse_quantity(value)
    except (ValueError, TypeError):
        return [causes.invalid(path, value, RULE)]
    if number < 0:
        return [causes.invalid(path, value, "must be greater than or equal to 0")]
    return []
