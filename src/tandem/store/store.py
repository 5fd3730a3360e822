"""The store: checked writes in, durable objects and ordered changes out.

Memory and file have one job each. Every read is answered from memory, where an object is its encoded
JSON; the file is only written, and read once when the store opens. A write goes this way:

1. On the event loop, without a pause, it is checked against the object as it will be when the writes
   ahead of it are done, gets the next revision, and joins the queue.
2. One batch at a time goes to the writer thread, which commits it as one transaction (group commit:
   what arrives while a batch is on its way to the disk makes the next batch).
3. Back on the loop the batch becomes visible, in order: memory, watches, then the waiting callers.

So a reader or a watch never sees what could still be lost. When a commit fails, that batch and
everything checked on top of it fail with ``Unavailable``, and memory stays as the file is.

All methods belong to the event loop on which the store was opened.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import msgspec

from tandem.errors import AlreadyExists, Conflict, Expired, NotFound, Unavailable
from tandem.store.database import Database, Row
from tandem.store.types import Doc, EventType, Key, Listing, RawListing, StoreEvent
from tandem.store.watch import Log, Watch

MAX_BATCH = 512
"""Most writes in one transaction: bounds how long a watch and the loop wait for one batch."""

HISTORY_EVENTS = 10_000
HISTORY_BYTES = 8 * 1024 * 1024
"""How much each resource's log of changes holds, and so how far back a watch may resume."""


class _Metadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Head(msgspec.Struct):
    """The part of an object that label selectors look at; the rest is skipped, not decoded."""

    metadata: _Metadata


_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Doc] = msgspec.json.Decoder(Doc).decode
_decode_head = msgspec.json.Decoder(_Head).decode


class _Write:
    """A change on its way: checked, numbered, not yet durable."""

    __slots__ = ("data", "done", "id", "key", "previous", "revision", "type")

    def __init__(
        self,
        type_: EventType,
        key: Key,
        revision: int,
        id_: int,
        data: bytes,
        previous: bytes | None,
        done: asyncio.Future[None],
    ) -> None:
        self.type: EventType = type_
        self.key = key
        self.revision = revision
        self.id = id_
        self.data = data
        self.previous = previous
        self.done = done

    @property
    def after(self) -> Row | None:
        """The object once this is done, None when it is gone."""
        if self.type == "DELETED":
            return None
        return Row(self.id, self.key, self.revision, self.data)


class _Table:
    """The committed objects of one resource, and their keys in order."""

    __slots__ = ("keys", "rows")

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.keys: list[tuple[str, str]] = []


