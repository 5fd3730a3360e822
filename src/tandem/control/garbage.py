"""The garbage loop: what is owned goes with its owners, as the deletion's propagation policy says."""

from __future__ import annotations

from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.queue import WorkQueue
from tandem.store import Key

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Garbage:
    """Background, foreground and orphan deletion, by ``ownerReferences``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._changes = context.changes
        self._kinds = {kind.resource: kind for kind in context.registry}
        self.queue: WorkQueue[Key] = WorkQueue("garbage", self.reconcile)
        context.changes.on(None, self._changed)

    def _changed(self, change: Change) -> None:
        if change.deleted:
            for key in self._changes.owned_by(change.uid):
                self.queue.add(key)
            for reference in change.doc["metadata"].get("ownerReferences") or ():
                owner = self._changes.key_of(reference.get("uid", ""))
                if owner is not None:  # it may be waiting for its last dependent
                    self.queue.add(owner)
            return
        metadata = change.doc["metadata"]
        if metadata.get("deletionTimestamp"):
            finalizers = metadata.get("finalizers") or ()
            if {FOREGROUND, ORPHAN} & set(finalizers) or self._is_released(change.key, change.doc):
                self.queue.add(change.key)
        elif any(
            self._changes.key_of(reference.get("uid", "")) is None
            for reference in metadata.get("ownerReferences") or ()
        ):
            self.queue.add(change.key)

    def _is_released(self, key: Key, doc: Doc) -> bool:
        """Whether nothing holds an object any more that is to go. One with a grace period is removed by
        its own loop."""
        held = doc["metadata"].get("finalizers")
        return not held and self._kinds[key.resource].grace(doc) is None

    async def reconcile(self, key: Key) -> float | None:
        """Take the next step for one object, as an owner and as a dependent."""
        doc = objects.find(self._store, key)
        if doc is None:
            return None
        if get(doc, "metadata.deletionTimestamp"):
            finalizers = doc["metadata"].get("finalizers") or ()
            if ORPHAN in finalizers:
                await self._orphan(key, doc)
            elif FOREGROUND in finalizers:
                await self._delete_dependents_first(key, doc)
            elif self._is_released(key, doc):  # by a daemon that died before it could go
                await objects.remove(self._store, key, doc["metadata"]["uid"])
            return None
        references = doc["metadata"].get("ownerReferences") or []
        absent = [ref for ref in references if self._is_absent(key, ref)]
        if not absent:
            return None
        if len(absent) == len(references):
            await self._delete(key, doc)
        else:
            await self._drop_owners(key, doc, {ref["uid"] for ref in absent})
        return None

    async def _delete(self, key: Key, doc: Doc, policy: str = "Background") -> None:
        """Delete a dependent, and what it owns in turn as ``policy`` says, unless somebody has said
        otherwise already."""
        held = doc["metadata"].get("finalizers") or ()
        options = {} if {FOREGROUND, ORPHAN} & set(held) else {"propagationPolicy": policy}
        kind, uid = self._kinds[key.resource], doc["metadata"]["uid"]
        await objects.request_deletion(self._store, kind, key, uid=uid, options=options)

    async def _orphan(self, key: Key, doc: Doc) -> None:
        uid = doc["metadata"]["uid"]
        for dependent in self._changes.owned_by(uid):
            found = objects.find(self._store, dependent)
            if found is not None:
                await self._drop_owners(dependent, found, {uid})
        await self._release(key, doc, ORPHAN)

    async def _delete_dependents_first(self, key: Key, doc: Doc) -> None:
        uid = doc["metadata"]["uid"]
        waiting = False
        for dependent in self._changes.owned_by(uid):
            found = objects.find(self._store, dependent)
            if found is None:
                continue
            references = found["metadata"].get("ownerReferences") or ()
            own = [ref for ref in references if ref["uid"] == uid]
            if any(ref["uid"] != uid and self._stays(dependent, ref) for ref in references):
                await self._drop_owners(dependent, found, {uid})
            elif own:
                waiting = waiting or any(ref.get("blockOwnerDeletion") for ref in own)
                owns = self._changes.owned_by(found["metadata"]["uid"])
                await self._delete(dependent, found, "Foreground" if owns else "Background")
        # What does not block goes as well, and nobody waits for it.
        if not waiting:
            await self._release(key, doc, FOREGROUND)

    def _stays(self, key: Key, reference: dict[str, Any]) -> bool:
        """Whether an owner is there and will stay."""
        owner = self._changes.key_of(reference["uid"])
        found = objects.find(self._store, owner, reference["uid"]) if owner else None
        if found is None:
            return not self._is_absent(key, reference)
        finalizers = found["metadata"].get("finalizers") or ()
        return not (found["metadata"].get("deletionTimestamp") and FOREGROUND in finalizers)

    async def _release(self, key: Key, doc: Doc, finalizer: str) -> None:
        """Take our finalizer off; an object that nothing else holds goes with it."""
        uid = doc["metadata"]["uid"]

        def without(current: Doc) -> None:
            names = [f for f in current["metadata"].get("finalizers") or () if f != finalizer]
            if names:
                current["metadata"]["finalizers"] = names
            else:
                current["metadata"].pop("finalizers", None)

        changed = await objects.change(self._store, key, uid, without)
        if changed is not None and self._is_released(key, changed):
            await objects.remove(self._store, key, uid)

    async def _drop_owners(self, key: Key, doc: Doc, uids: set[str]) -> None:
        def without(current: Doc) -> None:
            metadata = current["metadata"]
            kept = [r for r in metadata.get("ownerReferences") or () if r.get("uid") not in uids]
            if kept:
                metadata["ownerReferences"] = kept
            else:
                metadata.pop("ownerReferences", None)

        await objects.change(self._store, key, doc["metadata"]["uid"], without)

    def _is_absent(self, key: Key, reference: dict[str, Any]) -> bool:
        """Whether an owner is gone. One of a kind that is not served here is somebody else's matter."""
        kind = self._context.registry.by_kind(reference["apiVersion"], reference["kind"])
        if kind is None:
            return False
        namespace = key.namespace if kind.namespaced else ""
        owner = Key(kind.resource, namespace, reference["name"])
        return objects.find(self._store, owner, reference["uid"]) is None
