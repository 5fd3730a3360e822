"""The credentials for an image, out of its Pod's imagePullSecrets. Pure.

A Secret of type ``kubernetes.io/dockerconfigjson`` or ``kubernetes.io/dockercfg`` has a map of registries.
A key is a host with an optional port and path, also as a URL; ``*`` stands for one part of the host's
name. The most specific keys come first.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tandem.api.kind import Doc
from tandem.control.pods.environment import Lookup
from tandem.runtimes.capabilities import RegistryCredentials
from tandem.store import Key

_DEFAULT_HOST = "docker.io"
_DEFAULT_HOSTS = ("index.docker.io", "docker.io", "registry-1.docker.io")
"""The names under which the registry of images without one is known."""


def pull_credentials(
    pod: Doc, image: str, lookup: Lookup
) -> tuple[list[RegistryCredentials], list[str]]:
    """What to try for ``image``, in order, and the names of Secrets that are not there or no good."""
    found: list[tuple[str, RegistryCredentials]] = []
    missing = []
    for reference in pod["spec"].get("imagePullSecrets") or ():
        name = reference.get("name") or ""
        secret = lookup(Key("secrets", pod["metadata"]["namespace"], name))
        registries = _registries(secret) if secret is not None else None
        if registries is None:
            missing.append(name)
        else:
            found += [pair for pair in _matching(registries, image) if pair not in found]
    found.sort(key=lambda pair: pair[0], reverse=True)
    return [credentials for _, credentials in found], missing


def _registries(secret: Doc) -> Mapping[str, Any] | None:
    data = secret.get("data") or {}
    try:
        if encoded := data.get(".dockerconfigjson"):
            registries = json.loads(base64.b64decode(encoded)).get("auths") or {}
        elif encoded := data.get(".dockercfg"):
            registries = json.loads(base64.b64decode(encoded))
        else:
            return None
    except (ValueError, AttributeError):
        return None
    return registries if isinstance(registries, Mapping) else None


def _matching(
    registries: Mapping[str, Any], image: str
) -> Iterator[tuple[str, RegistryCredentials]]:
    for key, entry in registries.items():
        place = _normalized(key)
        if isinstance(entry, Mapping) and _matches(place, image):
            yield place, _credentials(entry)


def _normalized(key: str) -> str:
    """A key without what does not matter in it: scheme, and the version of the registry's API."""
    place = key.partition("://")[2] or key
    host, _, path = place.rstrip("/").partition("/")
    if path in ("v1", "v2"):
        path = ""
    return f"{host}/{path}" if path else host


def _matches(place: str, image: str) -> bool:
    host, _, path = place.partition("/")
    wanted_host, wanted_path = _place_of(image)
    if not wanted_path.startswith(path):
        return False
    if wanted_host == _DEFAULT_HOST and host in _DEFAULT_HOSTS:
        return True
    name, _, port = host.partition(":")
    wanted_name, _, wanted_port = wanted_host.partition(":")
    parts, wanted = name.split("."), wanted_name.split(".")
    return (
        port == wanted_port
        and len(parts) == len(wanted)
        and all(map(fnmatch.fnmatchcase, wanted, parts))
    )


def _place_of(image: str) -> tuple[str, str]:
    """The host and the path of an image, as its name is read everywhere."""
    host, slash, path = image.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return host, path
    return _DEFAULT_HOST, image if slash else f"library/{image}"


def _credentials(entry: Mapping[str, Any]) -> RegistryCredentials:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if auth := entry.get("auth"):
        try:
            both = base64.b64decode(auth).decode()
        except (binascii.Error, ValueError):
            both = ""
        username, _, password = both.rstrip("\x00").partition(":")
    return RegistryCredentials(
        username,
        password,
        identity_token=str(entry.get("identitytoken") or ""),
        registry_token=str(entry.get("registrytoken") or ""),
    )
