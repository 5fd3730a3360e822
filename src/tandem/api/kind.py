"""What the machinery needs to know about a kind, and the registry of the kinds that are served.

A kind is data plus a few pure functions; discovery, validation, Tables, OpenAPI, the REST verbs and
garbage collection all work from this one description. A new kind is one new module in
``tandem.api.kinds`` that calls nothing outside ``tandem.api``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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


@dataclass(frozen=True, slots=True)
class Scale:
    """A kind that has ``/scale``: ``spec.replicas`` and ``status.replicas`` are numbers of objects
    that ``selector(doc)``, in the form of a query, selects."""

    selector: Callable[[Doc], str]


class Lookup(Protocol):
    """The objects that are there, as an admission may ask for them."""

    def get(self, resource: str, namespace: str, name: str) -> Doc | None:
        """An object, or None; ``resource`` as :attr:`Kind.resource` has it."""
        ...

    def list(self, resource: str) -> Sequence[Doc]:
        """All objects of a resource."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A subresource by which one part of an object changes, under rules of its own.

    ``take(new, old)`` is ``old`` with that part of ``new``, whatever else ``new`` says. ``validate``
    stands for the kind's own.
    """

    take: Callable[[Doc, Doc], Doc]
    validate: Callable[[Doc, Doc], list[Cause]]


def _nothing(_: Doc) -> None:
    return None


def _admitted(_: Doc, _lookup: Lookup) -> None:
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
    ``subresources``: further subresources to list in discovery, with their verbs (``log``: get).
    ``parts``: subresources that are read as the whole object and write a part of it.
    ``takes``: subresources to which an object of a kind of its own is posted (``eviction``).
    ``default(doc)``: fills defaults in place, on create and update, idempotent.
    ``admit(doc, lookup)``: on create, after the defaults, fills in what other objects say, in place, and
    raises ``Forbidden`` where one that is named is not there.
    ``validate(new, old)``: semantic rules beyond the schema, ``old`` is None on create; also says
    which fields are immutable and which are known but not supported here.
    ``warn(new, old)``: sentences for the HTTP ``Warning`` header.
    ``grace(doc)``: default grace period in seconds; None: the object is removed at once. A kind with
    a grace period is only marked by DELETE, and its controller removes it when it has ended.
    ``field_labels``: what ``fieldSelector`` may name beyond ``metadata.name`` and
    ``metadata.namespace``.
    ``spec_fields``: top-level fields whose change raises ``metadata.generation``.
    ``scale``: what ``/scale`` is made of, None for kinds that have none.
    ``orphans``: what an object owned is left alone when a delete does not say what becomes of it, as
    in the kinds that are older than garbage collection.
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
    subresources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    takes: Mapping[str, Kind] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    default: Callable[[Doc], None] = _nothing
    admit: Callable[[Doc, Lookup], None] = _admitted
    validate: Callable[[Doc, Doc | None], list[Cause]] = _no_causes
    warn: Callable[[Doc, Doc | None], list[str]] = _no_warnings
    grace: Callable[[Doc], int | None] = field(default=lambda _doc: None)
    field_labels: Mapping[str, Callable[[Doc], str]] = field(default_factory=dict)
    spec_fields: tuple[str, ...] = ("spec",)
    scale: Scale | None = None
    orphans: bool = False
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
