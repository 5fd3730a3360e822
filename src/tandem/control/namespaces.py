"""The namespace loop: the ones that always exist, and emptying the ones that are to go."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.rest import prepare_create
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.queue import WorkQueue
from tandem.errors import AlreadyExists
from tandem.store import Key

RESOURCE = "namespaces"
ALWAYS = ("default", "kube-system", "kube-public")

_SETTLE_SECONDS = 0.2
"""Objects go in bursts; a namespace is looked at once after each."""


class Namespaces:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._kind = context.kind(RESOURCE)
        self.queue: WorkQueue[str] = WorkQueue("namespace", self.reconcile)
        self._going: set[str] = set()
        context.changes.on(RESOURCE, self._changed)
        context.changes.on(None, self._object_changed)

    async def ensure(self) -> None:
        """Make the namespaces that everybody expects."""
        for name in ALWAYS:
            doc = prepare_create(self._kind, {"metadata": {"name": name}}, namespace="").doc
            try:
                await self._store.create(Key(RESOURCE, "", name), doc)
            except AlreadyExists:
                continue

    def _changed(self, change: Change) -> None:
        marked = bool(get(change.doc, "metadata.deletionTimestamp"))
        if change.deleted or marked:
            # Also when it was removed by force: nothing may stay behind in a namespace that is not.
            self._going.add(change.key.name)
            self.queue.add(change.key.name)

    def _object_changed(self, change: Change) -> None:
        if change.key.namespace in self._going:
            self.queue.add_after(change.key.namespace, _SETTLE_SECONDS)

    async def reconcile(self, name: str) -> float | None:
        """Delete what is in a namespace, and then the namespace."""
        key = Key(RESOURCE, "", name)
        doc = objects.find(self._store, key)
        if doc is not None and not get(doc, "metadata.deletionTimestamp"):
            self._going.discard(name)  # made again meanwhile
            return None
        if doc is not None and get(doc, "status.phase") != "Terminating":
            await objects.change(self._store, key, doc["metadata"]["uid"], _terminating)
        left = 0
        for kind in self._context.registry:
            if not kind.namespaced:
                continue
            for item in self._store.list(kind.resource, name).items:
                left += 1
                await objects.request_deletion(
                    self._store,
                    kind,
                    Key(kind.resource, name, item["metadata"]["name"]),
                    uid=item["metadata"]["uid"],
                    options={"propagationPolicy": "Background"},
                )
        if left:
            return None  # each object that goes brings us back
        self._going.discard(name)
        if doc is not None:
            await objects.remove(self._store, key, doc["metadata"]["uid"])
        return None


def _terminating(doc: Doc) -> None:
    doc.setdefault("status", {})["phase"] = "Terminating"
