"""The loop of everything that keeps a number of equal children: ReplicaSets and their kin.

What a kind's children are, when one counts and which goes first is said by :class:`Replicated`; the
rest is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get, set_condition
from tandem.api.selectors import LabelSelector, Requirement, label_selector_from_doc
from tandem.control import objects
from tandem.control.context import Context
from tandem.control.owners import podfacts
from tandem.control.owners.children import AT_ONCE, Children, Terminating, from_template
from tandem.control.queue import WorkQueue
from tandem.errors import TandemError
from tandem.store import Key

_COUNTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


@dataclass(frozen=True, slots=True)
class Replicated:
    """A kind of owner. ``resource`` is its own; ``selector(owner)`` selects its children.

    ``is_active(child)``: whether one counts as a replica. ``unavailable_for(child, seconds)``: how long
    until it will have been ready for so many seconds, None when it is not ready. ``rank(child)``: the
    least goes first.
    """

    resource: str
    selector: Callable[[Doc], LabelSelector]
    is_active: Callable[[Doc], bool] = podfacts.is_active
    unavailable_for: Callable[[Doc, int], float | None] = podfacts.unavailable_for
    rank: Callable[[Doc], Any] = podfacts.rank


def _by_labels(owner: Doc) -> LabelSelector:
    selector = get(owner, "spec.selector", {})
    return LabelSelector(tuple(Requirement(key, "in", (selector[key],)) for key in selector))


REPLICA_SETS = Replicated(
    "replicasets.apps", lambda owner: label_selector_from_doc(get(owner, "spec.selector"))
)
REPLICATION_CONTROLLERS = Replicated("replicationcontrollers", _by_labels)


class Replicas:
    """See the module's docstring."""

    def __init__(self, context: Context, children: Children, rules: Replicated) -> None:
        self._store = context.store
        self._children = children
        self._rules = rules
        self._kind = context.kind(rules.resource)
        self.queue: WorkQueue[Key] = WorkQueue(self._kind.singular, self.reconcile)
        children.serve(self._kind, rules.selector, self.queue.add)

    async def reconcile(self, key: Key) -> float | None:
        """Make or delete what is missing or too much; returns the seconds until the next replica
        becomes available by mere time."""
        owner = objects.find(self._store, key)
        if owner is None:
            return None  # what it owned is garbage, and collected as such
        claimed = await self._children.claim(self._kind, owner)
        active = [child for child in claimed if self._rules.is_active(child)]
        failure: tuple[str, TandemError] | None = None
        if not get(owner, "metadata.deletionTimestamp"):
            active, failure = await self._manage(owner, active)
        waits = await self._write(key, owner, active, failure)
        if failure is not None and not isinstance(failure[1], Terminating):
            raise failure[1]
        return waits

    async def _manage(
        self, owner: Doc, active: list[Doc]
    ) -> tuple[list[Doc], tuple[str, TandemError] | None]:
        """Returns the children that there are then, and what went wrong."""
        wanted = get(owner, "spec.replicas", 1)
        missing = min(wanted - len(active), AT_ONCE)
        if missing > 0:
            template, base = owner["spec"]["template"], owner["metadata"]["name"]
            docs = [from_template(template, base) for _ in range(missing)]
            made, error = await self._children.create(self._kind, owner, docs)
            return active + made, ("FailedCreate", error) if error else None
        doomed = sorted(active, key=self._rules.rank)[: max(0, min(-missing, AT_ONCE))]
        for child in doomed:
            try:
                await self._children.delete(owner, child)
            except TandemError as error:
                return active, ("FailedDelete", error)
        gone = {child["metadata"]["uid"] for child in doomed}
        return [child for child in active if child["metadata"]["uid"] not in gone], None

    async def _write(
        self, key: Key, owner: Doc, active: list[Doc], failure: tuple[str, TandemError] | None
    ) -> float | None:
        settle = int(get(owner, "spec.minReadySeconds", 0))
        waits = [self._rules.unavailable_for(child, settle) for child in active]
        labels = get(owner, "spec.template.metadata.labels", {}).items()
        counts = {
            "fullyLabeledReplicas": sum(
                labels <= (child["metadata"].get("labels") or {}).items() for child in active
            ),
            "readyReplicas": sum(wait is not None for wait in waits),
            "availableReplicas": sum(wait == 0 for wait in waits),
        }

        def alter(doc: Doc) -> None:
            status: Doc = {**(doc.get("status") or {}), "replicas": len(active)}
            for name in _COUNTS:
                status.pop(name, None)
            status |= {name: count for name, count in counts.items() if count}
            status["observedGeneration"] = owner["metadata"].get("generation", 0)
            conditions = [dict(entry) for entry in status.pop("conditions", [])]
            if failure is not None:
                set_condition(conditions, "ReplicaFailure", "True", failure[0], str(failure[1]))
            else:
                conditions = [c for c in conditions if c["type"] != "ReplicaFailure"]
            if conditions:
                status["conditions"] = conditions
            doc["status"] = status

        await objects.change(self._store, key, owner["metadata"]["uid"], alter)
        return min((wait for wait in waits if wait), default=None)
