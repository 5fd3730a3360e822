"""The listener: TLS, who is asking, and which handler answers.

One handler takes every request, as the paths follow from the kinds that are served and not from a
table of routes. Whatever fails inside becomes a ``Status``; nobody without a certificate of our CA
gets further than 401, whatever the path.
"""

from __future__ import annotations

import logging
import ssl
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from tandem.api.kind import Doc, Kind, Registry
from tandem.errors import BadRequest, Forbidden, MethodNotAllowed, TandemError, Unauthorized
from tandem.host.tokens import Tokens
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.server import (
    logs,
    machines,
    media,
    metrics,
    pods,
    reading,
    respond,
    reviews,
    scale,
    tokens,
    watching,
    writing,
)
from tandem.server.call import Api, Call, Handler, find_kind, no_such_path
from tandem.server.discovery import (
    KUBEVIRT_VERSION,
    Discovery,
    Listed,
    Subresource,
    version_info,
)
from tandem.server.health import Health
from tandem.server.metrics import Metrics
from tandem.server.openapi import OpenApi
from tandem.server.paths import Target, parse, split
from tandem.server.pki import ADMIN_GROUP
from tandem.server.query import Query
from tandem.server.streams import forward, remote
from tandem.store import Store

logger = logging.getLogger(__name__)

# A thousand clients that reconnect at once must find room: the default of 128 makes them wait for
# seconds, on TCP's retransmissions.
_BACKLOG = 4096
# Requests that are under way when the server stops have this long to finish; the daemon has promised
# to be gone within two seconds.
_STOP_SECONDS = 1.5

# asyncio gives every TLS connection a read buffer of 256 KiB, which is all of the memory of a watch
# that is never written to; a TLS record, more than which is never read at once, has 16 KiB.
_TLS_BUFFER = 16 * 1024

_COLLECTION: dict[str, Handler] = {
    "GET": reading.list_,
    "POST": writing.create,
    "DELETE": writing.delete_collection,
}
_OBJECT: dict[str, Handler] = {
    "GET": reading.get,
    "PUT": writing.update,
    "PATCH": writing.patch,
    "DELETE": writing.delete,
}
_STATUS: dict[str, Handler] = {
    "GET": reading.get,
    "PUT": writing.update,
    "PATCH": writing.patch,
}
_EXTENSIONS_GROUP = "apiextensions.k8s.io"
_LISTED: dict[tuple[str, str], tuple[Subresource | Listed, ...]] = {
    (machines.GROUP, machines.VERSION): machines.LISTED,
    (metrics.GROUP, metrics.VERSION): metrics.LISTED,
    **{(group, reviews.VERSION): listed for group, listed in reviews.LISTED.items()},
}
_STREAMS: dict[str, Handler] = {
    "exec": remote.pod_exec,
    "attach": remote.pod_attach,
    "portforward": forward.pod_portforward,
}


