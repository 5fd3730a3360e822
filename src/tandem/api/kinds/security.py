"""Security contexts of Pods and containers: rules."""

from __future__ import annotations

import re

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import MAX_INT32, choice_causes, id_causes, inside_path_causes
from tandem.errors import Cause

_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_SYSCTL_RULE = (
    "must have at most 253 characters and match regex "
    "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
)
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_MAX_APPARMOR = 4095


def pod_security_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with a Pod's security context, and with its sharing of namespaces."""
    security = spec.get("securityContext") or {}
    at = f"{path}.securityContext"
    found = id_causes(security, ("fsGroup", "runAsUser", "runAsGroup"), at)
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        if not 0 <= group <= MAX_INT32:
            message = f"must be between 0 and {MAX_INT32}, inclusive"
            found.append(causes.invalid(f"{at}.supplementalGroups[{index}]", group, message))
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        message = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(causes.invalid(f"{path}.shareProcessNamespace", True, message))
    found += _sysctl_causes(security.get("sysctls") or [], f"{at}.sysctls", spec)
    found += choice_causes(security, "fsGroupChangePolicy", ("Always", "OnRootMismatch"), at)
    found += choice_causes(security, "supplementalGroupsPolicy", ("Merge", "Strict"), at)
    return found + _profile_causes(security, at)


def _sysctl_causes(sysctls: list[Doc], path: str, spec: Doc) -> list[Cause]:
    found = []
    names: set[str] = set()
    for index, sysctl in enumerate(sysctls):
        at = f"{path}[{index}].name"
        name = sysctl.get("name") or ""
        if not name:
            found.append(causes.required(at))
        elif len(name) > 253 or not _SYSCTL.fullmatch(name):
            found.append(causes.invalid(at, name, _SYSCTL_RULE))
        elif name in names:
            found.append(causes.duplicate(at, name))
        names.add(name)
        if share := shared_by_host(name, spec):
            message = f"may not be specified when '{share}' is true"
            found.append(causes.invalid(at, name, message))
    return found


def shared_by_host(sysctl: str, spec: Doc) -> str | None:
    """The field by which a Pod shares with the host the namespace that a sysctl belongs to, or None:
    what it set there would be the host's own."""
    # The first separator decides which of "." and "/" separates, as sysctl(8) has it.
    first = next((letter for letter in sysctl if letter in "./"), ".")
    name = sysctl.replace("/", ".") if first == "/" else sysctl
    if spec.get("hostNetwork") and name.startswith("net."):
        return "hostNetwork"
    if spec.get("hostIPC") and name.startswith(_IPC_SYSCTLS):
        return "hostIPC"
    return None


def container_security_causes(security: Doc, path: str) -> list[Cause]:
    """What is wrong with a container's security context."""
    found = id_causes(security, ("runAsUser", "runAsGroup"), path)
    found += choice_causes(security, "procMount", ("Default", "Unmasked"), path)
    if security.get("allowPrivilegeEscalation") is False:
        added = (security.get("capabilities") or {}).get("add") or ()
        if security.get("privileged"):
            message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            found.append(causes.invalid(path, "", message))
        if "CAP_SYS_ADMIN" in added:
            message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            found.append(causes.invalid(path, "", message))
    return found + _profile_causes(security, path)


def _profile_causes(security: Doc, path: str) -> list[Cause]:
    found = []
    for field, word in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        profile = security.get(field)
        if profile is None:
            continue
        at = f"{path}.{field}"
        kind, name = profile.get("type"), profile.get("localhostProfile")
        if not kind:
            message = f"type is required when {field} is set"
            found.append(causes.required(f"{at}.type", message))
        found += choice_causes(profile, "type", _PROFILES, at)
        if kind != "Localhost":
            if name is not None:
                message = f"can only be set when {word} type is Localhost"
                found.append(causes.invalid(f"{at}.localhostProfile", name, message))
        elif not (name or "").strip():
            message = f"must be set when {word} type is Localhost"
            found.append(causes.required(f"{at}.localhostProfile", message))
        else:
            found += _localhost_causes(field, name, f"{at}.localhostProfile")
    return found


def _localhost_causes(field: str, name: str, path: str) -> list[Cause]:
    if field == "seccompProfile":
        return inside_path_causes(name, path)
    found = []
    if name != name.strip():
        found.append(causes.invalid(path, name, "must not be padded with whitespace"))
    if len(name) > _MAX_APPARMOR:
        found.append(causes.too_long(path, _MAX_APPARMOR))
    return found
