"""What a handler is given: the parts of the daemon it may use, and the request it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from tandem.api.kind import Kind, Registry
from tandem.errors import NotFound
from tandem.host.tokens import Tokens
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.server.changes import Changes
from tandem.server.media import Form
from tandem.server.paging import Pages
from tandem.server.paths import Target
from tandem.server.query import Query
from tandem.store import Key, Store, Watch

NAMESPACES = "namespaces"


@dataclass(slots=True)
class Api:
    """The parts of the daemon behind the server.

    ``tokens`` signs service accounts' tokens, None: nobody does.
    ``watches`` and ``streams`` are the answers that have no end of their own; the server ends them
    when it stops.
    """

    store: Store
    registry: Registry
    adapters: Mapping[str, RuntimeAdapter]
    pages: Pages = field(default_factory=Pages)
    changes: Changes = field(default_factory=Changes)
    tokens: Tokens | None = None
    watches: set[Watch] = field(default_factory=set)
    streams: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True)
class Call:
    """One request for a resource: the objects of ``kind`` that ``target`` names."""

    request: web.BaseRequest
    query: Query
    target: Target
    kind: Kind
    form: Form

    @property
    def key(self) -> Key:
        """Where the named object lives."""
        return Key(self.kind.resource, self.target.namespace, self.target.name)

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be written (``dryRun=All``)."""
        return self.query.text("dryRun") == "All"


Handler = Callable[[Api, Call], Awaitable[web.StreamResponse]]


def find_kind(registry: Registry, target: Target) -> Kind:
    """The kind that ``target`` asks for. Raises ``NotFound`` as for a path that leads nowhere."""
    kind = registry.by_resource(target.group, target.version, target.resource)
    # A cluster-scoped resource has no place below a namespace.
    if kind is None or (target.namespace and not kind.namespaced):
        raise no_such_path()
    return kind


def no_such_path() -> NotFound:
    """The answer for a path that leads nowhere, worded as kubectl recognises it."""
    return NotFound("the server could not find the requested resource")
