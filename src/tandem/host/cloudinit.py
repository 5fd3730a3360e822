"""First-boot data of a machine: the files of a ``cloudInitNoCloud`` or ``cloudInitConfigDrive`` volume.

Pure: what a Secret holds is handed in. The files are put on a small CD image whose label is what
cloud-init looks for. All that is written here is JSON, which is YAML as well and needs no quoting rules
of our own; what the user wrote is passed on as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tandem.errors import Cause, InvalidSpec

NO_CLOUD_LABEL, CONFIG_DRIVE_LABEL = "cidata", "config-2"

_DRIVE = "openstack/latest"

# The keys of a Secret that KubeVirt reads, in the order in which it looks.
_SECRET_KEYS = {"userData": ("userdata", "userData"), "networkData": ("networkdata", "networkData")}
_SECRET_FIELDS = {"userData": "secretRef", "networkData": "networkDataSecretRef"}


def secret_names(source: Mapping[str, Any]) -> list[str]:
    """The Secrets that a volume refers to."""
    references = [source.get(field) or {} for field in _SECRET_FIELDS.values()]
    return [str(reference["name"]) for reference in references if reference.get("name")]


def no_cloud_files(
    source: Mapping[str, Any],
    *,
    field: str,
    instance_id: str,
    hostname: str,
    secrets: Mapping[str, Mapping[str, bytes]],
    keys: Sequence[str] = (),
) -> dict[str, bytes]:
    """The files of the seed, by name.

    ``source`` is the volume's document and ``field`` its path in the manifest, for errors;
    ``instance_id`` says to cloud-init whether it is the first boot of this instance; ``secrets`` has
    the data of each name in :func:`secret_names`; ``keys`` are SSH's, of those who may log in. Raises
    ``InvalidSpec``.
    """
    about: dict[str, Any] = {"instance-id": instance_id, "local-hostname": hostname}
    if keys:
        about["public-keys"] = _numbered(keys)
    files = {
        "meta-data": json.dumps(about).encode(),
        "user-data": _part(source, "userData", field, secrets) or b"",
    }
    if network := _part(source, "networkData", field, secrets):
        files["network-config"] = network
    return files


def config_drive_files(
    source: Mapping[str, Any],
    *,
    field: str,
    instance_id: str,
    hostname: str,
    secrets: Mapping[str, Mapping[str, bytes]],
    keys: Sequence[str] = (),
) -> dict[str, bytes]:
    """The files of a config drive, by path; for the arguments see :func:`no_cloud_files`."""
    about: dict[str, Any] = {
        "uuid": instance_id,
        "instance_id": instance_id,
        "hostname": hostname,
        "local_hostname": hostname,
    }
    if keys:
        about["public_keys"] = _numbered(keys)
    files = {f"{_DRIVE}/meta_data.json": json.dumps(about).encode()}
    if (user := _part(source, "userData", field, secrets)) is not None:
        files[f"{_DRIVE}/user_data"] = user
    if network := _part(source, "networkData", field, secrets):
        files[f"{_DRIVE}/network_data.json"] = network
    return files


def _numbered(keys: Sequence[str]) -> dict[str, str]:
    return {str(number): key for number, key in enumerate(keys)}


def _part(
    source: Mapping[str, Any], part: str, field: str, secrets: Mapping[str, Mapping[str, bytes]]
) -> bytes | None:
    if (text := source.get(part)) is not None:
        return str(text).encode("utf-8", "surrogatepass")
    if (encoded := source.get(f"{part}Base64")) is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _invalid(f"{field}.{part}Base64", "must be base64") from error
    if name := (source.get(_SECRET_FIELDS[part]) or {}).get("name"):
        data = secrets.get(name, {})
        for key in _SECRET_KEYS[part]:
            if key in data:
                return data[key]
        wanted = " or ".join(_SECRET_KEYS[part])
        raise _invalid(
            f"{field}.{_SECRET_FIELDS[part]}.name", f'secret "{name}" has no key {wanted}'
        )
    return None


def _invalid(field: str, message: str) -> InvalidSpec:
    return InvalidSpec(f"{field}: {message}", causes=[Cause(field, message)])
