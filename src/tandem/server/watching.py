"""Watch: the changes of a selection as they are committed, one JSON line each, until told to end.

A watch begins with the objects as they are (no ``resourceVersion``, or ``0``), or right after a
revision. What cannot be continued (a revision that is compacted, a reader that is too slow) ends with
an ``ERROR`` line that carries 410, upon which clients list again.
"""

from __future__ import annotations

import asyncio
import random

from aiohttp import HttpVersion11, web

from tandem.api.status import status_from_error
from tandem.errors import BadRequest, Expired
from tandem.server import respond
from tandem.server.call import Api, Call
from tandem.server.changes import error_line, lines_for
from tandem.server.reading import parse_revision
from tandem.server.selection import Selection
from tandem.store import RawListing, Watch

BOOKMARK_EVERY = 60.0
"""Seconds between bookmarks: what a client that reconnects may have to read again, at most."""

# Without timeoutSeconds a watch ends after half an hour to an hour, as in Kubernetes, spread so that
# the watches of one moment do not all come back in one moment.
_DEFAULT_SECONDS = 1800
_PIECE = 64 * 1024


async def watch(api: Api, call: Call) -> web.StreamResponse:
    """Answer with changes until the time is up, the client goes or the server stops."""
    return await _Watcher(api, call).answer()


class _Watcher:
    """One watch. Made before the answer begins, so that a bad query is a plain error."""

    def __init__(self, api: Api, call: Call) -> None:
        query = call.query
        self._api = api
        self._request = call.request
        self._selection = Selection(call.kind, call.target, query)
        self._lines = lines_for(call.kind, call.form, query.text("includeObject"))
        self._lines.check()
        self._seconds = query.integer("timeoutSeconds") or 0
        if self._seconds <= 0:
            self._seconds = int(_DEFAULT_SECONDS * (1 + random.random()))
        self._bookmarks = query.flag("allowWatchBookmarks")
        self._revision = parse_revision(query.text("resourceVersion"))
        self._initial = self._revision == 0
        self._marks_initial_end = False
        if "sendInitialEvents" in query:
            if query.text("resourceVersionMatch") != "NotOlderThan":
                raise BadRequest(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting "
                    "resourceVersionMatch to NotOlderThan"
                )
            self._initial = query.flag("sendInitialEvents")
            self._marks_initial_end = self._initial and self._bookmarks
        elif query.text("resourceVersionMatch"):
            raise BadRequest("resourceVersionMatch is forbidden for watch")
        self._response = web.StreamResponse(headers=respond.HEADERS)
        self._first = True

    async def answer(self) -> web.StreamResponse:
        """Send the lines."""
        if self._request.version >= HttpVersion11:
            self._response.enable_chunked_encoding()
        await self._response.prepare(self._request)
        try:
            await self._run()
        except Expired as error:
            await self._response.write(error_line(status_from_error(error)))
        await self._response.write_eof()
        return self._response

    async def _run(self) -> None:
        store, selection = self._api.store, self._selection
        listing = selection.listing(store) if self._initial else None
        since = listing.revision if listing else self._revision or None
        with store.watch(selection.kind.resource, selection.namespace, since) as changes:
            self._api.watches.add(changes)
            try:
                async with asyncio.timeout(self._seconds):
                    if listing is not None:
                        await self._begin(listing)
                    await self._follow(changes)
            except TimeoutError:
                if self._bookmarks and changes.caught_up:
                    await self._response.write(self._lines.bookmark(store.revision))
            finally:
                self._api.watches.discard(changes)

    async def _begin(self, listing: RawListing) -> None:
        piece, size = [], 0
        for data in listing.items:
            line = self._lines.line("ADDED", data, first=self._first)
            self._first = False
            piece.append(line)
            size += len(line)
            if size >= _PIECE:
                await self._response.write(b"".join(piece))
                piece, size = [], 0
        if self._marks_initial_end:
            piece.append(self._lines.bookmark(listing.revision, initial_events_end=True))
        if piece:
            await self._response.write(b"".join(piece))

    async def _follow(self, changes: Watch) -> None:
        while True:
            try:
                async with asyncio.timeout(BOOKMARK_EVERY if self._bookmarks else None):
                    events = await changes.batch()
            except TimeoutError:
                if changes.caught_up:
                    await self._response.write(self._lines.bookmark(self._api.store.revision))
                continue
            if not events:
                return
            piece = []
            for event in events:
                change = self._api.changes.of(event)
                line = change.line(self._selection, self._lines, first=self._first)
                if line is not None:
                    piece.append(line)
                    self._first = False
            if piece:
                await self._response.write(b"".join(piece))
