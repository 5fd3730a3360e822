"""The Deployment loop: one ReplicaSet for each template there has been, and the way from one to the next.

It never touches a Pod: it sizes ReplicaSets, whose own loop does the rest, and looks again whenever
their status changes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from tandem.api.kind import Doc
from tandem.api.meta import condition, get
from tandem.api.rest import prepare_update
from tandem.api.selectors import label_selector_from_doc
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.owners import podfacts, rollout
from tandem.control.owners.children import Children, Terminating
from tandem.control.owners.deploymentstatus import (
    TIMED_OUT,
    counted,
    has_deadline,
    is_complete,
    progressed,
    set_condition,
    timeout_left,
)
from tandem.control.owners.revisions import (
    REVISION,
    is_made_of,
    new_replica_set,
    next_revision,
    revision_annotations,
    revision_of,
)
from tandem.control.owners.rollout import size, wanted
from tandem.control.queue import WorkQueue
from tandem.errors import AlreadyExists, TandemError
from tandem.store import Key

RESOURCE = "deployments.apps"
_SETS = "replicasets.apps"
_NO_LIMIT = (1 << 31) - 1


class _Sets(NamedTuple):
    """A Deployment's ReplicaSets: the one of the present template, if it exists, and the others."""

    new: Doc | None
    old: list[Doc]

    @property
    def all(self) -> list[Doc]:
        return [*self.old, *([self.new] if self.new else [])]

    @property
    def active(self) -> list[Doc]:
        """Those that have, or shall have, Pods."""
        return [doc for doc in self.all if size(doc) > 0]


def concerns(replica_set: Doc) -> tuple[Any, ...]:
    """What of a ReplicaSet its Deployment acts upon."""
    metadata = replica_set["metadata"]
    return (
        metadata.get("deletionTimestamp"),
        metadata.get("generation"),
        metadata.get("labels"),
        metadata.get("annotations"),
        replica_set.get("status"),
    )


