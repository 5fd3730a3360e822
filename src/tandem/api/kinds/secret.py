"""``v1`` Secret: as a ConfigMap, for values that few should see. Kept as given, base64-encoded."""

from __future__ import annotations

import base64
import json

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds.configmap import MAX_BYTES, immutability_causes, key_causes
from tandem.api.meta import name_causes
from tandem.errors import Cause

_REQUIRED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _default(doc: Doc) -> None:
    doc.setdefault("type", "Opaque")
    plain = doc.pop("stringData", None)  # write-only: it becomes part of data
    if plain:
        encoded = {key: base64.b64encode(str(v).encode()).decode() for key, v in plain.items()}
        doc["data"] = {**(doc.get("data") or {}), **encoded}


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    data = new.get("data") or {}
    found = []
    if old is None and new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    for key in data:
        found += key_causes(key, f"data[{key}]")
    if sum(len(str(value)) * 3 // 4 for value in data.values()) > MAX_BYTES:
        found.append(causes.too_long("data", MAX_BYTES))
    for key in _REQUIRED_KEYS.get(new["type"], ()):
        if key not in data:
            found.append(causes.required(f"data[{key}]"))
        elif "docker" in new["type"] and not _is_json(data[key]):
            found.append(
                causes.invalid(f"data[{key}]", "<secret contents redacted>", "must be JSON")
            )
    if old is not None:
        if new["type"] != old.get("type", "Opaque"):
            found.append(causes.immutable("type", new["type"]))
        found += immutability_causes(new, old, ("data",))
    return found


def _is_json(encoded: str) -> bool:
    try:
        json.loads(base64.b64decode(encoded or ""))
    except ValueError:
        return False
    return True


SECRET = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema="io.k8s.api.core.v1.Secret",
    status=False,
    columns=(
        Column("Type", lambda doc: doc.get("type", ""), description="What kind of secret it is."),
        Column(
            "Data",
            lambda doc: len(doc.get("data") or {}),
            type="integer",
            description="How many keys it has.",
        ),
    ),
    default=_default,
    validate=_validate,
    field_labels={"type": lambda doc: doc.get("type", "")},
    spec_fields=(),
)
