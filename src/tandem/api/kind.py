"""What the machinery needs to know about a kind, and the registry of the kinds that are served.

A kind is data plus a few pure functions; discovery, validation, Tables, OpenAPI, the REST verbs and
garbage collection all work from this one description. A new kind is one new module in
``tandem.api.kinds`` that calls nothing outside ``tandem.api``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tandem.errors import Cause

Doc = dict[str, Any]
"""An object as its JSON document: the truth that is stored, patched and returned."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the server-side Table. ``priority`` 0 shows always, 1 with ``-o wide``."""

    name: str
    value: Callable[[Doc], Any]
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


def _nothing(_: Doc) -> None:
    return None


def _no_causes(_new: Doc, _old: Doc | None) -> list[Cause]:
    return []


def _no_warnings(_new: Doc, _old: Doc | None) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Kind:
    """One served kind.

    ``schema``: the OpenAPI definition that types its fields (``io.k8s.api.core.v1.Pod``).
    ``status``: whether ``/status`` is a subresource of its own, so that writes to the main resource
    leave ``.status`` alone and the reverse.
    ``subresources``: further subresources to list in discovery (``log``, ``console``).
    ``default(doc)``: fills defaults in place, on create and update, idempotent.
    ``validate(new, old)``: semantic rules beyond the schema, ``old`` is None on create; also says
    which fields are immutable and which are known but not supported here.
    ``warn(new, old)``: sentences for the HTTP ``Warning`` header.
    ``grace(doc)``: default grace period in seconds; None: the object is removed at once. A kind with
    a grace period is only marked by DELETE, and its controller removes it when it has ended.
    ``field_labels``: what ``fieldSelector`` may name beyond ``metadata.name`` and
    ``metadata.namespace``.
    ``spec_fields``: top-level fields whose change raises ``metadata.generation``.
    ``merge_only``: patched by JSON merge patch, not strategic merge (custom resources, as KubeVirt's
    are in a cluster: a strategic patch is answered with 415).
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    schema: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    status: bool = True
    subresources: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    default: Callable[[Doc], None] = _nothing
    validate: Callable[[Doc, Doc | None], list[Cause]] = _no_causes
    warn: Callable[[Doc, Doc | None], list[str]] = _no_warnings
    grace: Callable[[Doc], int | None] = field(default=lambda _doc: None)
    field_labels: Mapping[str, Callable[[Doc], str]] = field(default_factory=dict)
    spec_fields: tuple[str, ...] = ("spec",)
    merge_only: bool = False

    @property
    def api_version(self) -> str:
        """``v1`` or ``kubevirt.io/v1``, as manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """``pods`` or ``virtualmachines.kubevirt.io``: the key under which the store keeps them."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Registry:
    """The kinds that are served, found by resource or by apiVersion and kind."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_resource: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        for kind in kinds:
            self._by_resource[kind.group, kind.version, kind.plural] = kind
            self._by_kind[kind.api_version, kind.kind] = kind

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._by_resource.values())

    def by_resource(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served at ``/apis/group/version/plural``, or None."""
        return self._by_resource.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Kind | None:
        """The kind that a manifest's ``apiVersion`` and ``kind`` name, or None."""
        return self._by_kind.get((api_version, kind))