class Deployments:
    """See the module's docstring. ``sets`` are ReplicaSets as children, ``pods`` are theirs."""

    def __init__(self, context: Context, sets: Children, pods: Children) -> None:
        self._store = context.store
        self._recorder = context.recorder
        self._changes = context.changes
        self._kind = context.kind(RESOURCE)
        self._sets = sets
        self._pods = pods
        self.queue: WorkQueue[Key] = WorkQueue("deployment", self.reconcile)
        sets.serve(
            self._kind,
            lambda doc: label_selector_from_doc(get(doc, "spec.selector")),
            self.queue.add,
        )
        context.changes.on(podfacts.RESOURCE, self._pod_changed)

    def _pod_changed(self, change: Change) -> None:
        """The end of a Pod may be what a Deployment waits for that recreates its Pods."""
        if not change.deleted and not podfacts.is_over(change.doc):
            return
        for reference in change.doc["metadata"].get("ownerReferences") or ():
            key = self._changes.key_of(reference.get("uid", ""))
            if key is None or key.resource != _SETS:
                continue
            for uid in self._changes.owners_of(key):
                owner = self._changes.key_of(uid)
                if owner is not None and owner.resource == RESOURCE:
                    self.queue.add(owner)

    # -- one step ----------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> float | None:
        """Take the next step of a rollout; returns the seconds until it would have timed out."""
        deployment = objects.find(self._store, key)
        if deployment is None:
            return None
        claimed = await self._sets.claim(self._kind, deployment)
        sets = self._sort(deployment, claimed)
        if get(deployment, "metadata.deletionTimestamp"):
            await self._write(key, deployment, counted(deployment, sets.new, sets.all))
            return None
        deployment = await self._note_pause(key, deployment)
        if sets.new is not None:
            sets = sets._replace(new=await self._renew(deployment, sets.new, sets.old))
        if get(deployment, "spec.paused") or self._is_rescaled(deployment, sets):
            sets = await self._scale(deployment, sets)
            if get(deployment, "spec.paused"):
                await self._clean_up(deployment, sets)
            await self._write(key, deployment, counted(deployment, sets.new, sets.all))
            return None
        if not rollout.is_rolling(deployment) and not self._is_cleared(sets):
            sets = await self._resize(deployment, sets, [(doc, 0) for doc in sets.old])
        elif sets.new is None:
            made = await self._make_new(key, deployment, sets)
            if made is None:
                return 0.0
            sets = sets._replace(new=made)
            deployment = objects.find(self._store, key) or deployment
        else:
            sets = await self._advance(deployment, sets, sets.new)
        status = progressed(deployment, sets.new, sets.all)
        deployment = await self._write(key, deployment, status, sets.new) or deployment
        if is_complete(deployment, status):
            await self._clean_up(deployment, sets)
        left = timeout_left(deployment)
        # Times are written in whole seconds: one more, and it is over for certain.
        return None if left is None else left + 1

    async def _advance(self, deployment: Doc, sets: _Sets, new: Doc) -> _Sets:
        """One step: either the newest ReplicaSet grows, or old ones shrink."""
        if size(new) > wanted(deployment):
            return await self._resize(deployment, sets, [(new, wanted(deployment))])
        grown = rollout.next_size(deployment, new, sets.all)
        if grown != size(new):
            return await self._resize(deployment, sets, [(new, grown)])
        if rollout.is_rolling(deployment):
            shrunk = rollout.shrink_old(deployment, new, sets.old)
            return await self._resize(deployment, sets, shrunk)
        return sets

    def _is_cleared(self, sets: _Sets) -> bool:
        """Whether nothing of the old runs any more, so that all may be made anew."""
        if any(size(doc) for doc in sets.old) or rollout.actual(sets.old):
            return False
        return not any(
            not podfacts.is_over(pod)
            for doc in sets.old
            for pod in self._pods.owned(doc["metadata"]["uid"])
        )

    # -- which ReplicaSets there are ---------------------------------------------------------

    def _sort(self, deployment: Doc, claimed: Sequence[Doc]) -> _Sets:
        template = get(deployment, "spec.template", {})
        ordered = rollout.by_age(claimed)
        new = next((doc for doc in ordered if is_made_of(doc, template)), None)
        return _Sets(new, [doc for doc in ordered if doc is not new])

    async def _make_new(self, key: Key, deployment: Doc, sets: _Sets) -> Doc | None:
        """The ReplicaSet of the present template; None when its name is taken, and the next try will
        take another."""
        metadata = deployment["metadata"]
        doc = new_replica_set(deployment, sets.old)
        try:
            made = await self._sets.make(self._kind, deployment, doc)
        except Terminating:
            return doc
        except AlreadyExists:
            # Another template has the same hash, or somebody the same name.
            def collide(current: Doc) -> None:
                status = current.setdefault("status", {})
                status["collisionCount"] = int(status.get("collisionCount", 0)) + 1

            await objects.change(self._store, key, metadata["uid"], collide)
            return None
        except TandemError as error:
            message = f'Failed to create new replica set "{doc["metadata"]["name"]}": {error}'
            await self._set_progress(key, deployment, "False", "ReplicaSetCreateError", message)
            raise
        if size(made):
            self._tell(deployment, made, 0, size(made))
        message = f'Created new replica set "{made["metadata"]["name"]}"'
        await self._set_progress(key, deployment, "True", "NewReplicaSetCreated", message)
        return made

    async def _renew(self, deployment: Doc, new: Doc, old: Sequence[Doc]) -> Doc:
        """A ReplicaSet that is, or has become again, the newest: the highest revision is its."""
        settle = int(get(deployment, "spec.minReadySeconds", 0))
        annotations = revision_annotations(deployment, new, next_revision(old))
        known = get(new, "metadata.annotations", {}).items()
        if annotations.items() <= known and settle == int(get(new, "spec.minReadySeconds", 0)):
            return new

        def alter(doc: Doc) -> None:
            doc["metadata"].setdefault("annotations", {}).update(annotations)
            if settle != int(get(doc, "spec.minReadySeconds", 0)):
                doc["spec"]["minReadySeconds"] = settle

        return await self._change(new, alter)

    # -- sizes -------------------------------------------------------------------------------

    @staticmethod
    def _is_rescaled(deployment: Doc, sets: _Sets) -> bool:
        """Whether the number of wanted Pods has changed since the ReplicaSets were sized."""
        desired = (rollout.annotated(doc, rollout.DESIRED) for doc in sets.active)
        return any(number not in (None, wanted(deployment)) for number in desired)

    async def _scale(self, deployment: Doc, sets: _Sets) -> _Sets:
        active = sets.active
        if len(active) <= 1:
            latest = active or ([sets.new] if sets.new else rollout.by_age(sets.old)[-1:])
            return await self._resize(deployment, sets, [(d, wanted(deployment)) for d in latest])
        if rollout.is_saturated(deployment, sets.new):
            return await self._resize(deployment, sets, [(doc, 0) for doc in sets.old])
        if rollout.is_rolling(deployment):
            return await self._resize(deployment, sets, rollout.spread(deployment, active))
        return sets

    async def _resize(self, deployment: Doc, sets: _Sets, sizes: rollout.Sizes) -> _Sets:
        """Tell ReplicaSets their sizes; returns them as they are then."""
        limits = rollout.limits(deployment)
        changed: dict[str, Doc] = {}
        for doc, count in sizes:
            before = size(doc)
            if before == 0 == count:
                continue

            def alter(current: Doc, count: int = count) -> None:
                current["spec"]["replicas"] = count
                current["metadata"].setdefault("annotations", {}).update(limits)

            after = await self._change(doc, alter)
            changed[doc["metadata"]["uid"]] = after
            if size(after) != before:
                self._tell(deployment, after, before, size(after))
        new = sets.new and changed.get(sets.new["metadata"]["uid"], sets.new)
        return _Sets(new, [changed.get(doc["metadata"]["uid"], doc) for doc in sets.old])

    def _tell(self, deployment: Doc, replica_set: Doc, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        name = replica_set["metadata"]["name"]
        message = f"Scaled {way} replica set {name} from {before} to {after}"
        self._recorder.normal(deployment, "ScalingReplicaSet", message)

    async def _change(self, replica_set: Doc, alter: Any) -> Doc:
        """Alter a ReplicaSet as a client would, its generation counted."""

        def update(doc: Doc) -> None:
            old = copy.deepcopy(doc)
            alter(doc)
            prepare_update(self._sets.kind, doc, old)

        key, uid = self._sets.key(replica_set), replica_set["metadata"]["uid"]
        return await objects.change(self._store, key, uid, update) or replica_set

    async def _clean_up(self, deployment: Doc, sets: _Sets) -> None:
        """Forget the revisions beyond the limit, the oldest first."""
        limit = int(get(deployment, "spec.revisionHistoryLimit", _NO_LIMIT))
        alive = [doc for doc in sets.old if not get(doc, "metadata.deletionTimestamp")]
        for doc in sorted(alive, key=revision_of)[: max(0, len(alive) - limit)]:
            settled = get(doc, "status.observedGeneration", 0) >= doc["metadata"]["generation"]
            if size(doc) or rollout.actual([doc]) or not settled:
                continue
            await objects.request_deletion(
                self._store, self._sets.kind, self._sets.key(doc), uid=doc["metadata"]["uid"]
            )

    # -- status ------------------------------------------------------------------------------

    async def _note_pause(self, key: Key, deployment: Doc) -> Doc:
        before = (condition(deployment, "Progressing") or {}).get("reason")
        if not has_deadline(deployment) or before == TIMED_OUT:
            return deployment
        if get(deployment, "spec.paused"):
            if before != "DeploymentPaused":
                found = await self._set_progress(
                    key, deployment, "Unknown", "DeploymentPaused", "Deployment is paused"
                )
                return found or deployment
        elif before == "DeploymentPaused":
            found = await self._set_progress(
                key, deployment, "Unknown", "DeploymentResumed", "Deployment is resumed"
            )
            return found or deployment
        return deployment

    async def _set_progress(
        self, key: Key, deployment: Doc, value: str, reason: str, message: str
    ) -> Doc | None:
        if not has_deadline(deployment):
            return None

        def alter(doc: Doc) -> None:
            set_condition(doc.setdefault("status", {}), "Progressing", value, reason, message)

        return await objects.change(self._store, key, deployment["metadata"]["uid"], alter)

    async def _write(
        self, key: Key, deployment: Doc, status: Doc, new: Doc | None = None
    ) -> Doc | None:
        revision = get(new or {}, "metadata.annotations", {}).get(REVISION)

        def alter(doc: Doc) -> None:
            doc["status"] = status
            if revision:
                doc["metadata"].setdefault("annotations", {})[REVISION] = revision

        return await objects.change(self._store, key, deployment["metadata"]["uid"], alter)
