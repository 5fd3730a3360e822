"""A client of the Kubernetes API, of Tandem's or of a real cluster's.

:class:`Client` blocks and needs the standard library only; :class:`AsyncClient` is for asynchronous
programs and brings aiohttp, so it is imported when it is first asked for. Objects are plain dicts.

    with Client(load()) as api:
        api.create("pods", {...})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tandem.client.kubeconfig import Access, load
from tandem.client.request import LogSlice, Selection
from tandem.client.resources import Resource, Resources
from tandem.client.sync import Client

if TYPE_CHECKING:
    from tandem.client.aio import AsyncClient

__all__ = [
    "Access",
    "AsyncClient",
    "Client",
    "LogSlice",
    "Resource",
    "Resources",
    "Selection",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "AsyncClient":
        from tandem.client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
