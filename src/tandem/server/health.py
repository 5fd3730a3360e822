"""/healthz, /livez and /readyz: whether the daemon serves, and whether it can run workloads.

Alive is who answers. Ready is who can also reach every runtime it was given; each is asked with a
bound on time, and once for all who ask in the same second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from tandem.runtimes.adapter import RuntimeAdapter
from tandem.server import respond
from tandem.server.query import Query

_TIMEOUT = 5.0
_REMEMBERED = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; ``problem`` is empty when it is well."""

    name: str
    problem: str = ""


class Health:
    """The checks of a daemon with these adapters."""

    def __init__(self, adapters: Mapping[str, RuntimeAdapter]) -> None:
        self._adapters = adapters
        self._asked = float("-inf")
        self._running: asyncio.Task[list[Check]] | None = None

    async def live(self, query: Query) -> web.Response:
        """Answer ``/livez`` or ``/healthz``."""
        return _answer([Check("ping")], query, "livez")

    async def ready(self, query: Query) -> web.Response:
        """Answer ``/readyz``."""
        return _answer([Check("ping"), *await self._runtimes()], query, "readyz")

    async def _runtimes(self) -> list[Check]:
        now = monotonic()
        if self._running is None or (self._running.done() and now - self._asked > _REMEMBERED):
            self._asked = now
            self._running = asyncio.create_task(self._ask())
        # One who asks may go away; the others still want the answer.
        return await asyncio.shield(self._running)

    async def _ask(self) -> list[Check]:
        return list(await asyncio.gather(*map(_check, self._adapters, self._adapters.values())))


async def _check(name: str, adapter: RuntimeAdapter) -> Check:
    try:
        async with asyncio.timeout(_TIMEOUT):
            fingerprint = await adapter.fingerprint()
    except TimeoutError:
        return Check(f"runtime-{name}", f"no answer within {_TIMEOUT:.0f} s")
    if fingerprint.healthy:
        return Check(f"runtime-{name}")
    hint = f" ({fingerprint.hint})" if fingerprint.hint else ""
    return Check(f"runtime-{name}", (fingerprint.problem or "not healthy") + hint)


def _answer(checks: list[Check], query: Query, name: str) -> web.Response:
    failed = any(check.problem for check in checks)
    if not failed and not query.flag("verbose"):
        return respond.body("ok", "text/plain")
    lines = [
        f"[-]{check.name} failed: {check.problem}" if check.problem else f"[+]{check.name} ok"
        for check in checks
    ]
    lines.append(f"{name} check {'failed' if failed else 'passed'}")
    return respond.body("\n".join(lines) + "\n", "text/plain", status=500 if failed else 200)
