"""What is in the volumes that are made of objects: configMap, secret, downwardAPI, projected. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.pods import podfields
from tandem.control.pods.podfields import Lookup
from tandem.errors import NotFound
from tandem.host import tokens
from tandem.host.volumefiles import File
from tandem.store import Key

MADE_OF_OBJECTS = ("configMap", "secret", "downwardAPI", "projected")

TOKEN_VOLUME = "kube-api-access"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
ROOT_CERTIFICATE = "kube-root-ca.crt"
"""The ConfigMap in each namespace by whose ``ca.crt`` clients know the API."""

_DEFAULT_MODE = 0o644
_TOKEN_MODE_OF_ITS_OWNER = 0o600
# Seven seconds over the hour, as in Kubernetes: who asks for exactly an hour has asked for it himself.
_AUTOMOUNT_SECONDS = 3607


class MissingSource(NotFound):
    """An object that a volume is made of is not there, or lacks a key; ``key`` is where it should be."""

    def __init__(self, message: str, key: Key) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A service account's token, to be signed when it is written."""

    claims: tokens.Claims
    mode: int
    uid: int


@dataclass(slots=True)
class Content:
    """The files of one volume, by relative path."""

    files: dict[str, File] = field(default_factory=dict)
    tokens: dict[str, TokenFile] = field(default_factory=dict)

    def add(self, path: str, file: File) -> None:
        self.tokens.pop(path, None)
        self.files[path] = file


def volumes_of(pod: Doc, lookup: Lookup) -> list[Doc]:
    """The Pod's volumes, and the one with its token where it is to have one."""
    volumes: list[Doc] = get(pod, "spec.volumes", [])
    return [*volumes, _TOKEN] if wants_token(pod, lookup) else volumes


_TOKEN: Doc = {
    "name": TOKEN_VOLUME,
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": _AUTOMOUNT_SECONDS}},
            {
                "configMap": {
                    "name": ROOT_CERTIFICATE,
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]
    },
}


def wants_token(pod: Doc, lookup: Lookup) -> bool:
    """Whether every container gets the service account's token.

    In a cluster that is so unless it is declined. Here the API listens on loopback, where Pods do not
    reach it: only a Pod that asks for it, or has a service account of its own, is given one.
    """
    automount = get(pod, "spec.automountServiceAccountToken")
    if automount is not None:
        return bool(automount)
    name = account(pod)
    if name == "default":
        return False
    found = lookup(Key("serviceaccounts", pod["metadata"]["namespace"], name)) or {}
    return found.get("automountServiceAccountToken") is not False


def account(pod: Doc) -> str:
    """The name of the Pod's service account."""
    return str(get(pod, "spec.serviceAccountName") or "default")


def references(pod: Doc, lookup: Lookup) -> set[Key]:
    """Every object that a volume of the Pod is made of."""
    namespace = pod["metadata"]["namespace"]
    found = set()
    for volume in volumes_of(pod, lookup):
        for kind, source in _parts(volume):
            if kind == "configMap":
                found.add(Key("configmaps", namespace, source.get("name", "")))
            elif kind == "secret":
                name = source.get("secretName") or source.get("name", "")
                found.add(Key("secrets", namespace, name))
            elif kind == "serviceAccountToken":
                found.add(Key("serviceaccounts", namespace, account(pod)))
    return found


def tells_of_the_pod(pod: Doc, lookup: Lookup) -> bool:
    """Whether a volume shows the Pod's own labels, annotations or resources, which may change."""
    return any(
        kind == "downwardAPI" for volume in volumes_of(pod, lookup) for kind, _ in _parts(volume)
    )


def _parts(volume: Doc) -> Iterator[tuple[str, Doc]]:
    for kind in ("configMap", "secret", "downwardAPI"):
        if (source := volume.get(kind)) is not None:
            yield kind, source
    for projected in (volume.get("projected") or {}).get("sources") or ():
        for kind, source in projected.items():
            if source is not None:
                yield kind, source


