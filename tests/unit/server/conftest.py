"""A real server on a loopback port, over TLS, with an in-memory store and runtime behind it."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest

from tandem.api.kinds import REGISTRY
from tandem.runtimes.memory.adapter import MemoryAdapter
from tandem.server import pki
from tandem.server.app import Server
from tandem.store import Key, Store

Doc = dict[str, Any]


@dataclass
class Answer:
    """What came back: the status, the headers and the body."""

    status: int
    headers: Any
    body: bytes

    @property
    def doc(self) -> Doc:
        decoded: Doc = msgspec.json.decode(self.body)
        return decoded


class Client:
    """Requests as the administrator."""

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        self.url = url
        connector = aiohttp.TCPConnector(ssl=tls)
        self.session = aiohttp.ClientSession(url, connector=connector)

    async def ask(
        self, method: str, path: str, body: Any = None, *, type: str = "", **headers: str
    ) -> Answer:
        """One request; a body that is no bytes goes as JSON."""
        data: Any = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if data is not None and len(data) > 1024 * 1024:
            data = io.BytesIO(data)  # aiohttp warns of so many bytes in one piece
        if type or data is not None:
            headers["Content-Type"] = type or "application/json"
        async with self.session.request(method, path, data=data, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, *, status: int = 200, **headers: str) -> Doc:
        """The document at ``path``."""
        answer = await self.ask("GET", path, **headers)
        assert answer.status == status, answer.body
        return answer.doc

    async def create(self, path: str, doc: Doc) -> Doc:
        """Create ``doc``, which must succeed."""
        answer = await self.ask("POST", path, doc)
        assert answer.status == 201, answer.body
        return answer.doc


class Lines:
    """The lines of a watch, one at a time."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Doc:
        line = await self.response.content.readline()
        assert line, "the watch has ended"
        decoded: Doc = msgspec.json.decode(line)
        return decoded

    async def take(self, count: int) -> list[tuple[str, str]]:
        """The types and names of the next ``count`` events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    async def ended(self) -> bool:
        return await self.response.content.readline() == b""


async def eventually(holds: Callable[[], bool]) -> None:
    """Return when ``holds`` does, which the loop brings about by itself within moments."""
    for _ in range(5000):
        if holds():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not come about")


@dataclass
class World:
    """The server, what is behind it, and somebody who talks to it."""

    server: Server
    store: Store
    adapter: MemoryAdapter
    client: Client


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    return pki.ensure(tmp_path_factory.mktemp("pki"))[0]


@pytest.fixture
async def world(certificates: pki.Pki) -> AsyncIterator[World]:
    adapter = MemoryAdapter()
    adapters = {"container": adapter, "vm": adapter}
    async with await Store.open(None) as store:
        for name in ("default", "other"):
            await store.create(Key("namespaces", "", name), namespace(name))
        server = Server(store, REGISTRY, adapters, tls=certificates.server_context(), port=0)
        await server.start()
        client = Client(server.url, certificates.client_context())
        try:
            yield World(server, store, adapter, client)
        finally:
            await client.session.close()
            await server.stop()


@pytest.fixture
def client(world: World) -> Client:
    return world.client


def namespace(name: str) -> Doc:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "uid": f"uid-of-{name}"},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def config_map(name: str, *, labels: dict[str, str] | None = None, **data: str) -> Doc:
    metadata: Doc = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(name: str, **spec: Any) -> Doc:
    containers = [{"name": "main", "image": "busybox"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers} | spec,
    }
