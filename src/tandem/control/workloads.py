"""What the loops of Pods and of machines share: which objects to look at, and when.

A workload is known in its runtime by its object's UID, so that an object's item in the queue, its
workload, and what is remembered of either all go by the same name. Nothing here is needed to go on
after a restart: the store and the runtime are listed, and everything is looked at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tandem.api.kind import Doc
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.queue import WorkQueue
from tandem.runtimes.adapter import RuntimeStatus
from tandem.store import Key

logger = logging.getLogger(__name__)

PULL_SHOWN_SECONDS = 2.0
"""How long ErrImagePull is shown before it becomes ImagePullBackOff."""


class Item(NamedTuple):
    """An object by name and identity: a successor of the same name is another item."""

    key: Key
    uid: str

    def __str__(self) -> str:
        return f"{self.key.namespace}/{self.key.name}"


class Workloads:
    """The objects of one resource, each the owner of the workload that has its UID.

    ``reconcile`` takes the next step for an item. ``concerns`` says what of an object, beyond its
    deletion and its finalizers, makes it worth a look: the loop's own writes must not change it.
    ``interrupt`` is called with the UID when an object is deleted or its deletion is moved, because
    what is under way for it is not wanted any more. ``awaited`` are the resources that an object may
    have to wait for (:meth:`wait_for`), and ``appeared`` is called with the UID when one has come.
    """

    def __init__(
        self,
        context: Context,
        resource: str,
        reconcile: Callable[[Item], Awaitable[float | None]],
        *,
        concerns: Callable[[Doc], tuple[Any, ...]],
        interrupt: Callable[[str], None],
        awaited: Iterable[str],
        appeared: Callable[[str], None],
    ) -> None:
        self.queue: WorkQueue[Item] = WorkQueue(resource.partition(".")[0], reconcile)
        self._context = context
        self._resource = resource
        self._concerns = concerns
        self._interrupt = interrupt
        self._appeared = appeared
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._waiting: dict[Key, set[Item]] = {}
        context.changes.on(resource, self._changed)
        for name in awaited:
            context.changes.on(name, self._awaited_changed)

    # -- what wakes it -----------------------------------------------------------------------

    def look(self, uid: str) -> None:
        """Have the object with this UID looked at, if it is one of ours."""
        key = self._context.changes.key_of(uid)
        if key is not None and key.resource == self._resource:
            self.queue.add(Item(key, uid))

    def look_at_all(self) -> None:
        """Compare every object with the runtime."""
        for key in self._context.changes.keys(self._resource):
            if uid := self._context.changes.uid_of(key):
                self.queue.add(Item(key, uid))

    def listed(self, statuses: Sequence[RuntimeStatus]) -> None:
        """Events may have been missed: look at every object, and at every workload without one."""
        for status in statuses:
            known = self._context.changes.key_of(status.spec_id) is not None
            if not known and self._context.made(status):
                logger.info("removing workload %s, which nobody claims", status.spec_id)
                self.queue.add(Item(Key(self._resource, "", status.spec_id), status.spec_id))
        self.look_at_all()

    def wait_for(self, key: Key, item: Item) -> None:
        """Look at ``item`` again when the object at ``key`` changes."""
        self._waiting.setdefault(key, set()).add(item)

    def _awaited_changed(self, change: Change) -> None:
        for item in self._waiting.pop(change.key, ()):
            self._appeared(item.uid)
            self.queue.add(item)

    def _changed(self, change: Change) -> None:
        item = Item(change.key, change.uid)
        if change.deleted:
            self._seen.pop(change.uid, None)
            self._interrupt(change.uid)
            self.queue.add(item)
            return
        metadata = change.doc["metadata"]
        signature = (
            metadata.get("deletionTimestamp"),
            tuple(metadata.get("finalizers") or ()),
            *self._concerns(change.doc),
        )
        before = self._seen.get(change.uid)
        if signature == before:
            return
        self._seen[change.uid] = signature
        if before is not None and signature[0] != before[0]:
            self._interrupt(change.uid)
        self.queue.add(item)
