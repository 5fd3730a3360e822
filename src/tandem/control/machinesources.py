"""The objects that a machine's volumes are made of, as the host's side asks for them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.quantity import to_bytes
from tandem.control.pods.podfields import Lookup
from tandem.control.pods.volumes import sources
from tandem.control.pods.volumes.claims import CLAIMS, path_of, persistent_volume
from tandem.control.pods.volumes.sources import ROOT_CERTIFICATE, MissingSource
from tandem.errors import Cause, Unsupported
from tandem.host.machinefiles import Claim
from tandem.host.tokens import Tokens
from tandem.store import Key

# A machine's token is on a CD, which nobody writes anew while it runs.
_TOKEN_SECONDS = 365 * 24 * 3600
_TOKEN: Doc = {
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
            {"configMap": {"name": ROOT_CERTIFICATE, "optional": True}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]
    }
}


def claim_keys(vmi: Doc) -> Iterator[Key]:
    """Where the claims are that the machine's volumes name."""
    for volume in get(vmi, "spec.volumes", []):
        name = (
            get(volume, "persistentVolumeClaim.claimName")
            or get(volume, "dataVolume.name")  # its claim has the same name
            or get(volume, "ephemeral.persistentVolumeClaim.claimName")
        )
        if name:
            yield Key(CLAIMS, vmi["metadata"]["namespace"], str(name))


class MachineSources:
    """What the volumes of ``vmi`` are made of; see ``tandem.host.machinefiles.Sources``."""

    def __init__(self, vmi: Doc, lookup: Lookup, tokens: Tokens) -> None:
        self._vmi = vmi
        self._namespace = vmi["metadata"]["namespace"]
        self._lookup = lookup
        self._tokens = tokens

    def secret(self, name: str) -> Mapping[str, bytes]:
        """The data of a Secret. Raises ``MissingSource``."""
        key = Key("secrets", self._namespace, name)
        if (doc := self._lookup(key)) is None:
            raise MissingSource(f'secret "{name}" not found', key)
        data = doc.get("data") or {}
        return {field: base64.b64decode(value) for field, value in data.items()}

    def files(self, volume: Mapping[str, Any]) -> Mapping[str, bytes]:
        """What the volume holds, by name. Raises ``MissingSource``."""
        content = sources.content(self._as_a_pods(volume), self._as_a_pod(volume), self._lookup)
        found = {path: file.data for path, file in content.files.items()}
        for path, token in content.tokens.items():
            found[path] = self._tokens.sign(token.claims)[0].encode()
        return found

    def claim(self, name: str) -> Claim:
        """What the claim is bound to. Raises ``MissingSource``."""
        key = Key(CLAIMS, self._namespace, name)
        volume: Doc = {"name": name, "persistentVolumeClaim": {"claimName": name}}
        found = persistent_volume(self._vmi, volume, self._lookup)
        path = path_of(found)
        if not path:
            where = f"persistentvolume {found['metadata']['name']!r}"
            message = f"{where} is no directory of this host"
            raise Unsupported(message, causes=[Cause("spec.volumes", message)])
        claim = self._lookup(key) or {}
        sizes = [
            to_bytes(size)
            for size in (
                get(claim, "spec.resources.requests", {}).get("storage"),
                get(claim, "status.capacity", {}).get("storage"),
            )
            if size
        ]
        return Claim(Path(path), min(sizes, default=0))

    def _as_a_pods(self, volume: Mapping[str, Any]) -> Doc:
        """The volume as a Pod would ask for the same."""
        if (source := volume.get("sysprep")) is not None:
            if source.get("configMap"):
                return {"configMap": {"name": source["configMap"]["name"]}}
            return {"secret": {"secretName": source["secret"]["name"]}}
        if (source := volume.get("downwardAPI")) is not None:
            return {"downwardAPI": {"items": source.get("fields") or []}}
        if volume.get("serviceAccount") is not None:
            return _TOKEN
        return dict(volume)

    def _as_a_pod(self, volume: Mapping[str, Any]) -> Doc:
        account = (volume.get("serviceAccount") or {}).get("serviceAccountName")
        if account is None:
            return self._vmi
        return {**self._vmi, "spec": {"serviceAccountName": account}}
