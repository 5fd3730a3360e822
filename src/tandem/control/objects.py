"""Writing objects from a loop: by UID, only when something changed, through the same rules as clients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from tandem.api.kind import Doc, Kind
from tandem.api.rest import prepare_delete
from tandem.errors import Conflict, NotFound
from tandem.store import Key, Store

_ATTEMPTS = 8
"""Tries against concurrent writers before a loop gives up and comes back later."""


def find(store: Store, key: Key, uid: str = "") -> Doc | None:
    """The object, or None when it is gone or another one has taken its name."""
    try:
        doc = store.get(key)
    except NotFound:
        return None
    if uid and doc["metadata"].get("uid") != uid:
        return None
    return doc


async def change(store: Store, key: Key, uid: str, alter: Callable[[Doc], None]) -> Doc | None:
    """Alter the newest state of the object in place; None when it is gone. Unchanged: no write."""

    def checked(doc: Doc) -> Doc:
        if uid and doc["metadata"].get("uid") != uid:
            raise NotFound(f"{key.resource} {key.name!r} is another object by now")
        alter(doc)
        return doc

    try:
        return await store.mutate(key, checked)
    except NotFound:
        return None


async def request_deletion(
    store: Store,
    kind: Kind,
    key: Key,
    *,
    uid: str = "",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Delete as a client would: at once, or by a mark that the object's own loop acts upon."""
    for _ in range(_ATTEMPTS):
        doc = find(store, key, uid)
        if doc is None:
            return
        decision = prepare_delete(kind, doc, options)
        try:
            if decision.remove_now:
                version = doc["metadata"]["resourceVersion"]
                await store.delete(key, resource_version=version)
            elif decision.doc is not doc:
                await store.update(key, decision.doc)
            return
        except NotFound:
            return
        except Conflict:
            await _settled(store, key)
    raise Conflict(f"{key.resource} {key.name!r} is being changed too often to be deleted")


async def remove(store: Store, key: Key, uid: str) -> bool:
    """Take an object that was marked for deletion, and is done, out of the store.

    False when finalizers still hold it; True when it is gone.
    """
    for _ in range(_ATTEMPTS):
        doc = find(store, key, uid)
        if doc is None:
            return True
        if doc["metadata"].get("finalizers"):
            return False
        try:
            await store.delete(key, resource_version=doc["metadata"]["resourceVersion"])
            return True
        except NotFound:
            return True
        except Conflict:
            await _settled(store, key)
    raise Conflict(f"{key.resource} {key.name!r} is being changed too often to be removed")


async def _settled(store: Store, key: Key) -> None:
    """Wait until the writes under way are done, and what is read next has them in it."""
    with contextlib.suppress(NotFound):
        await store.mutate(key, lambda _doc: None)
