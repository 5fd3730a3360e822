"""What the daemon says of itself (``/statusz``, ``tandem status``): its runtimes as they are now, and
how many objects are in which phase."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from tandem import __version__
from tandem.api.kind import Registry
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.store import Store

_FINGERPRINT_SECONDS = 5.0


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""
    printable: str = msgspec.field(default="", name="printableStatus")


class _Head(msgspec.Struct, frozen=True):
    """The part of an object that is counted by; the rest is skipped, not decoded."""

    status: _Status = _Status()


_decode_head = msgspec.json.Decoder(_Head).decode


async def describe(
    store: Store, registry: Registry, adapters: Mapping[str, RuntimeAdapter]
) -> dict[str, Any]:
    """The document that ``/statusz`` answers with."""
    runtimes = await asyncio.gather(*map(_runtime, adapters, adapters.values()))
    return {
        "version": __version__,
        "pid": os.getpid(),
        "runtimes": runtimes,
        "objects": {kind.resource: _phases(store, kind.resource) for kind in registry},
    }


async def _runtime(kind: str, adapter: RuntimeAdapter) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "name": adapter.name, "version": "", "healthy": False}
    try:
        async with asyncio.timeout(_FINGERPRINT_SECONDS):
            fingerprint = await adapter.fingerprint()
    except TimeoutError:
        problem = f"no answer within {_FINGERPRINT_SECONDS:g} s"
        return found | {"problem": problem, "hint": "see its log", "details": {}}
    return found | {
        "name": fingerprint.name,
        "version": fingerprint.version,
        "healthy": fingerprint.healthy,
        "problem": fingerprint.problem,
        "hint": fingerprint.hint,
        "details": dict(fingerprint.details),
    }


def _phases(store: Store, resource: str) -> dict[str, int]:
    """How many objects are in each phase; under an empty name those of kinds that have none."""
    heads = (_decode_head(data).status for data in store.list_bytes(resource).items)
    return dict(Counter(head.phase or head.printable for head in heads))
