"""metrics.k8s.io: what ``kubectl top`` asks for. Objects that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from tandem.api.kind import Doc, Kind
from tandem.errors import MethodNotAllowed, NotFound
from tandem.host import nodefacts
from tandem.server import media, respond
from tandem.server.call import Api, no_such_path
from tandem.server.codec import decode
from tandem.server.discovery import Listed
from tandem.server.paths import Target
from tandem.server.query import Query
from tandem.server.selection import Selection
from tandem.server.usage import Meter, Rate, Reading

GROUP, VERSION = "metrics.k8s.io", "v1beta1"

LISTED = (
    Listed("nodes", "NodeMetrics", ("get", "list"), namespaced=False),
    Listed("pods", "PodMetrics", ("get", "list"), namespaced=True),
)

_KINDS = {listed.resource: listed.kind for listed in LISTED}


class Metrics:
    """Answers for the group."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._meter = Meter(api.adapters)
        self._boot_id = ""

    async def answer(
        self, request: web.BaseRequest, target: Target, query: Query
    ) -> web.StreamResponse:
        """One object, or those that the selectors choose."""
        kind = self._api.registry.by_resource("", "v1", target.resource)
        if target.version != VERSION or target.resource not in _KINDS or kind is None:
            raise no_such_path()
        if target.subresource or (target.namespace and not kind.namespaced):
            raise no_such_path()
        if target.name and kind.namespaced and not target.namespace:
            raise no_such_path()
        if request.method != "GET" or target.watch or query.flag("watch"):
            raise MethodNotAllowed(
                "the server does not allow this method on the requested resource"
            )
        form = media.negotiate(request.headers.get("Accept", ""))
        found = await self._find(kind, target, query)
        if target.name:
            if not found:
                raise _absent(target)
            return respond.document(found[0], form)
        return respond.document(
            {
                "kind": f"{_KINDS[target.resource]}List",
                "apiVersion": f"{GROUP}/{VERSION}",
                "metadata": {},
                "items": found,
            },
            form,
        )

    async def _find(self, kind: Kind, target: Target, query: Query) -> list[Doc]:
        listing = Selection(kind, target, query).listing(self._api.store)
        docs = [decode(data) for data in listing.items]
        if not docs:
            return []
        reading = await self._meter.read()
        describe = self._pod if target.resource == "pods" else self._node
        return [metrics for doc in docs if (metrics := describe(doc, reading))]

    def _pod(self, doc: Doc, reading: Reading) -> Doc | None:
        rates = reading.workloads.get(doc["metadata"]["uid"])
        if not rates:  # nothing of it runs
            return None
        containers = [{"name": name, "usage": _usage(rate)} for name, rate in rates.items()]
        return _metrics("pods", doc, reading) | {"containers": containers}

    def _node(self, doc: Doc, reading: Reading) -> Doc | None:
        self._boot_id = self._boot_id or nodefacts.boot_id()
        info: Mapping[str, str] = doc.get("status", {}).get("nodeInfo", {})
        if info.get("bootID") != self._boot_id:  # an object somebody made, not this host
            return None
        return _metrics("nodes", doc, reading) | {"usage": _usage(reading.host)}


def _metrics(resource: str, doc: Doc, reading: Reading) -> Doc:
    metadata = doc["metadata"]
    moment = reading.moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = {key: metadata[key] for key in ("name", "namespace", "labels") if metadata.get(key)}
    return {
        "kind": _KINDS[resource],
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": kept | {"creationTimestamp": moment},
        "timestamp": moment,
        "window": f"{reading.window:.3f}s",
    }


def _usage(rate: Rate) -> Doc:
    return {"cpu": f"{rate.cpu}n", "memory": f"{rate.memory // 1024}Ki"}


def _absent(target: Target) -> NotFound:
    name = f"{target.namespace}/{target.name}" if target.namespace else target.name
    resource = _KINDS[target.resource].lower()
    return NotFound(
        f'{resource}.{GROUP} "{name}" not found',
        details={"name": name, "group": GROUP, "kind": target.resource},
    )
