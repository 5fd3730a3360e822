"""The client for asynchronous programs, on aiohttp.

The same verbs as :class:`tandem.client.sync.Client`, awaited; many may run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from tandem.client import request as requests
from tandem.client.kubeconfig import Access
from tandem.client.request import (
    ALL,
    WHOLE_LOG,
    Doc,
    LogSlice,
    PatchType,
    Request,
    Selection,
)
from tandem.client.resources import Resource, Resources, discover
from tandem.client.sync import PAGE
from tandem.errors import DeadlineExceeded

_ANSWER = aiohttp.ClientTimeout(total=60, sock_connect=10)
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=10)

# Frames of the console carry no channel byte; this name says so (KubeVirt's own).
_PLAIN_STREAM = "plain.kubevirt.io"


class AsyncClient:
    """The verbs of the API, objects as plain dicts; see :class:`tandem.client.sync.Client` for what
    ``resource`` and ``namespace`` may be and what is raised. Use as an async context manager."""

    def __init__(
        self, access: Access, *, on_warning: Callable[[str], None] = lambda _sentence: None
    ) -> None:
        self.access = access
        self._on_warning = on_warning
        self._tls = access.tls()
        self._opened: aiohttp.ClientSession | None = None
        self._resources: Resources | None = None
        self._discovery = asyncio.Lock()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def resources(self) -> Resources:
        """What the server has, asked once."""
        async with self._discovery:
            if self._resources is None:
                questions = discover()
                try:
                    question = next(questions)
                    while True:
                        question = questions.send(await self.send(question))
                except StopIteration as end:
                    self._resources = end.value
        assert self._resources is not None
        return self._resources

    async def get(
        self, resource: str | Resource, name: str, *, namespace: str | None = None
    ) -> Doc:
        """One object. Raises ``NotFound``."""
        kind = await self._resource(resource)
        return await self._doc(requests.get(kind, self._namespace(namespace), name))

    async def list(
        self, resource: str | Resource, *, namespace: str | None = None, select: Selection = ALL
    ) -> Doc:
        """A ``List`` document with every object that is selected, read in pages."""
        kind, space = await self._resource(resource), self._namespace(namespace)
        whole = await self._doc(requests.list_(kind, space, select=select, limit=PAGE))
        while page := whole["metadata"].pop("continue", ""):
            question = requests.list_(kind, space, select=select, limit=PAGE, page=page)
            more = await self._doc(question)
            whole["items"] += more["items"]
            whole["metadata"] = more["metadata"]
        return whole

    async def create(
        self,
        resource: str | Resource,
        doc: Doc,
        *,
        namespace: str | None = None,
        strict: bool = False,
    ) -> Doc:
        """Create an object. Raises ``AlreadyExists``, ``InvalidSpec``."""
        kind, space = await self._resource(resource), self._namespace(namespace)
        return await self._doc(requests.create(kind, space, doc, strict=strict))

    async def update(
        self,
        resource: str | Resource,
        doc: Doc,
        *,
        namespace: str | None = None,
        subresource: str = "",
    ) -> Doc:
        """Replace an object. Raises ``Conflict`` when it changed since it was read."""
        kind, space = await self._resource(resource), self._namespace(namespace)
        return await self._doc(requests.update(kind, space, doc, subresource=subresource))

    async def patch(
        self,
        resource: str | Resource,
        name: str,
        change: Any,
        *,
        namespace: str | None = None,
        type: PatchType = "merge",
        subresource: str = "",
        strict: bool = False,
    ) -> Doc:
        """Change part of an object."""
        kind, space = await self._resource(resource), self._namespace(namespace)
        return await self._doc(
            requests.patch(
                kind, space, name, change, kind=type, subresource=subresource, strict=strict
            )
        )

    async def delete(
        self,
        resource: str | Resource,
        name: str,
        *,
        namespace: str | None = None,
        grace_seconds: int | None = None,
    ) -> Doc:
        """Delete an object; returns when that is noted, which may be before it has ended."""
        kind, space = await self._resource(resource), self._namespace(namespace)
        return await self._doc(requests.delete(kind, space, name, grace_seconds=grace_seconds))

    async def watch(
        self,
        resource: str | Resource,
        *,
        namespace: str | None = None,
        since: str = "",
        select: Selection = ALL,
    ) -> AsyncIterator[tuple[str, Doc]]:
        """``(type, object)`` for each change after revision ``since`` (as a list has it).

        Ends when the server ends the watch; raises ``Expired`` when ``since`` is too old.
        """
        kind, space = await self._resource(resource), self._namespace(namespace)
        rest = b""
        async for chunk in self.stream(requests.watch(kind, space, since=since, select=select)):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield requests.watch_event(line)

    def log(
        self,
        name: str,
        container: str = "",
        *,
        namespace: str | None = None,
        part: LogSlice = WHOLE_LOG,
    ) -> AsyncIterator[bytes]:
        """A container's output in chunks, as they come."""
        return self.stream(requests.log(self._namespace(namespace), name, container, part))

    def machine_log(
        self, name: str, *, namespace: str | None = None, part: LogSlice = WHOLE_LOG
    ) -> AsyncIterator[bytes]:
        """What a virtual machine wrote to its serial console, in chunks, as they come."""
        return self.stream(requests.machine_log(self._namespace(namespace), name, part))

    @asynccontextmanager
    async def console(
        self, name: str, *, namespace: str | None = None
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """The serial console of a running machine: binary messages both ways, boundaries mean nothing.

        Raises ``BadRequest`` while the machine is not running yet, ``NotFound`` when there is none.
        """
        path = requests.machine_path(
            self._namespace(namespace), "virtualmachineinstances", name, "console"
        )
        headers = Request("GET", path).headers(self.access.token) | {"Accept": "*/*"}
        try:
            socket = await self._session().ws_connect(
                self._url(path),
                headers=headers,
                protocols=[_PLAIN_STREAM],
                max_msg_size=0,
                **self._tls_options(),
            )
        except aiohttp.WSServerHandshakeError as error:
            # aiohttp throws the answer's body away, and with it the reason: ask again plainly.
            await self.send(Request("GET", path))
            raise requests.unreachable(self.access.server, error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise requests.unreachable(self.access.server, error) from error
        async with socket:
            yield socket

    async def send(self, question: Request) -> Any:
        """Send any request; its answer's JSON (None for an empty one)."""
        async with self._answered(question, _ANSWER) as answer:
            body = await answer.read()
            requests.check(answer.status, body)
        return requests.decode(body) if body else None

    async def stream(self, question: Request) -> AsyncIterator[bytes]:
        """Send any request; its answer in chunks, as they come."""
        async with self._answered(question, _STREAM) as answer:
            if answer.status >= 400:
                requests.check(answer.status, await answer.read())
            async for chunk in answer.content.iter_any():
                yield chunk

    async def _doc(self, question: Request) -> Doc:
        doc: Doc = await self.send(question)
        return doc

    async def _resource(self, resource: str | Resource) -> Resource:
        if isinstance(resource, Resource):
            return resource
        return (await self.resources()).find(resource)

    def _namespace(self, namespace: str | None) -> str:
        return self.access.namespace if namespace is None else namespace

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            # No limit: each watch holds a connection for as long as it lives.
            self._opened = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._opened

    def _url(self, target: str) -> URL:
        return URL(self.access.server + target, encoded=True)

    def _tls_options(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {"ssl": self._tls, "server_hostname": self.access.server_name or None}

    @asynccontextmanager
    async def _answered(
        self, question: Request, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session().request(
                question.method,
                self._url(question.target),
                data=question.body,
                headers=question.headers(self.access.token),
                timeout=timeout,
                **self._tls_options(),
            ) as answer:
                for sentence in requests.warnings_in(answer.headers.getall("Warning", [])):
                    self._on_warning(sentence)
                yield answer
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.access.server} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise requests.unreachable(self.access.server, error) from error