def content(volume: Doc, pod: Doc, lookup: Lookup) -> Content:
    """What the volume holds now. Raises :class:`MissingSource` and ``InvalidSpec``."""
    own = next(kind for kind in MADE_OF_OBJECTS if volume.get(kind) is not None)
    mode = volume[own].get("defaultMode")
    result = Content()
    for kind, source in _parts(volume):
        _collect(kind, source, pod, lookup, _DEFAULT_MODE if mode is None else mode, result)
    return result


def _collect(kind: str, source: Doc, pod: Doc, lookup: Lookup, mode: int, result: Content) -> None:
    if kind == "configMap":
        _collect_keys("configmaps", source, source.get("name", ""), pod, lookup, mode, result)
    elif kind == "secret":
        name = source.get("secretName") or source.get("name", "")
        _collect_keys("secrets", source, name, pod, lookup, mode, result)
    elif kind == "downwardAPI":
        for item in source.get("items") or ():
            text = _about_the_pod(item, pod, lookup)
            result.add(item["path"], File(text.encode(), _mode(item, mode)))
    elif kind == "serviceAccountToken":
        result.files.pop(source["path"], None)
        result.tokens[source["path"]] = _token(source, pod, lookup, mode)


def _collect_keys(
    resource: str, source: Doc, name: str, pod: Doc, lookup: Lookup, mode: int, result: Content
) -> None:
    key = Key(resource, pod["metadata"]["namespace"], name)
    optional = bool(source.get("optional"))
    doc = lookup(key)
    if doc is None:
        if not optional:
            raise MissingSource(f'{resource.removesuffix("s")} "{name}" not found', key)
        return
    data = _data(resource, doc)
    items = source.get("items")
    if not items:
        for found, value in data.items():
            result.add(found, File(value, mode))
        return
    for item in items:
        if item["key"] in data:
            result.add(item["path"], File(data[item["key"]], _mode(item, mode)))
        elif not optional:
            what = "configmap references non-existent config key"
            if resource == "secrets":
                what = "references non-existent secret key"
            raise MissingSource(f"{what}: {item['key']}", key)


def _mode(item: Mapping[str, Any], default: int) -> int:
    mode = item.get("mode")
    return default if mode is None else int(mode)


def _data(resource: str, doc: Doc) -> dict[str, bytes]:
    if resource == "secrets":
        return {key: base64.b64decode(value) for key, value in (doc.get("data") or {}).items()}
    plain = {key: str(value).encode() for key, value in (doc.get("data") or {}).items()}
    binary = (doc.get("binaryData") or {}).items()
    return plain | {key: base64.b64decode(value) for key, value in binary}


def _about_the_pod(item: Doc, pod: Doc, lookup: Lookup) -> str:
    if reference := item.get("fieldRef"):
        return podfields.field(pod, str(reference.get("fieldPath", "")))
    return podfields.resource(pod, {}, item["resourceFieldRef"], lookup)


def _token(source: Doc, pod: Doc, lookup: Lookup, mode: int) -> TokenFile:
    metadata = pod["metadata"]
    name = account(pod)
    key = Key("serviceaccounts", metadata["namespace"], name)
    doc = lookup(key)
    if doc is None:
        raise MissingSource(f'failed to fetch token: serviceaccounts "{name}" not found', key)
    claims = tokens.Claims(
        namespace=metadata["namespace"],
        name=name,
        uid=doc["metadata"]["uid"],
        audiences=(source.get("audience") or tokens.AUDIENCE,),
        seconds=int(source.get("expirationSeconds") or tokens.DEFAULT_SECONDS),
        bound={"pod": {"name": metadata["name"], "uid": metadata["uid"]}},
    )
    user = _only_user(pod)
    if user is not None or get(pod, "spec.securityContext.fsGroup") is not None:
        mode = _TOKEN_MODE_OF_ITS_OWNER
    return TokenFile(claims, mode, user or 0)


def _only_user(pod: Doc) -> int | None:
    """The user that every container of the Pod runs as; None when they differ or do not say."""
    shared = get(pod, "spec.securityContext.runAsUser")
    users = {
        get(container, "securityContext.runAsUser", shared)
        for part in ("initContainers", "containers")
        for container in get(pod, f"spec.{part}", [])
    }
    return users.pop() if len(users) == 1 else None