class Server:
    """The Kubernetes API over HTTPS.

    ``store``, ``registry`` and ``adapters`` (``"container"`` and ``"vm"``; one may be missing) are
    the daemon's, and stay the caller's to close. ``tls`` comes from
    :meth:`tandem.server.pki.Pki.server_context`. ``host`` is the address to listen on and ``port``
    the port, 0 for any free one. ``describe`` answers ``/statusz``: what the daemon says of itself.
    ``signer`` signs service accounts' tokens.

    ``await start()`` returns when connections are taken, or raises ``OSError`` (address in use);
    from then on :attr:`url` says where. ``await stop()`` takes no more, ends watches and streams at
    once, gives other requests a moment and returns when all is closed. Stop the server before
    its store.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        adapters: Mapping[str, RuntimeAdapter],
        *,
        tls: ssl.SSLContext,
        host: str = "127.0.0.1",
        port: int = 7443,
        describe: Callable[[], Awaitable[Doc]] | None = None,
        signer: Tokens | None = None,
    ) -> None:
        self._api = Api(store, registry, adapters, tokens=signer)
        self._tls = tls
        self._host = host
        self._port = port
        self._discovery = Discovery(registry, _LISTED)
        # Groups whose objects are kept nowhere.
        self._virtual = {metrics.GROUP: Metrics(self._api).answer} | dict.fromkeys(
            reviews.LISTED, reviews.answer
        )
        self._openapi = OpenApi(registry)
        self._health = Health(adapters)
        self._describe = describe
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Where the server listens, as a client on this host says it."""
        assert self._runner is not None, "start the server before asking where it listens"
        port = self._runner.addresses[0][1]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    async def start(self) -> None:
        """Listen. See the class."""
        # For the whole process: there is no other place to say it.
        sslproto.SSLProtocol.max_size = _TLS_BUFFER
        # Cancelling the handler of a client that has gone is what ends its watch.
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        try:
            site = web.TCPSite(
                runner, self._host, self._port, ssl_context=self._tls, backlog=_BACKLOG
            )
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Close. See the class. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for watch in list(self._api.watches):
            watch.close()
        for stream in list(self._api.streams):
            stream.cancel()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            _authenticate(request)
            return await self._route(request)
        except TandemError as error:
            return respond.failure(error)
        except RecursionError:
            return respond.failure(BadRequest("the object is nested too deeply"))
        except ConnectionError:
            raise  # the client is gone: nobody is left to answer
        except Exception:
            logger.exception("%s %s failed", request.method, request.raw_path)
            if request.writer.output_size:
                # The answer has begun; all that can still be said is that it is not complete.
                if request.transport is not None:
                    request.transport.abort()
                raise
            return respond.failure(TandemError("an internal error occurred; see the daemon's log"))

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, raw_query = request.raw_path.partition("?")
        segments, query = split(path), Query(raw_query)
        target = parse(segments)
        if target is not None and (answer := self._virtual.get(target.group)):
            return await answer(request, target, query)
        if target is None or target.group in (machines.GROUP, _EXTENSIONS_GROUP):
            return await self._route_special(request, segments, query, target)
        kind = find_kind(self._api.registry, target)
        handler = _handler(kind, target, request.method, query)
        # A log is text for whoever asks; what is asked for otherwise must be something we write.
        plain = handler is logs.pod_log or handler in _STREAMS.values()
        accept = "" if plain else request.headers.get("Accept", "")
        form = media.negotiate(accept)
        return await handler(self._api, Call(request, query, target, kind, form))

    async def _route_special(
        self, request: web.BaseRequest, segments: list[str], query: Query, target: Target | None
    ) -> web.StreamResponse:
        if target is not None and target.group == machines.GROUP and target.name:
            # The objects are those of kubevirt.io; only their verbs have a group of their own.
            parent = Target("kubevirt.io", "v1", target.resource)
            if target.version != machines.VERSION or not target.namespace:
                raise no_such_path()
            kind = find_kind(self._api.registry, parent)
            call = Call(request, query, target, kind, media.PLAIN)
            return await machines.handle(self._api, call)
        if request.method not in ("GET", "HEAD"):
            raise _not_allowed()
        return await self._meta(request, segments, query)

    async def _meta(
        self, request: web.BaseRequest, segments: list[str], query: Query
    ) -> web.StreamResponse:
        """What is not an object: discovery, versions, schemas, health."""
        accept = request.headers.get("Accept", "")
        match segments:
            case []:
                return respond.document({"paths": self._discovery.paths()})
            case ["api"]:
                return _tagged(request, self._discovery.core(accept))
            case ["apis"]:
                return _tagged(request, self._discovery.groups(accept))
            case ["api", version]:
                return _tagged(request, self._discovery.resources("", version))
            case ["apis", group]:
                return _tagged(request, self._discovery.group(group))
            case ["apis", group, version]:
                return _tagged(request, self._discovery.resources(group, version))
            case ["apis", group, "v1", "customresourcedefinitions"] if group == _EXTENSIONS_GROUP:
                # kubectl asks for these about each kind it does not know, and says what is wrong
                # with the kind only once it has the answer.
                return respond.document(
                    {
                        "kind": "CustomResourceDefinitionList",
                        "apiVersion": "apiextensions.k8s.io/v1",
                        "metadata": {"resourceVersion": ""},
                        "items": [],
                    }
                )
            case ["apis", machines.GROUP, machines.VERSION, "version"]:
                return respond.document(version_info(KUBEVIRT_VERSION))
            case ["apis", machines.GROUP, machines.VERSION, "healthz"]:
                return respond.document({"apiserver": {"connectivity": "ok"}})
            case ["version"]:
                return respond.document(version_info())
            case ["openapi", *rest]:
                return await self._openapi.answer(rest, accept)
            case ["statusz"] if self._describe is not None:
                return respond.document(await self._describe())
            case ["healthz" | "livez"]:
                return await self._health.live(query)
            case ["readyz"]:
                return await self._health.ready(query)
        raise no_such_path()


def _handler(kind: Kind, target: Target, method: str, query: Query) -> Handler:
    """What answers ``method`` on ``target``. Raises ``NotFound`` and ``MethodNotAllowed``."""
    if method == "GET" and not target.subresource and (target.watch or query.flag("watch")):
        return watching.watch
    if target.watch or (target.name and kind.namespaced and not target.namespace):
        raise no_such_path()
    if target.subresource:
        handlers = _subresource(kind, target)
    elif target.name:
        handlers = _OBJECT
    elif kind.namespaced and not target.namespace:
        # Objects are created, and collections deleted, in one namespace at a time.
        handlers = {"GET": reading.list_}
    else:
        handlers = _COLLECTION
    if method not in handlers:
        raise _not_allowed()
    return handlers[method]


def _subresource(kind: Kind, target: Target) -> Mapping[str, Handler]:
    if target.rest:
        raise no_such_path()
    if target.subresource == "status" and kind.status:
        return _STATUS
    if target.subresource == "scale" and kind.scale:
        return scale.HANDLERS
    if kind.resource == "serviceaccounts" and target.subresource == "token":
        return tokens.HANDLERS
    if kind.resource == "pods":
        if target.subresource == "log":
            return {"GET": logs.pod_log}
        if stream := _STREAMS.get(target.subresource):
            return {"GET": stream, "POST": stream}
        if handlers := pods.HANDLERS.get(target.subresource):
            return handlers
    raise no_such_path()


def _not_allowed() -> MethodNotAllowed:
    return MethodNotAllowed("the server does not allow this method on the requested resource")


def _authenticate(request: web.BaseRequest) -> None:
    """Let the administrator pass. Raises ``Unauthorized`` and ``Forbidden``."""
    if request.transport is None:
        raise ConnectionResetError
    certificate = request.transport.get_extra_info("peercert")
    if not certificate:
        raise Unauthorized("Unauthorized", details={})
    subject = [pair for relative in certificate.get("subject", ()) for pair in relative]
    if ("organizationName", ADMIN_GROUP) not in subject:
        name = next((value for field, value in subject if field == "commonName"), "")
        raise Forbidden(f'User "{name}" cannot use this server: not in group {ADMIN_GROUP}')


def _tagged(request: web.BaseRequest, found: tuple[bytes, str, str] | None) -> web.StreamResponse:
    if found is None:
        raise no_such_path()
    data, content_type, tag = found
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers={"ETag": tag})
    response = respond.body(data, content_type)
    # Discovery depends on Accept: a cache must not give the one for the other.
    response.headers["ETag"], response.headers["Vary"] = tag, "Accept"
    response.headers["Cache-Control"] = "public"
    return response
