"""The scheduler's part: which Pods the one node takes, and what keeps the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import condition, get
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.pods import scheduling
from tandem.control.pods.events import PodEvents
from tandem.control.pods.status import FINAL, Facts, Outcome, pod_status, unscheduled
from tandem.control.pods.volumes import unbound
from tandem.control.workloads import Item
from tandem.host import nodefacts
from tandem.store import Key

SCHEDULERS = ("", "default-scheduler")
"""The names under which Pods ask for this scheduler. One that asks for another waits for its binding."""


class Placement:
    """Gives Pods their node. ``again`` is called with every Pod that may fit by now."""

    def __init__(self, context: Context, again: Callable[[Item], None]) -> None:
        self._context = context
        self._again = again
        self._events = PodEvents(context.recorder)
        self._load = scheduling.Load()
        self._counted: dict[str, tuple[Any, ...]] = {}
        self._waiting: set[Item] = set()
        self._node: Doc | None = None
        self._apparmor = nodefacts.apparmor()
        context.changes.on("pods", self._pod_changed)
        context.changes.on("nodes", self._node_changed)
        for resource in ("persistentvolumeclaims", "persistentvolumes"):
            context.changes.on(resource, lambda _: self._try_again())

    # -- what may make room ------------------------------------------------------------------

    def _pod_changed(self, change: Change) -> None:
        """Keep up what the node's Pods hold; their many changes of status mostly say nothing new."""
        pod = change.doc
        if change.deleted or get(pod, "status.phase") in FINAL:
            if self._counted.pop(change.uid, None) is not None:
                self._load.drop(change.uid)
                self._try_again()
            return
        if get(pod, "spec.nodeName") != self._context.node.name:
            return
        metadata = pod["metadata"]
        signature = (metadata.get("generation"), metadata.get("labels"))
        if self._counted.get(change.uid) != signature:
            self._counted[change.uid] = signature
            self._load.put(pod)
            self._try_again()

    def _node_changed(self, change: Change) -> None:
        if change.key.name == self._context.node.name:
            self._node = None if change.deleted else change.doc
            self._try_again()

    def _try_again(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for item in waiting:
            self._again(item)

    # -- placing -----------------------------------------------------------------------------

    async def place(self, item: Item, pod: Doc) -> Doc | None:
        """Give the Pod, which has none, its node; None when it has to wait."""
        name = self._context.node.name
        if scheduling.gated(pod):
            await self._hold(item, "SchedulingGated", scheduling.GATED)
            return None
        if (get(pod, "spec.schedulerName") or "") not in SCHEDULERS:
            return None
        node = self._node or self._find(Key("nodes", "", name))
        missing = unbound(pod, self._find)
        if node is None:
            problem: str | None = "no nodes available to schedule pods"
        else:
            waits_for = missing.message if missing else None
            problem = scheduling.unfit(pod, node, self._load, self._find, waits_for)
        if problem is not None:
            self._waiting.add(item)
            if (condition(pod, "PodScheduled") or {}).get("message") != problem:
                await self._hold(item, "Unschedulable", problem)
                self._events.unschedulable(pod, problem)
            return None
        return await self._assign(item, pod, name)

    async def _assign(self, item: Item, pod: Doc, name: str) -> Doc | None:
        def assign(doc: Doc) -> None:
            doc["spec"]["nodeName"] = name
            doc["status"] = pod_status(doc, Facts(self._context.node))

        # Counted before it is written: the next Pod may be looked at meanwhile.
        metadata = pod["metadata"]
        self._counted[item.uid] = (metadata.get("generation"), metadata.get("labels"))
        self._load.put(pod)
        placed = None
        try:
            placed = await objects.change(self._context.store, item.key, item.uid, assign)
        finally:
            if placed is None:
                self._counted.pop(item.uid, None)
                self._load.drop(item.uid)
        if placed is not None:
            self._events.scheduled(placed, name)
        return placed

    def rejection(self, pod: Doc) -> Outcome | None:
        """How a Pod of this node ends that the node will not have; None for one that it will, and for
        one that has begun."""
        node = self._node or self._find(Key("nodes", "", self._context.node.name))
        begun = any(entry.get("containerID") for entry in get(pod, "status.containerStatuses", []))
        if begun or not get(node or {}, "status.allocatable"):
            return None
        assert node is not None, "what has allocatable resources is there"
        uid = pod["metadata"]["uid"]
        counted = uid in self._counted
        self._load.drop(uid)
        try:
            refusal = scheduling.rejection(pod, node, self._load, apparmor=self._apparmor)
        finally:
            if counted:
                self._load.put(pod)
        if refusal is None:
            return None
        reason, message = refusal
        return Outcome("Failed", reason, f"Pod was rejected: {message}", rejected=True)

    async def _hold(self, item: Item, reason: str, message: str) -> None:
        def hold(doc: Doc) -> None:
            doc["status"] = unscheduled(doc, reason, message)

        await objects.change(self._context.store, item.key, item.uid, hold)

    def _find(self, key: Key) -> Doc | None:
        return objects.find(self._context.store, key)