class Store:
    """See the module's docstring. Made by :meth:`open`; usable as an async context manager."""

    def __init__(
        self, executor: ThreadPoolExecutor, *, history_events: int, history_bytes: int
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = executor
        self._database: Database | None = None
        self._history = (history_events, history_bytes)
        self._tables: dict[str, _Table] = {}
        self._logs: dict[str | None, Log] = {}
        self._floor = 0
        self._revision = 0
        self._assigned = 0  # the newest revision given to a write, committed or not
        self._ahead: dict[Key, _Write] = {}  # the newest uncommitted write to each key
        self._queue: list[_Write] = []
        self._committing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path | None,
        *,
        history_events: int = HISTORY_EVENTS,
        history_bytes: int = HISTORY_BYTES,
    ) -> Store:
        """Open the file, making it when it is missing; None keeps everything in memory.

        Raises ``StoreUnreadable`` (damaged, foreign, or of a newer format; it is left as it is) and
        ``Unavailable`` (in use by another process, no permission).
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        store = cls(executor, history_events=history_events, history_bytes=history_bytes)
        try:
            store._database = await store._loop.run_in_executor(executor, Database, path)
            revision, rows = await store._loop.run_in_executor(executor, store._database.load)
        except BaseException:
            await store.close()
            raise
        store._revision = store._assigned = store._floor = revision
        for row in rows:
            table = store._table(row.key.resource)
            table.rows[row.key[1:]] = row
        for table in store._tables.values():
            table.keys = sorted(table.rows)
        return store

    async def close(self) -> None:
        """Finish the writes that are under way, end every watch, close the file. Idempotent."""
        while self._committing is not None:
            await asyncio.wait([self._committing])
        for log in self._logs.values():
            log.end_watches()
        database, self._database = self._database, None
        if database is not None:
            await self._loop.run_in_executor(self._executor, database.close)
        self._executor.shutdown()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        await self.close()

    # Reading ---------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The newest committed revision; survives restarts and never goes back."""
        return self._revision

    def get(self, key: Key) -> Doc:
        """A fresh document. Raises ``NotFound``."""
        return _decode(self.get_bytes(key))

    def get_bytes(self, key: Key) -> bytes:
        """The document as JSON. Raises ``NotFound``."""
        row = self._committed(key)
        if row is None:
            raise _not_found(key)
        return row.data

    def list(self, resource: str, namespace: str | None = None) -> Listing:
        """Every object of ``resource``, in ``namespace`` unless that is None, freshly decoded."""
        return Listing(
            self._revision, [_decode(row.data) for row in self._rows(resource, namespace)]
        )

    def list_bytes(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        labels: Callable[[Mapping[str, str]], bool] | None = None,
    ) -> RawListing:
        """As :meth:`list`, as JSON and without decoding it; ``labels`` leaves out the objects whose
        labels it refuses."""
        rows = self._rows(resource, namespace)
        items = [row.data for row in rows if labels is None or _labelled(row.data, labels)]
        return RawListing(self._revision, items)

    def watch(
        self, resource: str | None, namespace: str | None = None, since: int | None = None
    ) -> Watch:
        """Changes to ``resource`` (None: to anything) after revision ``since``, or from now on.

        Raises ``Expired`` when changes after ``since`` are no longer known, and for a revision this
        store has not reached (it was reset): list again. Close the watch when done.
        """
        if since is not None and since > self._revision:
            raise Expired(
                f"resource version {since} is newer than the store ({self._revision})",
                hint="The store was reset: list again, and watch from the list's resourceVersion.",
            )
        return Watch(self._log(resource), namespace, since)

    # Writing ---------------------------------------------------------------------------------

    async def create(self, key: Key, doc: Doc) -> Doc:
        """Store a new object; returns it with its ``resourceVersion``. Raises ``AlreadyExists``."""
        if self._current(key) is not None:
            raise AlreadyExists(
                f'{key.resource} "{key.name}" already exists', details=_details(key)
            )
        return await self._write("ADDED", key, doc, None)

    async def update(self, key: Key, doc: Doc) -> Doc:
        """Replace an object; a document that changes nothing is not written.

        Raises ``NotFound``, and ``Conflict`` when ``metadata.resourceVersion`` is set and the object
        has another one by now.
        """
        row = self._existing(key)
        wanted = (doc.get("metadata") or {}).get("resourceVersion")
        if wanted and wanted != str(row.revision):
            raise Conflict(
                f'Operation cannot be fulfilled on {key.resource} "{key.name}": the object has been '
                "modified; please apply your changes to the latest version and try again",
                details=_details(key),
            )
        return await self._write("MODIFIED", key, doc, row)

    async def mutate(self, key: Key, change: Callable[[Doc], Doc | None]) -> Doc:
        """Apply ``change`` to the newest state of an object, with no other write in between.

        ``change`` gets a fresh document, which it may alter and return; None means leave it as it is.
        It must not wait. Raises ``NotFound`` and whatever ``change`` raises.
        """
        row = self._existing(key)
        doc = change(_decode(row.data))
        return await self._write("MODIFIED", key, _decode(row.data) if doc is None else doc, row)

    async def delete(
        self, key: Key, *, resource_version: str | None = None, uid: str | None = None
    ) -> Doc:
        """Remove an object; returns its last state. Raises ``NotFound``, and ``Conflict`` when it is
        not at ``resource_version`` or is another one than ``uid``."""
        row = self._existing(key)
        doc = _decode(row.data)
        if uid and uid != doc["metadata"].get("uid"):
            raise Conflict(
                f"Precondition failed: UID in precondition: {uid}, "
                f"UID in object meta: {doc['metadata'].get('uid')}",
                details=_details(key),
            )
        if resource_version and resource_version != str(row.revision):
            raise Conflict(
                f"Precondition failed: ResourceVersion in precondition: {resource_version}, "
                f"ResourceVersion in object meta: {row.revision}",
                details=_details(key),
            )
        return await self._write("DELETED", key, doc, row)

    async def _write(self, type_: EventType, key: Key, doc: Doc, old: Row | None) -> Doc:
        """Number the change and wait until it is durable. Nothing may wait before it is queued."""
        if self._database is None:
            raise Unavailable("the store is closed")
        if type_ == "MODIFIED" and old is not None:
            doc = _at_revision(doc, old.revision)
            if _same(_encode(doc), old.data):
                if ahead := self._ahead.get(key):  # unchanged against a state not yet durable
                    await asyncio.shield(ahead.done)
                return doc
        self._assigned += 1
        doc = _at_revision(doc, self._assigned)
        write = _Write(
            type_,
            key,
            self._assigned,
            old.id if old else self._assigned,
            _encode(doc),
            old.data if old else None,
            self._loop.create_future(),
        )
        self._ahead[key] = write
        self._queue.append(write)
        if self._committing is None:
            self._committing = self._loop.create_task(self._commit_queue(), name="store-commit")
        # Shielded: a caller that gives up does not take back what others already build upon.
        await asyncio.shield(write.done)
        return doc

    async def _commit_queue(self) -> None:
        assert self._database is not None
        try:
            while batch := self._queue[:MAX_BATCH]:
                del self._queue[:MAX_BATCH]
                # Only the last write to each row reaches the file; watches still see them all.
                last = {write.id: write for write in batch}
                puts = [row for write in last.values() if (row := write.after)]
                deletes = [write.id for write in last.values() if write.type == "DELETED"]
                try:
                    await self._loop.run_in_executor(
                        self._executor, self._database.commit, batch[-1].revision, puts, deletes
                    )
                except Unavailable as error:
                    self._fail(batch, error)
                except Exception as error:  # whatever it is, nobody may wait for ever
                    self._fail(batch, Unavailable(f"the store failed: {error!r}"))
                else:
                    for write in batch:
                        self._publish(write)
        finally:
            self._committing = None

    def _publish(self, write: _Write) -> None:
        if self._ahead.get(write.key) is write:
            del self._ahead[write.key]
        table, name = self._table(write.key.resource), write.key[1:]
        if (row := write.after) is None:
            del table.rows[name]
            del table.keys[bisect_left(table.keys, name)]
        else:
            if name not in table.rows:
                insort(table.keys, name)
            table.rows[name] = row
        self._revision = write.revision
        event = StoreEvent(write.type, write.key, write.revision, write.data, write.previous)
        self._log(write.key.resource).append(event)
        self._log(None).append(event)
        if not write.done.done():
            write.done.set_result(None)

    def _fail(self, batch: Sequence[_Write], error: Unavailable) -> None:
        """Fail a batch and all that was checked on top of it."""
        failed, self._queue = [*batch, *self._queue], []
        self._ahead.clear()
        for write in failed:
            if not write.done.done():
                write.done.set_exception(Unavailable(error.message, hint=error.hint))
                write.done.exception()  # a caller that gave up must not make the loop complain

    # Looking things up -----------------------------------------------------------------------

    def _committed(self, key: Key) -> Row | None:
        table = self._tables.get(key.resource)
        return table.rows.get(key[1:]) if table else None

    def _current(self, key: Key) -> Row | None:
        """The object as it will be when the writes under way are done."""
        write = self._ahead.get(key)
        return write.after if write else self._committed(key)

    def _existing(self, key: Key) -> Row:
        row = self._current(key)
        if row is None:
            raise _not_found(key)
        return row

    def _rows(self, resource: str, namespace: str | None = None) -> Iterator[Row]:
        table = self._tables.get(resource)
        if table is None:
            return
        start, end = 0, len(table.keys)
        if namespace is not None:
            start = bisect_left(table.keys, (namespace, ""))
            # No namespace holds a NUL, so this is the least key after all of this one's.
            end = bisect_left(table.keys, (namespace + "\0", ""))
        for name in table.keys[start:end]:
            yield table.rows[name]

    def _table(self, resource: str) -> _Table:
        table = self._tables.get(resource)
        if table is None:
            table = self._tables[resource] = _Table()
        return table

    def _log(self, resource: str | None) -> Log:
        log = self._logs.get(resource)
        if log is None:
            events, bytes_ = self._history
            log = self._logs[resource] = Log(self._floor, max_events=events, max_bytes=bytes_)
        return log


def _at_revision(doc: Doc, revision: int) -> Doc:
    """The document with its ``resourceVersion``; the caller's own is left alone."""
    return {**doc, "metadata": {**(doc.get("metadata") or {}), "resourceVersion": str(revision)}}


def _same(new: bytes, old: bytes) -> bool:
    """Whether both say the same; the order of fields, which says nothing, leaves the length alone."""
    return new == old or (len(new) == len(old) and _decode(new) == _decode(old))


def _labelled(data: bytes, matches: Callable[[Mapping[str, str]], bool]) -> bool:
    return matches(_decode_head(data).metadata.labels or {})


def _details(key: Key) -> dict[str, str]:
    plural, _, group = key.resource.partition(".")
    return {"name": key.name, "group": group, "kind": plural}


def _not_found(key: Key) -> NotFound:
    return NotFound(f'{key.resource} "{key.name}" not found', details=_details(key))
