"""Which kinds a server has, learned from its discovery documents and found by any of their names.

Nothing about kinds is built in: what ``po``, ``vm`` or ``pods,vmi`` mean is the server's word, so
this client serves a real cluster as well as Tandem.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tandem.client.request import Doc, Request
from tandem.errors import NotFound

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the server offers it."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: frozenset[str] = frozenset()

    @property
    def api_version(self) -> str:
        """``v1`` or ``kubevirt.io/v1``"""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified_singular(self) -> str:
        """``pod`` or ``virtualmachine.kubevirt.io``: how messages and ``-o name`` write it."""
        singular = self.singular or self.kind.lower()
        return f"{singular}.{self.group}" if self.group else singular

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path; a collection's without ``name``, of all namespaces without ``namespace``."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


class Resources:
    """Every resource of a server, in the order in which it offers them."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._all = tuple(resources)
        self._by_kind = {(r.api_version, r.kind): r for r in reversed(self._all)}
        self._by_name: dict[str, Resource] = {}
        for resource in reversed(self._all):  # the first to be offered wins a name
            names = {
                resource.plural,
                resource.singular,
                resource.kind.lower(),
                *resource.short_names,
            }
            for name in names - {""}:
                self._by_name[name] = resource
                if resource.group:
                    self._by_name[f"{name}.{resource.group}"] = resource
                    self._by_name[f"{name}.{resource.version}.{resource.group}"] = resource

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._all)

    def find(self, name: str) -> Resource:
        """The resource with this plural, singular, short or qualified name. Raises ``NotFound``."""
        if found := self._by_name.get(name.lower()):
            return found
        from difflib import get_close_matches

        near = get_close_matches(name.lower(), (r.plural for r in self._all), n=1)
        raise NotFound(
            f"the server doesn't have a resource type {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else None,
        )

    def find_all(self, names: str) -> list[Resource]:
        """The resources of a list such as ``pod,vm``, where a word may also be a category (``all``)."""
        found: list[Resource] = []
        for name in filter(None, names.split(",")):
            members = [r for r in self._all if name in r.categories and "list" in r.verbs]
            found += members or [self.find(name)]
        return list(dict.fromkeys(found))

    def by_kind(self, api_version: str, kind: str) -> Resource:
        """The resource that a manifest's ``apiVersion`` and ``kind`` name. Raises ``NotFound``."""
        if found := self._by_kind.get((api_version, kind)):
            return found
        same = sorted({r.api_version for r in self._all if r.kind == kind})
        raise NotFound(
            f'no matches for kind "{kind}" in version "{api_version}"',
            hint=f"{kind} is served as {', '.join(same)}" if same else None,
        )


def discover() -> Generator[Request, Doc, Resources]:
    """Asks a server for its resources: yields requests, is sent their answers, returns the result.

    Two requests on a server that aggregates its discovery, one for each group version otherwise.
    """
    found: list[Resource] = []
    for root in ("/api", "/apis"):
        answer = yield Request("GET", root, accept=f"{_AGGREGATED},application/json")
        if answer.get("kind") == "APIGroupDiscoveryList":
            found += _from_aggregated(answer)
            continue
        for path, group, version in _group_versions(root, answer):
            found += _from_list((yield Request("GET", path)), group, version)
    return Resources(found)


def _from_aggregated(answer: Doc) -> Iterator[Resource]:
    for item in answer.get("items") or ():
        group = item.get("metadata", {}).get("name", "")
        for version in item.get("versions") or ():
            for entry in version.get("resources") or ():
                yield Resource(
                    group=group,
                    version=version["version"],
                    kind=entry.get("responseKind", {}).get("kind", ""),
                    plural=entry["resource"],
                    singular=entry.get("singularResource", ""),
                    namespaced=entry.get("scope") == "Namespaced",
                    **_common(entry),
                )


def _group_versions(root: str, answer: Doc) -> Iterator[tuple[str, str, str]]:
    for version in answer.get("versions") or ():
        yield f"{root}/{version}", "", version
    for group in answer.get("groups") or ():
        preferred = group["preferredVersion"]
        yield f"{root}/{preferred['groupVersion']}", group["name"], preferred["version"]


def _from_list(answer: Doc, group: str, version: str) -> Iterator[Resource]:
    for entry in answer.get("resources") or ():
        if "/" not in entry["name"]:  # subresources are listed beside their owners
            yield Resource(
                group=group,
                version=version,
                kind=entry.get("kind", ""),
                plural=entry["name"],
                singular=entry.get("singularName", ""),
                namespaced=bool(entry.get("namespaced")),
                **_common(entry),
            )


def _common(entry: Doc) -> dict[str, Any]:
    return {
        "short_names": tuple(entry.get("shortNames") or ()),
        "categories": tuple(entry.get("categories") or ()),
        "verbs": frozenset(entry.get("verbs") or ()),
    }
