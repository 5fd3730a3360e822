"""First-boot data of a machine: cloud-init's NoCloud files out of a ``cloudInitNoCloud`` volume.

Pure: what a Secret holds is handed in. The files are put on a small CD image whose label ``cidata``
is what cloud-init looks for.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from tandem.errors import Cause, InvalidSpec

NO_CLOUD_LABEL = "cidata"

# The keys of a Secret that KubeVirt reads, in the order in which it looks.
_SECRET_KEYS = {"userData": ("userdata", "userData"), "networkData": ("networkdata", "networkData")}
_SECRET_FIELDS = {"userData": "secretRef", "networkData": "networkDataSecretRef"}


def secret_names(source: Mapping[str, Any]) -> list[str]:
    """The Secrets that a ``cloudInitNoCloud`` volume refers to."""
    references = [source.get(field) or {} for field in _SECRET_FIELDS.values()]
    return [str(reference["name"]) for reference in references if reference.get("name")]


def no_cloud_files(
    source: Mapping[str, Any],
    *,
    field: str,
    instance_id: str,
    hostname: str,
    secrets: Mapping[str, Mapping[str, bytes]],
) -> dict[str, bytes]:
    """The files of the seed, by name.

    ``source`` is the ``cloudInitNoCloud`` document and ``field`` its path in the manifest, for errors;
    ``instance_id`` says to cloud-init whether it is the first boot of this instance; ``secrets`` has
    the data of each name in :func:`secret_names`. Raises ``InvalidSpec``.
    """
    files = {
        # JSON is YAML, and needs no quoting rules of our own.
        "meta-data": json.dumps({"instance-id": instance_id, "local-hostname": hostname}).encode(),
        "user-data": _part(source, "userData", field, secrets) or b"",
    }
    if network := _part(source, "networkData", field, secrets):
        files["network-config"] = network
    return files


def _part(
    source: Mapping[str, Any], part: str, field: str, secrets: Mapping[str, Mapping[str, bytes]]
) -> bytes | None:
    if (text := source.get(part)) is not None:
        return str(text).encode()
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
