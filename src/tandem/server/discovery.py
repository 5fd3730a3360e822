"""What is served, told to clients: API groups, versions, resources and the server's version.

Two formats of one truth. The older is one document per group and version; the aggregated one (kubectl
1.26 and later) is all in one, asked for by ``Accept``. Both are built from the registry alone.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tandem import __version__
from tandem.api.kind import Doc, Kind, Registry
from tandem.api.kinds.scale import SCALE
from tandem.api.release import KUBERNETES, git_version
from tandem.server.codec import encode
from tandem.server.media import JSON, accepts

KUBEVIRT_VERSION = ("1", "8")
"""The same for KubeVirt: virtctl warns when its own major and minor differ."""

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_STATUS_VERBS = ["get", "patch", "update"]
_AGGREGATED = "APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource that is listed beside its parent, in another group than the parent's own."""

    resource: str
    name: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A resource that is no kind of the registry: its objects are made when they are asked for."""

    resource: str
    kind: str
    verbs: tuple[str, ...]
    namespaced: bool = False


class Discovery:
    """The discovery documents of a registry; every one is encoded once.

    ``extra`` adds groups that hold no kinds: group and version to what is listed in them.
    """

    def __init__(
        self,
        registry: Registry,
        extra: Mapping[tuple[str, str], Iterable[Subresource | Listed]] | None = None,
    ) -> None:
        self._versions: dict[tuple[str, str], list[Kind]] = {}
        for kind in registry:
            self._versions.setdefault((kind.group, kind.version), []).append(kind)
        self._extra = {key: tuple(listed) for key, listed in (extra or {}).items()}
        self._groups: dict[str, list[str]] = {}
        for group, version in (*self._versions, *self._extra):
            if group:
                self._groups.setdefault(group, []).append(version)
        self._encoded: dict[tuple[str, ...], tuple[bytes, str, str]] = {}

    def core(self, accept: str) -> tuple[bytes, str, str]:
        """``/api``: bytes, content type, entity tag."""
        if version := _aggregated_version(accept):
            return self._cached("api", version, build=lambda: self._aggregated(version, [""]))
        versions = [version for group, version in self._versions if not group]
        return self._cached("api", build=lambda: {"kind": "APIVersions", "versions": versions})

    def groups(self, accept: str) -> tuple[bytes, str, str]:
        """``/apis``."""
        if version := _aggregated_version(accept):
            names = list(self._groups)
            return self._cached("apis", version, build=lambda: self._aggregated(version, names))
        return self._cached("apis", build=self._group_list)

    def group(self, name: str) -> tuple[bytes, str, str] | None:
        """``/apis/GROUP``, or None when there is none."""
        if name not in self._groups:
            return None
        return self._cached(
            "group",
            name,
            build=lambda: {"kind": "APIGroup", "apiVersion": "v1"} | self._group(name),
        )

    def resources(self, group: str, version: str) -> tuple[bytes, str, str] | None:
        """``/api/VERSION`` or ``/apis/GROUP/VERSION``, or None when there is none."""
        if (group, version) not in self._versions and (group, version) not in self._extra:
            return None
        return self._cached(
            "resources", group, version, build=lambda: self._resource_list(group, version)
        )

    def paths(self) -> list[str]:
        """``/``: where to look further."""
        found = ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz"]
        found += [f"/api/{version}" for group, version in self._versions if not group]
        for group, versions in self._groups.items():
            found += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        return sorted([*found, "/version"])

    def _cached(self, *key: str, build: Any) -> tuple[bytes, str, str]:
        found = self._encoded.get(key)
        if found is None:
            document: Doc = build()
            data = encode(document)
            content_type = JSON
            if document["kind"] == _AGGREGATED:
                version = document["apiVersion"].partition("/")[2]
                content_type = f"{JSON};g=apidiscovery.k8s.io;v={version};as={_AGGREGATED}"
            found = data, content_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            self._encoded[key] = found
        return found

    def _group(self, name: str) -> Doc:
        versions = [
            {"groupVersion": f"{name}/{version}", "version": version}
            for version in self._groups[name]
        ]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def _group_list(self) -> Doc:
        groups = [self._group(name) for name in self._groups]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _resource_list(self, group: str, version: str) -> Doc:
        resources: list[Doc] = []
        for kind in self._versions.get((group, version), ()):
            resources.append(
                {
                    "name": kind.plural,
                    "singularName": kind.singular,
                    "namespaced": kind.namespaced,
                    "kind": kind.kind,
                    "verbs": _VERBS,
                    **_names(kind),
                }
            )
            resources += [
                {
                    "name": f"{kind.plural}/{name}",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    **({} if made_of is kind else _group_version(made_of)),
                    "kind": made_of.kind,
                    "verbs": verbs,
                }
                for name, made_of, verbs in _subresources(kind)
            ]
        resources += map(_extra_resource, self._extra.get((group, version), ()))
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": resources,
        }

    def _aggregated(self, version: str, groups: list[str]) -> Doc:
        return {
            "kind": _AGGREGATED,
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": group, "creationTimestamp": None},
                    "versions": [
                        {
                            "version": served,
                            "resources": self._aggregated_resources(group, served),
                            "freshness": "Current",
                        }
                        for served in self._served(group)
                    ],
                }
                for group in groups
            ],
        }

    def _aggregated_resources(self, group: str, version: str) -> list[Doc]:
        kinds = self._versions.get((group, version), ())
        return [
            *map(_aggregated_resource, kinds),
            *(
                {
                    "resource": listed.resource,
                    "responseKind": {"group": group, "version": version, "kind": listed.kind},
                    "scope": "Namespaced" if listed.namespaced else "Cluster",
                    "singularResource": "",
                    "verbs": list(listed.verbs),
                }
                for listed in self._extra.get((group, version), ())
                if isinstance(listed, Listed)
            ),
        ]

    def _served(self, group: str) -> list[str]:
        if group:
            return self._groups[group]
        return [version for name, version in self._versions if not name]


def version_info(kubernetes: tuple[str, str] = KUBERNETES) -> Doc:
    """``/version``: the release we follow, with our own version as its build."""
    major, minor = kubernetes
    return {
        "major": major,
        "minor": minor,
        "gitVersion": git_version(__version__, kubernetes),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{_architecture()}",
    }


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _aggregated_version(accept: str) -> str:
    for version in ("v2", "v2beta1"):
        if accepts(accept, JSON, g="apidiscovery.k8s.io", v=version, **{"as": _AGGREGATED}):
            return version
    return ""


def _names(kind: Kind) -> Doc:
    names: Doc = {}
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    if kind.categories:
        names["categories"] = list(kind.categories)
    return names


def _subresources(kind: Kind) -> list[tuple[str, Kind, list[str]]]:
    """Name, what it is made of, and verbs."""
    listed = [(name, kind, list(verbs)) for name, verbs in kind.subresources.items()]
    if kind.status:
        listed.append(("status", kind, _STATUS_VERBS))
    if kind.scale:
        listed.append(("scale", SCALE, _STATUS_VERBS))
    listed += [(name, kind, _STATUS_VERBS) for name in kind.parts]
    listed += [(name, taken, ["create"]) for name, taken in kind.takes.items()]
    return sorted(listed, key=lambda entry: entry[0])


def _group_version(kind: Kind) -> Doc:
    return {"group": kind.group, "version": kind.version}


def _response_kind(kind: Kind) -> Doc:
    return {**_group_version(kind), "kind": kind.kind}


def _extra_resource(listed: Subresource | Listed) -> Doc:
    if isinstance(listed, Listed):
        return {
            "name": listed.resource,
            "singularName": "",
            "namespaced": listed.namespaced,
            "kind": listed.kind,
            "verbs": list(listed.verbs),
        }
    # As KubeVirt lists its own: the name alone tells, kind and verbs stay empty.
    name = f"{listed.resource}/{listed.name}"
    return {"name": name, "singularName": "", "namespaced": True, "kind": "", "verbs": []}


def _aggregated_resource(kind: Kind) -> Doc:
    resource: Doc = {
        "resource": kind.plural,
        "responseKind": _response_kind(kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": _VERBS,
        **_names(kind),
    }
    if listed := _subresources(kind):
        resource["subresources"] = [
            {"subresource": name, "responseKind": _response_kind(made_of), "verbs": verbs}
            for name, made_of, verbs in listed
        ]
    return resource
