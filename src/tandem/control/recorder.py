"""Events: what the loops tell people, written beside the loops and never in their way.

The same thing said again about the same object raises a count instead of making another Event. Events
go after an hour, and there are never more than a fixed number of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime

from tandem.api.kind import Doc
from tandem.api.meta import get, new_uid, now, object_reference, parse_time
from tandem.control.changes import Change, Changes
from tandem.errors import NotFound, TandemError
from tandem.store import Key, Store

logger = logging.getLogger(__name__)

RESOURCE = "events"
TTL_SECONDS = 3600.0
MAX_EVENTS = 10_000
"""Most Events that are kept; the oldest go first."""

MAX_UNWRITTEN = 4096
"""Most Events that wait to be written; beyond that the newest are dropped, and the log says so."""

_REMEMBERED = 4096
_MESSAGE_LIMIT = 1024
_SWEEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Fact:
    """One thing to say."""

    about: tuple[tuple[str, str], ...]
    type: str
    reason: str
    message: str
    time: str

    @property
    def identity(self) -> tuple[object, ...]:
        """What must be the same for two facts to be one Event with a count."""
        about = tuple(pair for pair in self.about if pair[0] != "resourceVersion")
        return about, self.type, self.reason, self.message


class Recorder:
    """Writes Events in the name of one component. ``start`` and ``close`` bound its life."""

    def __init__(
        self, store: Store, changes: Changes, *, host: str, component: str = "tandem"
    ) -> None:
        self._store = store
        self._host = host
        self._component = component
        self._unwritten: deque[_Fact] = deque()
        self._wake = asyncio.Event()
        self._recent: OrderedDict[tuple[object, ...], Key] = OrderedDict()
        # Oldest first, by when each was first seen; a repetition is noticed when its turn comes.
        self._ages: deque[tuple[float, Key]] = deque()
        self._aging: set[Key] = set()
        self._stamp = 0
        self._tasks: list[asyncio.Task[None]] = []
        changes.on(RESOURCE, self._seen)

    def normal(self, doc: Doc, reason: str, message: str, *, field_path: str = "") -> None:
        """Say that something went as it should."""
        self._record(doc, "Normal", reason, message, field_path)

    def warning(self, doc: Doc, reason: str, message: str, *, field_path: str = "") -> None:
        """Say that something went wrong."""
        self._record(doc, "Warning", reason, message, field_path)

    def start(self) -> None:
        """Begin to write."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._write_all(), name="events"),
            loop.create_task(self._sweep(), name="events-sweep"),
        ]

    async def close(self) -> None:
        """Write what waits, then stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._flush()

    def _record(self, doc: Doc, type_: str, reason: str, message: str, field_path: str) -> None:
        about = object_reference(doc)
        if field_path:
            about["fieldPath"] = field_path
        if len(self._unwritten) >= MAX_UNWRITTEN:
            logger.warning("event dropped, too many are waiting: %s %s", reason, message)
            return
        if len(message) > _MESSAGE_LIMIT:
            message = message[: _MESSAGE_LIMIT - 1] + "…"
        fact = _Fact(tuple(about.items()), type_, reason, message, now())
        self._unwritten.append(fact)
        self._wake.set()

    async def _write_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        while self._unwritten:
            # Together, so that a burst is one commit of the store and not as many.
            batch = [self._unwritten.popleft() for _ in range(min(64, len(self._unwritten)))]
            distinct = {fact.identity: fact for fact in batch}
            counts = dict.fromkeys(distinct, 0)
            for fact in batch:
                counts[fact.identity] += 1
            await asyncio.gather(
                *(self._write(fact, counts[identity]) for identity, fact in distinct.items())
            )

    async def _write(self, fact: _Fact, count: int) -> None:
        try:
            if key := self._recent.get(fact.identity):
                self._recent.move_to_end(fact.identity)
                if await self._repeat(key, fact, count):
                    return
            doc = self._event(fact, count)
            key = Key(RESOURCE, doc["metadata"]["namespace"], doc["metadata"]["name"])
            self._recent[fact.identity] = key
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
            await self._store.create(key, doc)
        except TandemError as error:
            # An Event is a courtesy: what it tells of has happened all the same.
            logger.warning("event not written: %s %s: %s", fact.reason, fact.message, error)

    async def _repeat(self, key: Key, fact: _Fact, count: int) -> bool:
        def again(doc: Doc) -> Doc:
            doc["count"] = int(doc.get("count") or 1) + count
            doc["lastTimestamp"] = fact.time
            return doc

        try:
            await self._store.mutate(key, again)
        except NotFound:
            return False
        return True

    def _event(self, fact: _Fact, count: int) -> Doc:
        about = dict(fact.about)
        namespace = about.get("namespace") or "default"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{about['name']}.{self._next_stamp():x}",
                "namespace": namespace,
                "uid": new_uid(),
                "creationTimestamp": fact.time,
            },
            "involvedObject": about,
            "type": fact.type,
            "reason": fact.reason,
            "message": fact.message,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": fact.time,
            "lastTimestamp": fact.time,
            "eventTime": None,
            "count": count,
        }

    def _next_stamp(self) -> int:
        """Unique, and growing: Events of one second are then listed in the order they happened."""
        self._stamp = max(self._stamp + 1, time.time_ns())
        return self._stamp

    # -- age ---------------------------------------------------------------------------------

    def _seen(self, change: Change) -> None:
        """Every Event counts, whoever wrote it."""
        if not change.deleted and change.key not in self._aging:
            self._aging.add(change.key)
            self._ages.append((_last_seen(change.doc), change.key))

    async def _sweep(self) -> None:
        while True:
            await self.sweep()
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Delete the Events that are too old, or too many."""
        oldest_kept = datetime.now(UTC).timestamp() - TTL_SECONDS
        while self._ages and (self._ages[0][0] < oldest_kept or len(self._ages) > MAX_EVENTS):
            excess = len(self._ages) > MAX_EVENTS
            _, key = self._ages.popleft()
            self._aging.discard(key)
            try:
                doc = self._store.get(key)
                last = _last_seen(doc)
                if last >= oldest_kept and not excess:
                    self._aging.add(key)
                    self._ages.append((last, key))
                    continue
                await self._store.delete(key)
            except NotFound:
                continue
            except TandemError as error:
                logger.warning("an old event could not be removed: %s", error)
                return


def _last_seen(doc: Doc) -> float:
    text = doc.get("lastTimestamp") or get(doc, "metadata.creationTimestamp") or now()
    try:
        return parse_time(text).timestamp()
    except ValueError:
        return datetime.now(UTC).timestamp()
