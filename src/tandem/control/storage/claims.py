"""What a claim gets: a volume that is there, or a directory made for it."""

from __future__ import annotations

from pathlib import Path

from tandem.api.kind import Doc
from tandem.api.kinds import storage
from tandem.api.meta import get, object_reference
from tandem.api.quantity import parse_quantity
from tandem.api.rest import prepare_create
from tandem.control.pods.volumes.claims import VOLUMES
from tandem.control.storage import volumebinding
from tandem.control.storage.storageobjects import PROVISIONER, StorageObjects, annotate, is_ours
from tandem.control.storage.volumebinding import BIND_COMPLETED, BOUND_BY_US, PROVISIONED_BY
from tandem.errors import AlreadyExists, Conflict, TandemError
from tandem.host import volumes as host
from tandem.host.run import blocking
from tandem.store import Key

_PROVISIONER_NOTES = (
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
)
_EXTERNAL = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the "
    "system administrator. If volume creation is delayed, please verify that the provisioner is "
    "running and correctly registered."
)


class Claims:
    """The steps for one claim; who takes them, and when, is the storage loop's matter."""

    def __init__(self, objects: StorageObjects) -> None:
        self._objects = objects

    async def bind(self, key: Key, claim: Doc, *, used: bool) -> None:
        """Give a claim its volume, or say what it waits for. ``used``: a Pod waits for it."""
        if storage.class_of(claim) is None:
            default = storage.default_class(self._objects.store.list(storage.CLASS_RESOURCE).items)
            if default is not None:
                name = default["metadata"]["name"]
                changed = await self._objects.change(
                    key, claim, lambda doc: doc["spec"].update(storageClassName=name)
                )
                if changed is None:
                    return
                claim = changed
        if wanted := get(claim, "spec.volumeName"):
            volume = self._objects.find(Key(VOLUMES, "", wanted))
            if volume is None:
                return  # it may appear
            if get(volume, "spec.claimRef") and not volumebinding.is_for(volume, claim):
                words = f'volume "{wanted}" already bound to a different claim.'
                self._objects.recorder.warning(claim, "FailedBinding", words)
            elif why := volumebinding.mismatch(volume, claim):
                words = f'Cannot bind to requested volume "{wanted}": {why}'
                self._objects.recorder.warning(claim, "VolumeMismatch", words)
            else:
                await self._bind(key, claim, volume)
            return
        storage_class = self._class(claim)
        mode = get(storage_class or {}, "volumeBindingMode", "Immediate")
        volume = volumebinding.best(claim, self._objects.store.list(VOLUMES).items)
        kept = volume is not None and get(volume, "spec.claimRef")
        if mode == "WaitForFirstConsumer" and not kept and not used:
            words = "waiting for first consumer to be created before binding"
            self._objects.recorder.normal(claim, "WaitForFirstConsumer", words)
        elif volume is not None:
            await self._bind(key, claim, volume)
        else:
            await self._provision(key, claim, storage_class)

    def _class(self, claim: Doc) -> Doc | None:
        name = storage.class_of(claim)
        return self._objects.find(Key(storage.CLASS_RESOURCE, "", name)) if name else None

    async def _bind(self, key: Key, claim: Doc, volume: Doc) -> None:
        """The volume first: what is bound on one side only is finished by the next look."""
        name = volume["metadata"]["name"]

        def take(doc: Doc) -> None:
            if get(doc, "spec.claimRef") and not volumebinding.is_for(doc, claim):
                raise Conflict(f"persistentvolume {name!r} was taken by another claim")
            if not get(doc, "spec.claimRef"):
                annotate(doc, BOUND_BY_US, "yes")
            doc["spec"]["claimRef"] = object_reference(claim)
            doc["status"] = {"phase": "Bound"}

        def got(doc: Doc) -> None:
            if not doc["spec"].get("volumeName"):
                doc["spec"]["volumeName"] = name
                annotate(doc, BOUND_BY_US, "yes")
            annotate(doc, BIND_COMPLETED, "yes")
            doc["status"] = _bound(volume)

        if await self._objects.change(Key(VOLUMES, "", name), volume, take) is not None:
            await self._objects.change(key, claim, got)

    async def _provision(self, key: Key, claim: Doc, storage_class: Doc | None) -> None:
        name = storage.class_of(claim)
        if not name:
            words = "no persistent volumes available for this claim and no storage class is set"
            self._objects.recorder.normal(claim, "FailedBinding", words)
            return
        if storage_class is None:
            words = f'storageclass.storage.k8s.io "{name}" not found'
            self._objects.recorder.warning(claim, "ProvisioningFailed", words)
            return
        provisioner = storage_class["provisioner"]
        if provisioner != PROVISIONER:
            if provisioner == "kubernetes.io/no-provisioner":
                words = "no persistent volumes available for this claim and no storage class is set"
                self._objects.recorder.normal(claim, "FailedBinding", words)
            else:
                words = _EXTERNAL.format(provisioner)
                self._objects.recorder.normal(claim, "ExternalProvisioning", words)
            return
        if get(claim, "spec.selector"):
            words = "claim.Spec.Selector is not supported"
            self._not_provisioned(claim, name, words)
            return
        who = f'"{key.namespace}/{key.name}"'
        words = f"External provisioner is provisioning volume for claim {who}"
        self._objects.recorder.normal(claim, "Provisioning", words)
        own = f"pvc-{claim['metadata']['uid']}"
        path = self._objects.root / own
        try:
            await blocking(host.make_directory, path, mode=0o777)
        except OSError as error:
            self._not_provisioned(claim, name, f"{path}: {error.strerror}")
            raise TandemError(f"cannot make {path}: {error.strerror}") from error
        volume = await self._create_volume(own, path, claim, storage_class)
        self._objects.recorder.normal(
            claim, "ProvisioningSucceeded", f"Successfully provisioned volume {own}"
        )

        def noted(doc: Doc) -> None:
            for annotation in _PROVISIONER_NOTES:
                annotate(doc, annotation, PROVISIONER)

        if await self._objects.change(key, claim, noted) is not None:
            await self._bind(key, claim, volume)

    def _not_provisioned(self, claim: Doc, class_name: str, why: str) -> None:
        words = f'failed to provision volume with StorageClass "{class_name}": {why}'
        self._objects.recorder.warning(claim, "ProvisioningFailed", words)

    async def _create_volume(self, name: str, path: Path, claim: Doc, storage_class: Doc) -> Doc:
        node = self._objects.context.node.name
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        doc = {
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "accessModes": claim["spec"]["accessModes"],
                "capacity": {"storage": volumebinding.requested(claim)},
                "claimRef": object_reference(claim),
                "local": {"path": str(path)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
                "persistentVolumeReclaimPolicy": storage_class["reclaimPolicy"],
                "storageClassName": storage_class["metadata"]["name"],
            },
        }
        key = Key(VOLUMES, "", name)
        try:
            prepared = prepare_create(self._objects.context.kind(VOLUMES), doc, namespace="")
            return await self._objects.store.create(key, prepared.doc)
        except AlreadyExists:
            return self._objects.store.get(key)

    async def keep(self, key: Key, claim: Doc) -> None:
        """See that a bound claim still has its volume, and its size."""
        name = get(claim, "spec.volumeName", "")
        volume = self._objects.find(Key(VOLUMES, "", name))
        if volume is None or not volumebinding.is_for(volume, claim):
            if get(claim, "status.phase") != "Lost":
                words = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
                if volume is not None:
                    words = "Two claims are bound to the same volume, this one is bound incorrectly"
                reason = "ClaimLost" if volume is None else "ClaimMisbound"
                self._objects.recorder.warning(claim, reason, words)
                await self._objects.change(
                    key, claim, lambda doc: doc["status"].update(phase="Lost")
                )
            return
        wanted, had = volumebinding.requested(claim), volumebinding.capacity(volume)
        may_grow = get(self._class(claim) or {}, "allowVolumeExpansion", False)
        grown = parse_quantity(wanted) > parse_quantity(had)
        if grown and may_grow and is_ours(volume):
            changed = await self._objects.change(
                Key(VOLUMES, "", name),
                volume,
                lambda doc: doc["spec"]["capacity"].update(storage=wanted),
            )
            volume = changed or volume
        elif grown:
            words = (
                "only dynamically provisioned pvc can be resized and the storageclass that "
                "provisions the pvc must support resize"
            )
            self._objects.recorder.warning(claim, "VolumeResizeFailed", words)
        status = _bound(volume)
        before = get(claim, "status", {})
        if before != status:
            await self._objects.change(key, claim, lambda doc: doc.update(status=status))
            if get(before, "capacity", {}) and before["capacity"] != status["capacity"]:
                self._objects.recorder.normal(
                    claim, "VolumeResizeSuccessful", "Resize volume succeeded"
                )


def _bound(volume: Doc) -> Doc:
    """The status of a claim that has ``volume``."""
    return {
        "phase": "Bound",
        "accessModes": get(volume, "spec.accessModes", []),
        "capacity": {"storage": volumebinding.capacity(volume)},
    }
