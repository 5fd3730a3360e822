"""Noticing that a registry sends nothing any more. containerd itself waits for it without end."""

from __future__ import annotations

import asyncio
import time

from tandem.errors import TandemError
from tandem.runtimes.cri._gen import containerd_content_pb2 as content
from tandem.runtimes.cri.client import LIST_INGESTS, CriClient

_LOOKS = 12  # in each span that counts as a stall


async def until_stalled(client: CriClient, seconds: float) -> None:
    """Return once a pull that begins now has stalled: nothing of what is being fetched has grown for
    ``seconds``, or nothing has begun to be fetched in twice that. Unpacking, which follows, is no
    stall however long it takes. Never returns where the runtime does not tell."""
    began = grown = time.monotonic()
    fetched: dict[str, int] = {}
    seen = False
    while True:
        await asyncio.sleep(seconds / _LOOKS)
        now = time.monotonic()
        try:
            found = await client.call(LIST_INGESTS, content.ListStatusesRequest())
        except TandemError:
            # The pull's own failure tells, if the runtime is away; and if it has no such call, nobody.
            await asyncio.Event().wait()
            raise
        latest = {item.ref: item.offset for item in found.statuses}
        if latest != fetched:
            fetched, grown = latest, now
        seen = seen or bool(latest)
        if latest and now - grown >= seconds:
            return
        if not seen and now - began >= 2 * seconds:
            return
