"""The VirtualMachine loop: keeps an instance as the run strategy says.

It touches no runtime: it makes and deletes VirtualMachineInstances, which have a loop of their own, and
tells in the machine's status how that goes.
"""

from __future__ import annotations

from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.meta import get, owner_reference
from tandem.api.rest import prepare_create
from tandem.control import instances, objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.machinestatus import (
    TEMPLATE_ANNOTATION,
    Decision,
    decide,
    machine_status,
    template_digest,
)
from tandem.control.queue import WorkQueue
from tandem.errors import AlreadyExists, InvalidSpec
from tandem.store import Key

RESOURCE = "virtualmachines.kubevirt.io"
_ORPHAN = "orphan"


class Item(NamedTuple):
    """A machine by its name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Machines:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._recorder = context.recorder
        self._kind = context.kind(RESOURCE)
        self._instance_kind = context.kind(instances.RESOURCE)
        self.queue: WorkQueue[Item] = WorkQueue("vm", self.reconcile)
        # An instance has its machine's name, so that both lead to the same item.
        for resource in (RESOURCE, instances.RESOURCE):
            context.changes.on(resource, self._changed)

    def _changed(self, change: Change) -> None:
        key = Key(RESOURCE, change.key.namespace, change.key.name)
        if change.key.resource == RESOURCE or self._context.changes.uid_of(key) is not None:
            self.queue.add(Item(key.namespace, key.name))

    async def reconcile(self, item: Item) -> float | None:
        """Take the next step for a machine; returns the seconds after which to look again."""
        key = Key(RESOURCE, *item)
        vm = objects.find(self._store, key)
        if vm is None:
            return None  # what it owned is garbage, and collected as such
        found = objects.find(self._store, Key(instances.RESOURCE, *item))
        vmi = found if found is not None and _owns(vm, found) else None
        if get(vm, "metadata.deletionTimestamp"):
            await self._terminate(key, vm, vmi)
            return None
        decision = decide(vm, vmi)
        error: tuple[str, str] | None = None
        if decision.stop and vmi is not None:
            await self._stop(vm, vmi)
        elif decision.start:
            error = await self._start(vm)
            if error is None:
                vmi = objects.find(self._store, Key(instances.RESOURCE, *item))
        await self._write(key, vm, vmi, decision, error)
        return decision.wait

    async def _start(self, vm: Doc) -> tuple[str, str] | None:
        metadata = vm["metadata"]
        try:
            prepared = prepare_create(
                self._instance_kind, self._instance(vm), namespace=metadata["namespace"]
            )
            key = Key(instances.RESOURCE, metadata["namespace"], metadata["name"])
            await self._store.create(key, prepared.doc)
        except (InvalidSpec, AlreadyExists) as error:
            message = f"Error creating virtual machine instance: {error}"
            self._recorder.warning(vm, "FailedCreate", message)
            return "FailedCreate", str(error)
        message = (
            "Started the virtual machine by creating the new virtual machine instance "
            f"{metadata['name']}"
        )
        self._recorder.normal(vm, "SuccessfulCreate", message)
        return None

    def _instance(self, vm: Doc) -> Doc:
        metadata = vm["metadata"]
        template = get(vm, "spec.template.metadata", {})
        return {
            "apiVersion": self._instance_kind.api_version,
            "kind": self._instance_kind.kind,
            "metadata": {
                "name": metadata["name"],
                "labels": {
                    **(template.get("labels") or {}),
                    instances.LABEL_NAME: metadata["name"],
                },
                "annotations": {
                    **(template.get("annotations") or {}),
                    TEMPLATE_ANNOTATION: template_digest(vm),
                },
                "ownerReferences": [owner_reference(self._kind, vm)],
            },
            "spec": vm["spec"]["template"]["spec"],
        }

    async def _stop(self, vm: Doc, vmi: Doc) -> None:
        metadata = vmi["metadata"]
        key = Key(instances.RESOURCE, metadata["namespace"], metadata["name"])
        await objects.request_deletion(self._store, self._instance_kind, key, uid=metadata["uid"])
        message = (
            "Stopped the virtual machine by deleting the virtual machine instance "
            f"{metadata['name']}"
        )
        self._recorder.normal(vm, "SuccessfulDelete", message)

    async def _terminate(self, key: Key, vm: Doc, vmi: Doc | None) -> None:
        if _ORPHAN in (vm["metadata"].get("finalizers") or ()):
            return  # its instance is to live on; the garbage loop parts them first
        if vmi is None:
            await objects.remove(self._store, key, vm["metadata"]["uid"])
            return
        if not get(vmi, "metadata.deletionTimestamp"):
            await self._stop(vm, vmi)
        await self._write(key, vm, vmi, Decision(), None)

    async def _write(
        self,
        key: Key,
        vm: Doc,
        vmi: Doc | None,
        decision: Decision,
        error: tuple[str, str] | None,
    ) -> None:
        seen = get(vm, "status.stateChangeRequests", [])

        def alter(doc: Doc) -> None:
            # Requests that came in meanwhile are not lost: they are looked at in the next step.
            added = get(doc, "status.stateChangeRequests", [])[len(seen) :]
            doc["status"] = machine_status(doc, vmi, decision, error)
            if added:
                doc["status"]["stateChangeRequests"] = [*decision.requests, *added]

        await objects.change(self._store, key, vm["metadata"]["uid"], alter)


def _owns(vm: Doc, vmi: Doc) -> bool:
    uid = vm["metadata"]["uid"]
    return any(ref.get("uid") == uid for ref in vmi["metadata"].get("ownerReferences") or ())
