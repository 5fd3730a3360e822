"""/openapi/v2 and /openapi/v3: the schemas that kubectl explains and validates by.

The documents are large and follow from the registry alone, so each is built when it is first asked
for, in a thread, and kept encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tandem.api import openapi
from tandem.api.kind import Registry
from tandem.server import media, respond
from tandem.server.call import no_such_path
from tandem.server.codec import encode

_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# kubectl up to 1.25 spells it with an @, which is not a media type; both ask for the same bytes.
_PROTOBUF_NAMES = (_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")


class OpenApi:
    """The OpenAPI documents of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._built: dict[tuple[str, ...], asyncio.Future[bytes]] = {}

    async def answer(self, path: list[str], accept: str) -> web.Response:
        """Answer for ``/openapi/`` and ``path``. Raises ``NotFound``."""
        match path:
            case ["v2"]:
                wanted = media.preferred(accept, (*_PROTOBUF_NAMES, media.JSON, "*/*"))
                if wanted in _PROTOBUF_NAMES:
                    data = await self._once(("v2", "protobuf"), openapi.v2_protobuf)
                    return respond.body(data, _PROTOBUF)
                return respond.body(await self._once(("v2",), openapi.v2_json))
            case ["v3"]:
                return respond.body(await self._once(("v3",), openapi.v3_index))
            case ["v3", "api", version]:
                return await self._version("", version)
            case ["v3", "apis", group, version]:
                return await self._version(group, version)
        raise no_such_path()

    async def _version(self, group: str, version: str) -> web.Response:
        if not any((kind.group, kind.version) == (group, version) for kind in self._registry):
            raise no_such_path()

        def build(registry: Registry) -> Any:
            return openapi.v3_document(registry, group, version)

        return respond.body(await self._once(("v3", group, version), build))

    async def _once(self, key: tuple[str, ...], build: Callable[[Registry], Any]) -> bytes:
        built = self._built.get(key)
        if built is None:
            built = self._built[key] = asyncio.ensure_future(
                asyncio.to_thread(_encoded, build, self._registry)
            )
        try:
            return await asyncio.shield(built)
        except Exception:
            self._built.pop(key, None)  # asked for again, it is tried again
            raise


def _encoded(build: Callable[[Registry], Any], registry: Registry) -> bytes:
    document = build(registry)
    return document if isinstance(document, bytes) else encode(document)
