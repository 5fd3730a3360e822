"""What the loops know of the store: every change, once, and who owns what.

One watch over the whole store feeds all loops. It keeps no copy of the objects, which the store has in
memory anyway: only an index of identities and owners, a few hundred bytes for each object.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from tandem.api.kind import Doc
from tandem.errors import Expired
from tandem.store import Key, Store

logger = logging.getLogger(__name__)

_decode: Callable[[bytes], Doc] = msgspec.json.Decoder(Doc).decode

Handler = Callable[["Change"], None]


@dataclass(frozen=True, slots=True)
class Change:
    """An object as it is now; with ``deleted``, as it was last."""

    key: Key
    doc: Doc
    deleted: bool = False

    @property
    def uid(self) -> str:
        """The object's identity."""
        return str(self.doc["metadata"].get("uid", ""))


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of an object."""

    uid: str
    owners: tuple[str, ...]


class Changes:
    """Feeds :class:`Change` to the handlers of each resource, the existing objects first."""

    def __init__(self, store: Store, resources: Iterable[str]) -> None:
        self._store = store
        self._resources = tuple(resources)
        self._handlers: dict[str | None, list[Handler]] = defaultdict(list)
        self._known: dict[Key, Known] = {}
        self._by_uid: dict[str, Key] = {}
        self._owned: dict[str, set[Key]] = {}
        self._task: asyncio.Task[None] | None = None

    def on(self, resource: str | None, handler: Handler) -> None:
        """Call ``handler`` for every change to ``resource``, with None to anything."""
        self._handlers[resource].append(handler)

    def key_of(self, uid: str) -> Key | None:
        """Where the object with this UID lives, None when there is none."""
        return self._by_uid.get(uid)

    def uid_of(self, key: Key) -> str | None:
        """The UID of the object at ``key``."""
        known = self._known.get(key)
        return known.uid if known else None

    def owned_by(self, uid: str) -> list[Key]:
        """The objects that name this UID among their owners."""
        return list(self._owned.get(uid, ()))

    def owners_of(self, key: Key) -> tuple[str, ...]:
        """The UIDs that the object at ``key`` names as its owners."""
        known = self._known.get(key)
        return known.owners if known else ()

    def keys(self, resource: str) -> list[Key]:
        """Every object of ``resource``."""
        return [key for key in self._known if key.resource == resource]

    def start(self) -> None:
        """Tell the handlers of everything there is, then follow the changes."""
        revision = self._list()
        self._task = asyncio.get_running_loop().create_task(self._follow(revision), name="changes")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _list(self) -> int:
        revision = self._store.revision
        gone = set(self._known)
        changes = []
        for resource in self._resources:
            for doc in self._store.list(resource).items:
                metadata = doc["metadata"]
                key = Key(resource, metadata.get("namespace", ""), metadata["name"])
                gone.discard(key)
                self._remember(key, doc)
                changes.append(Change(key, doc))
        for key in gone:
            stub = {"metadata": {**_names(key), "uid": self._known[key].uid}}
            self._forget(key)
            self._tell(Change(key, stub, deleted=True))
        # Told only now, so that every handler finds the index complete.
        for change in changes:
            self._tell(change)
        return revision

    async def _follow(self, revision: int) -> None:
        while True:
            try:
                async with self._store.watch(None, since=revision) as watch:
                    async for event in watch:
                        self._apply(event.key, event.data, deleted=event.type == "DELETED")
                return  # the store is closing
            except Expired:
                logger.warning("the loops fell behind the store's history; listing again")
                revision = self._list()

    def _apply(self, key: Key, data: bytes, *, deleted: bool) -> None:
        if key.resource not in self._resources:
            return
        doc = _decode(data)
        if deleted:
            self._forget(key)
        else:
            self._remember(key, doc)
        self._tell(Change(key, doc, deleted))

    def _tell(self, change: Change) -> None:
        for handler in (*self._handlers[change.key.resource], *self._handlers[None]):
            try:
                handler(change)
            except Exception:
                # One loop's mistake must not blind the others.
                logger.exception("a handler failed for %s", change.key)

    def _remember(self, key: Key, doc: Doc) -> None:
        metadata = doc["metadata"]
        owners = tuple(
            ref["uid"] for ref in metadata.get("ownerReferences") or () if ref.get("uid")
        )
        known = Known(str(metadata.get("uid", "")), owners)
        old = self._known.get(key)
        if old == known:
            return
        if old is not None:
            self._forget(key)
        self._known[key] = known
        self._by_uid[known.uid] = key
        for owner in owners:
            self._owned.setdefault(owner, set()).add(key)

    def _forget(self, key: Key) -> None:
        known = self._known.pop(key, None)
        if known is None:
            return
        self._by_uid.pop(known.uid, None)
        for owner in known.owners:
            if keys := self._owned.get(owner):
                keys.discard(key)
                if not keys:
                    del self._owned[owner]


def _names(key: Key) -> dict[str, str]:
    names = {"name": key.name}
    return {**names, "namespace": key.namespace} if key.namespace else names
