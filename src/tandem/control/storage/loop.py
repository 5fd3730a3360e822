"""The storage loop: claims get volumes, and volumes that nobody claims any more go.

It binds what an administrator made, and makes directories under the data directory for claims of its
own class. What a volume is said to hold is written down and shown, and not enforced: a directory has
no size of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tandem.api.kind import Doc
from tandem.api.kinds import persistentvolumeclaim, storage
from tandem.api.meta import get, owner_reference
from tandem.api.rest import prepare_create
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.machinesources import claim_keys as claim_keys_of_machine
from tandem.control.pods.volumes.claims import CLAIMS, VOLUMES, claim_key, claim_keys
from tandem.control.queue import WorkQueue
from tandem.control.storage.claims import Claims
from tandem.control.storage.persistentvolumes import PersistentVolumes
from tandem.control.storage.storageobjects import PROVISIONER, StorageObjects
from tandem.control.storage.volumebinding import BIND_COMPLETED
from tandem.errors import AlreadyExists, TandemError
from tandem.store import Key

CLASS = "directory"

_PODS = "pods"
_MACHINES = "virtualmachineinstances.kubevirt.io"
_FINAL = ("Succeeded", "Failed")


class Storage:
    """See the module's docstring. ``root``: where the directories are made."""

    def __init__(self, context: Context, root: Path) -> None:
        self._context = context
        self._store = context.store
        self._recorder = context.recorder
        self.queue: WorkQueue[Key] = WorkQueue("storage", self.reconcile)
        self._objects = StorageObjects(context, root)
        self._claims = Claims(self._objects)
        self._volumes = PersistentVolumes(self._objects, self.queue.add)
        self._pending: set[Key] = set()
        self._claims_of: dict[str, frozenset[Key]] = {}
        self._users: dict[Key, set[str]] = {}
        context.changes.on(CLAIMS, self._claim_changed)
        context.changes.on(VOLUMES, self._volume_changed)
        context.changes.on(storage.CLASS_RESOURCE, self._class_changed)
        context.changes.on(_PODS, self._pod_changed)
        context.changes.on(_MACHINES, self._machine_changed)

    async def ensure(self) -> None:
        """Make our own class, unless there is one of its name."""
        kind = self._context.kind(storage.CLASS_RESOURCE)
        doc = {
            "metadata": {"name": CLASS, "annotations": {storage.DEFAULT_CLASS: "true"}},
            "provisioner": PROVISIONER,
            "allowVolumeExpansion": True,
        }
        try:
            key = Key(storage.CLASS_RESOURCE, "", CLASS)
            await self._store.create(key, prepare_create(kind, doc, namespace="").doc)
        except AlreadyExists:
            return

    # -- what wakes it -----------------------------------------------------------------------

    def _claim_changed(self, change: Change) -> None:
        self._pending.discard(change.key)
        if not change.deleted and get(change.doc, "status.phase") != "Bound":
            self._pending.add(change.key)
        self.queue.add(change.key)
        if name := get(change.doc, "spec.volumeName"):
            self.queue.add(Key(VOLUMES, "", name))

    def _volume_changed(self, change: Change) -> None:
        self.queue.add(change.key)
        reference = get(change.doc, "spec.claimRef")
        if reference:
            self.queue.add(Key(CLAIMS, reference.get("namespace", ""), reference.get("name", "")))
        elif not change.deleted and get(change.doc, "status.phase") == "Available":
            self._look_at_pending()

    def _class_changed(self, change: Change) -> None:
        if not change.deleted:
            self._look_at_pending()

    def _look_at_pending(self) -> None:
        for key in self._pending:
            self.queue.add(key)

    def _pod_changed(self, change: Change) -> None:
        if self._note_use(change, claim_keys(change.doc)) and any(
            volume.get("ephemeral") for volume in get(change.doc, "spec.volumes", [])
        ):
            self.queue.add(change.key)

    def _machine_changed(self, change: Change) -> None:
        self._note_use(change, claim_keys_of_machine(change.doc))

    def _note_use(self, change: Change, claims: Iterable[Key]) -> bool:
        """Who uses which claims; True for a new user of any."""
        over = change.deleted or get(change.doc, "status.phase") in _FINAL
        known = self._claims_of.get(change.uid)
        if over and known is not None:
            del self._claims_of[change.uid]
            for key in known:
                self._users[key].discard(change.uid)
                if not self._users[key]:
                    del self._users[key]
                self.queue.add(key)
        elif not over and known is None and (keys := frozenset(claims)):
            self._claims_of[change.uid] = keys
            for key in keys:
                self._users.setdefault(key, set()).add(change.uid)
                self.queue.add(key)
            return True
        return False

    # -- one step ----------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> float | None:
        """Take the next step for a claim, a volume, or a Pod with claims of its own."""
        doc = objects.find(self._store, key)
        if doc is None:
            return None
        if key.resource == _PODS:
            await self._make_claims(doc)
        elif key.resource == VOLUMES:
            await self._volumes.sync(key, doc)
        elif get(doc, "metadata.deletionTimestamp"):
            if not self._users.get(key):
                await self._objects.release(key, doc, persistentvolumeclaim.PROTECTION)
        elif get(doc, "metadata.annotations", {}).get(BIND_COMPLETED):
            await self._claims.keep(key, doc)
        else:
            await self._claims.bind(key, doc, used=bool(self._users.get(key)))
        return None

    async def _make_claims(self, pod: Doc) -> None:
        """The claims that live and die with a Pod."""
        kind = self._context.kind(CLAIMS)
        for volume in get(pod, "spec.volumes", []):
            if volume.get("ephemeral") is None:
                continue
            key = claim_key(pod, volume)
            assert key is not None
            template = volume["ephemeral"]["volumeClaimTemplate"]
            metadata = get(template, "metadata", {})
            doc = {
                "metadata": {
                    "name": key.name,
                    "labels": metadata.get("labels", {}),
                    "annotations": metadata.get("annotations", {}),
                    "ownerReferences": [owner_reference(self._context.kind(_PODS), pod)],
                },
                "spec": template["spec"],
            }
            try:
                prepared = prepare_create(kind, doc, namespace=key.namespace)
                await self._store.create(key, prepared.doc)
            except AlreadyExists:
                continue
            except TandemError as error:
                words = f"ephemeral volume {volume['name']}: {error}"
                self._recorder.warning(pod, "FailedBinding", words)
