"""Volumes of a Pod, and where containers mount them: defaults and rules."""

from __future__ import annotations

from collections.abc import Iterator

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import (
    choice_causes,
    file_path_causes,
    inside_path_causes,
    mode_causes,
    no_backsteps_causes,
    one_of_causes,
    quantity_causes,
)
from tandem.api.kinds.env import (
    VOLUME_FIELDS,
    default_reference,
    field_ref_causes,
    resource_ref_causes,
)
from tandem.api.kinds.images import PULL_POLICIES, pull_policy
from tandem.api.meta import name_causes
from tandem.api.quantity import parse_quantity
from tandem.errors import Cause

FILE_MODE = 0o644
TOKEN_SECONDS = 3600

_MODED = ("secret", "configMap", "downwardAPI", "projected")
_HOST_PATH_TYPES = (
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")
_PROJECTED = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle")


def default_volume(volume: Doc) -> None:
    """Fill in what Kubernetes fills in; a volume of no kind at all is an emptyDir."""
    if not [name for name in volume if name != "name"]:
        volume["emptyDir"] = {}
    for name in _MODED:
        if (source := volume.get(name)) is not None:
            source.setdefault("defaultMode", FILE_MODE)
    if (host := volume.get("hostPath")) is not None:
        host.setdefault("type", "")
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        default_reference(item)
    for source in (volume.get("projected") or {}).get("sources") or ():
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            default_reference(item)
        if (token := source.get("serviceAccountToken")) is not None:
            token.setdefault("expirationSeconds", TOKEN_SECONDS)
    if image := volume.get("image"):
        image.setdefault("pullPolicy", pull_policy(str(image.get("reference") or "")))
    if template := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
        template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def volume_causes(volumes: list[Doc], path: str) -> list[Cause]:
    """What is wrong with the volumes of a Pod."""
    found = []
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        name = volume.get("name")
        found += _source_causes(volume, at)
        if not name:
            found.append(causes.required(f"{at}.name"))
            continue
        found += name_causes(name, f"{at}.name", "dns1123label")
        if name in names:
            found.append(causes.duplicate(f"{at}.name", name))
        names.add(name)
    return found


def _source_causes(volume: Doc, path: str) -> list[Cause]:
    kinds = [name for name in volume if name != "name"]
    chosen, found = one_of_causes(
        volume, kinds, path, kind="volume type", missing="must specify a volume type"
    )
    if chosen is None:
        return found
    at, source = f"{path}.{chosen}", volume[chosen]
    match chosen:
        case "emptyDir":
            if (limit := source.get("sizeLimit")) is not None and parse_quantity(limit) < 0:
                message = "SizeLimit field must be a valid resource quantity"
                found.append(causes.forbidden(f"{at}.sizeLimit", message))
        case "hostPath":
            found += _host_path_causes(source, at)
        case "secret" | "configMap":
            field = "secretName" if chosen == "secret" else "name"
            found += _keyed_causes(source, field, at)
        case "downwardAPI":
            found += mode_causes(source, "defaultMode", at)
            found += _downward_causes(source, at)
        case "projected":
            found += _projected_causes(source, at)
        case "persistentVolumeClaim":
            if not source.get("claimName"):
                found.append(causes.required(f"{at}.claimName"))
        case "image":
            found += _image_causes(source, at)
        case "ephemeral":
            found += _ephemeral_causes(source, at)
    return found


def _host_path_causes(source: Doc, path: str) -> list[Cause]:
    if not source.get("path"):
        return [causes.required(f"{path}.path")]
    found = no_backsteps_causes(source["path"], f"{path}.path")
    return found + choice_causes(source, "type", _HOST_PATH_TYPES, path)


def _keyed_causes(source: Doc, name_field: str, path: str) -> list[Cause]:
    found = []
    if not source.get(name_field):
        found.append(causes.required(f"{path}.{name_field}"))
    found += mode_causes(source, "defaultMode", path)
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        found += [
            causes.required(f"{at}.{field}") for field in ("key", "path") if not item.get(field)
        ]
        found += file_path_causes(item.get("path") or "", f"{at}.path")
        found += mode_causes(item, "mode", at)
    return found


def _downward_causes(source: Doc, path: str) -> list[Cause]:
    found = []
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        if not item.get("path"):
            found.append(causes.required(f"{at}.path"))
        found += file_path_causes(item.get("path") or "", f"{at}.path")
        field_ref, resource_ref = item.get("fieldRef"), item.get("resourceFieldRef")
        if field_ref is not None:
            found += field_ref_causes(field_ref, f"{at}.fieldRef", VOLUME_FIELDS)
            if resource_ref is not None:
                message = "fieldRef and resourceFieldRef can not be specified simultaneously"
                found.append(causes.invalid(at, "resource", message))
        elif resource_ref is not None:
            found += resource_ref_causes(resource_ref, f"{at}.resourceFieldRef", in_volume=True)
        else:
            message = "one of fieldRef and resourceFieldRef is required"
            found.append(causes.required(at, message))
        found += mode_causes(item, "mode", at)
    return found


def _projected_causes(projected: Doc, path: str) -> list[Cause]:
    found = mode_causes(projected, "defaultMode", path)
    taken: set[str] = set()
    for index, source in enumerate(projected.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        given = [name for name in _PROJECTED if source.get(name) is not None]
        if len(given) > 1:
            message = "may not specify more than 1 volume type per source"
            found.append(causes.forbidden(at, message))
        for name in given:
            found += _projection_causes(name, source[name], f"{at}.{name}")
            for file in _files(name, source[name]):
                if file in taken:
                    found.append(causes.invalid(path, file, "conflicting duplicate paths"))
                taken.add(file)
    return found


def _projection_causes(name: str, source: Doc, path: str) -> list[Cause]:
    match name:
        case "secret" | "configMap":
            return _keyed_causes(source, "name", path)
        case "downwardAPI":
            return _downward_causes(source, path)
        case "serviceAccountToken":
            return _token_causes(source, path)
    return []


def _token_causes(source: Doc, path: str) -> list[Cause]:
    found = []
    seconds = source.get("expirationSeconds", TOKEN_SECONDS)
    at = f"{path}.expirationSeconds"
    if seconds < 600:
        message = "may not specify a duration less than 10 minutes"
        found.append(causes.invalid(at, seconds, message))
    if seconds > 1 << 32:
        message = "may not specify a duration larger than 2^32 seconds"
        found.append(causes.invalid(at, seconds, message))
    if not source.get("path"):
        return [*found, causes.required(f"{path}.path")]
    return found + file_path_causes(source["path"], f"{path}.path")


def _files(name: str, source: Doc) -> Iterator[str]:
    if name == "serviceAccountToken":
        return
    for item in source.get("items") or ():
        if item.get("path"):
            yield str(item["path"])


def _image_causes(source: Doc, path: str) -> list[Cause]:
    found = []
    if not source.get("reference"):
        found.append(causes.required(f"{path}.reference"))
    return found + choice_causes(source, "pullPolicy", PULL_POLICIES, path)


def _ephemeral_causes(source: Doc, path: str) -> list[Cause]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        return [causes.required(f"{path}.volumeClaimTemplate")]
    at = f"{path}.volumeClaimTemplate.spec"
    spec = template.get("spec") or {}
    found = []
    if not spec.get("accessModes"):
        found.append(causes.required(f"{at}.accessModes", "at least 1 access mode is required"))
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        return [*found, causes.required(f"{at}.resources[storage]")]
    return found + quantity_causes(storage, f"{at}.resources[storage]")


def mount_causes(container: Doc, path: str, volumes: dict[str, Doc]) -> list[Cause]:
    """What is wrong with a container's mounts; ``volumes`` are the Pod's by name."""
    found = []
    taken: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}.volumeMounts[{index}]"
        name, where = mount.get("name"), mount.get("mountPath")
        if not name:
            found.append(causes.required(f"{at}.name"))
        elif name not in volumes:
            found.append(causes.not_found(f"{at}.name", name))
        if not where:
            found.append(causes.required(f"{at}.mountPath"))
        elif where in taken:
            found.append(causes.invalid(f"{at}.mountPath", where, "must be unique"))
        taken.add(where)
        found += _sub_path_causes(mount, at, volumes.get(name) or {})
        found += _propagation_causes(mount, container, at)
    return found


def _sub_path_causes(mount: Doc, path: str, volume: Doc) -> list[Cause]:
    found = []
    for field in ("subPath", "subPathExpr"):
        if value := mount.get(field):
            at = f"{path}.{field}"
            if volume.get("image") is not None:
                message = "not allowed in image volume sources"
                found.append(causes.invalid(at, value, message))
            if field == "subPathExpr" and mount.get("subPath"):
                message = "subPathExpr and subPath are mutually exclusive"
                found.append(causes.invalid(at, value, message))
            found += inside_path_causes(value, at)
    return found


def _propagation_causes(mount: Doc, container: Doc, path: str) -> list[Cause]:
    found = choice_causes(mount, "mountPropagation", _PROPAGATIONS, path)
    propagation = mount.get("mountPropagation")
    privileged = (container.get("securityContext") or {}).get("privileged")
    if propagation == "Bidirectional" and not privileged:
        message = "Bidirectional mount propagation is available only to privileged containers"
        found.append(causes.forbidden(f"{path}.mountPropagation", message))
    found += choice_causes(mount, "recursiveReadOnly", _RECURSIVE, path)
    if mount.get("recursiveReadOnly") in ("Enabled", "IfPossible"):
        at = f"{path}.recursiveReadOnly"
        if not mount.get("readOnly"):
            message = "may only be specified when readOnly is true"
            found.append(causes.forbidden(at, message))
        if propagation not in (None, "None"):
            message = "may only be specified when mountPropagation is None or not specified"
            found.append(causes.forbidden(at, message))
    return found
