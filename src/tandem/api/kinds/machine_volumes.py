"""KubeVirt's admission rules for an instance's volumes, and for who is let in by them."""

from __future__ import annotations

import base64
import binascii

from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes
from tandem.api.kinds.images import PULL_POLICIES
from tandem.api.kinds.machine_causes import (
    amount,
    amount_causes,
    image_path_causes,
    invalid,
    label_causes,
    required,
    text_size,
)
from tandem.api.meta import get
from tandem.errors import Cause

USER_DATA_LIMIT = 2048
"""Bytes of user data and of network data in a manifest; KubeVirt's, so that manifests stay portable."""

CLOUD_INIT = ("cloudInitNoCloud", "cloudInitConfigDrive")

_NAMED = {
    "configMap": "name",
    "secret": "secretName",
    "serviceAccount": "serviceAccountName",
    "persistentVolumeClaim": "claimName",
}
_HOST_DISK_TYPES = ("Disk", "DiskOrCreate")
_PROPAGATIONS = {"noCloud": "cloudInitNoCloud", "configDrive": "cloudInitConfigDrive"}
_MAX_LABEL = 16  # what a CD has room for in every alphabet
_SMALLEST = 1 << 20


def volume_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with ``volumes`` and ``accessCredentials``."""
    volumes = spec.get("volumes") or []
    base = f"{path}.volumes"
    found = []
    seen: dict[str, int] = {}
    for index, volume in enumerate(volumes):
        at = f"{base}[{index}]"
        name = volume.get("name") or ""
        found += label_causes(name, f"{at}.name")
        if name in seen:
            message = f"{base}[{seen[name]}] and {at} must not have the same Name."
            found.append(invalid(f"{at}.name", message))
        seen.setdefault(name, index)
        sources = [
            field for field, value in volume.items() if field != "name" and value is not None
        ]
        if len(sources) != 1:
            found.append(invalid(at, f"{at} must have exactly one source type set"))
        for source in sources:
            found += _source_causes(source, volume[source], at)
    for kind, words in (
        ("serviceAccount", "serviceAccount"),
        ("downwardMetrics", "downwardMetric"),
        ("memoryDump", "memory dump"),
    ):
        if sum(volume.get(kind) is not None for volume in volumes) > 1:
            found.append(invalid(base, f"{base} must have max one {words} volume set"))
    if all(any(volume.get(kind) is not None for volume in volumes) for kind in CLOUD_INIT):
        message = f"{base} must have max one cloudInit volume set"
        found.append(invalid(base, message))
    return found + _credential_causes(spec, f"{path}.accessCredentials")


def _source_causes(source: str, content: Doc, path: str) -> list[Cause]:
    at = f"{path}.{source}"
    if source == "containerDisk":
        found = choice_causes(content, "imagePullPolicy", PULL_POLICIES, at)
        if not content.get("image"):
            found.append(required(f"{at}.image", f"{at}.image is a required field"))
        return found + (image_path_causes(content["path"], at) if content.get("path") else [])
    if source in CLOUD_INIT:
        return _cloud_init_causes(content, at)
    if source == "emptyDisk":
        return _capacity_causes(content, at)
    if source == "hostDisk":
        return _host_disk_causes(content, at)
    if source == "dataVolume":
        return (
            []
            if content.get("name")
            else [required(f"{path}.name", "DataVolume 'name' must be set")]
        )
    if source == "ephemeral":
        content, at = content.get("persistentVolumeClaim") or {}, f"{at}.persistentVolumeClaim"
        source = "persistentVolumeClaim"
    if source == "sysprep":
        return _sysprep_causes(content, at)
    found = []
    if (field := _NAMED.get(source)) and not content.get(field):
        found.append(invalid(f"{at}.{field}", f"{at}.{field} is a required field"))
    if (label := content.get("volumeLabel")) and not (
        len(label) <= _MAX_LABEL and label.isascii() and label.isprintable()
    ):
        message = f"must be at most {_MAX_LABEL} printable characters of ASCII"
        found.append(invalid(f"{at}.volumeLabel", f"{at}.volumeLabel {message}"))
    return found


def _capacity_causes(disk: Doc, path: str) -> list[Cause]:
    at = f"{path}.capacity"
    if disk.get("capacity") is None:
        return [required(at, f"{at} is a required field")]
    found = amount_causes(disk["capacity"], at)
    if not found and (amount(disk["capacity"]) or 0) < _SMALLEST:
        found.append(invalid(at, f"{at} '{disk['capacity']}': must be at least 1Mi"))
    return found


def _host_disk_causes(disk: Doc, path: str) -> list[Cause]:
    found = []
    where, kind = disk.get("path") or "", disk.get("type") or ""
    if not where:
        found.append(
            Cause(
                f"{path}.path", f"{path}.path is required for hostDisk volume", "FieldValueNotFound"
            )
        )
    else:
        found += image_path_causes(where, f"{path}.path")
    if kind not in _HOST_DISK_TYPES:
        allowed = "' or '".join(_HOST_DISK_TYPES)
        message = f"{path}.type has invalid value '{kind}', allowed are '{allowed}'"
        found.append(invalid(f"{path}.type", message))
    if kind == "Disk" and amount(disk.get("capacity")):
        message = (
            f"{path}.capacity is allowed to pass only with {path}.type equal to 'DiskOrCreate'"
        )
        found.append(invalid(f"{path}.capacity", message))
    if kind == "DiskOrCreate":
        found += _capacity_causes(disk, path)
    return found


def _sysprep_causes(source: Doc, path: str) -> list[Cause]:
    given = [name for name in ("configMap", "secret") if source.get(name) is not None]
    if len(given) != 1:
        message = f"{path} must have exactly one of configMap and secret set"
        return [invalid(path, message)]
    at = f"{path}.{given[0]}.name"
    return [] if source[given[0]].get("name") else [invalid(at, f"{at} is a required field")]


def _cloud_init_causes(cloud: Doc, path: str) -> list[Cause]:
    found = []
    given = {}
    for part, secret, words in (
        ("userData", "secretRef", "userdatasource"),
        ("networkData", "networkDataSecretRef", "networkdata source"),
    ):
        fields = (part, f"{part}Base64", secret)
        given[part] = [name for name in fields if cloud.get(name)]
        if len(given[part]) > 1:
            found.append(invalid(path, f"{path} must have only one {words} set."))
        if cloud.get(secret) is not None and not cloud[secret].get("name"):
            at = f"{path}.{secret}.name"
            found.append(invalid(at, f"{at} is a required field"))
        plain, encoded = cloud.get(part), cloud.get(f"{part}Base64")
        size = text_size(str(plain or ""))
        if encoded:
            try:
                size = len(base64.b64decode(encoded, validate=True))
            except (binascii.Error, ValueError):
                at = f"{path}.{part}Base64"
                found.append(invalid(at, f"{at} is not a valid base64 value."))
        if size > USER_DATA_LIMIT:
            capital = f"{part[0].upper()}{part[1:]}SecretRef"
            message = (
                f"{path} {part.lower()} exceeds {USER_DATA_LIMIT} byte limit. Should use {capital} "
                "for larger data."
            )
            found.append(invalid(f"{path}.{part}", message))
    if not any(given.values()):
        message = "must have at least one userdatasource or one networkdatasource set."
        found.append(invalid(path, f"{path} {message}"))
    return found


def _credential_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    sources = {source for volume in spec.get("volumes") or () for source in volume}
    for index, credential in enumerate(spec.get("accessCredentials") or ()):
        at = f"{path}[{index}]"
        kinds = [name for name in ("sshPublicKey", "userPassword") if credential.get(name)]
        if len(kinds) != 1:
            found.append(invalid(at, f"{at} must have exactly one access credential type set"))
            continue
        inner = f"{at}.{kinds[0]}"
        content = credential[kinds[0]]
        if not get(content, "source.secret.secretName"):
            found.append(invalid(f"{inner}.source", f"{at} must have exactly one source set"))
        methods = content.get("propagationMethod") or {}
        given = [name for name, value in methods.items() if value is not None]
        if len(given) != 1:
            message = f"{at} must have exactly one propagationMethod set"
            found.append(invalid(f"{inner}.propagationMethod", message))
        for name in given:
            if (volume := _PROPAGATIONS.get(name)) and volume not in sources:
                message = (
                    f"{at} requires a {name} volume to exist when the {name} propagationMethod is in "
                    "use."
                )
                found.append(invalid(f"{inner}.propagationMethod", message))
    return found
