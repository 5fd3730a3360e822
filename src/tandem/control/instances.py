"""The VirtualMachineInstance loop: one run of a machine, from files to the end and nothing left.

The phases are the record of intent: what is past Scheduling may have files, what is past Scheduled may
have a domain. Both are found again by the instance's UID, finished or undone, whenever a daemon starts.
"""

from __future__ import annotations

import logging
from functools import partial

from tandem.api.kind import Doc
from tandem.api.meta import condition, get
from tandem.control import objects
from tandem.control.backoff import Backoff
from tandem.control.changes import Change
from tandem.control.context import LABEL_CLUSTER, Context
from tandem.control.instancestatus import (
    STARTING,
    Problem,
    instance_status,
    insufficient,
    is_final,
    out_of_reach,
    phase_for,
    phase_of,
)
from tandem.control.machinefiles import MachineFiles
from tandem.control.pods.spec import grace_left
from tandem.control.pods.volumes.claims import CLAIMS, VOLUMES
from tandem.control.runtime import Operations, Runtime
from tandem.control.workloads import PULL_SHOWN_SECONDS, Item, Workloads
from tandem.errors import DeadlineExceeded, ImagePullError, TandemError, Unavailable
from tandem.runtimes.adapter import LABEL_SHUTDOWN_PHASE, Phase, RuntimeSpec, RuntimeStatus
from tandem.store import Key

logger = logging.getLogger(__name__)

RESOURCE = "virtualmachineinstances.kubevirt.io"

_MACHINES = "virtualmachines.kubevirt.io"
_SOURCES = ("secrets", "configmaps", "serviceaccounts", CLAIMS, VOLUMES)

LABEL_NAME = "vm.kubevirt.io/name"
LABEL_NAMESPACE = "vm.kubevirt.io/namespace"


class Instances:
    """See the module's docstring."""

    def __init__(self, context: Context, runtime: Runtime, files: MachineFiles) -> None:
        self._context = context
        self._store = context.store
        self._recorder = context.recorder
        self._runtime = runtime
        self._files = files
        self._backoff = Backoff()
        self._operations = Operations()
        self._cleaned: set[str] = set()
        self.workloads = Workloads(
            context,
            RESOURCE,
            self.reconcile,
            concerns=lambda _: (),
            interrupt=self._operations.interrupt,
            awaited=_SOURCES,
            appeared=self._backoff.forget,
        )
        context.changes.on(_MACHINES, self._machine_changed)

    def _machine_changed(self, change: Change) -> None:
        """What is kept from one run of a machine to the next goes with the machine."""
        if change.deleted:
            self.workloads.queue.add(Item(change.key, change.uid))

    async def sweep_files(self) -> None:
        """Remove the files of machines that nobody knows any more, neither the store nor the runtime
        (which must have been asked, or nothing is removed); before the loops run."""
        if self._runtime.found is None:
            return
        uids = {
            str(doc["metadata"]["uid"])
            for resource in (RESOURCE, _MACHINES)
            for doc in self._store.list(resource).items
        }
        for uid in await self._files.sweep(uids | self._runtime.found):
            logger.info("removed the files of machine %s, which no instance claims", uid)

    # -- one step ----------------------------------------------------------------------------

    async def reconcile(self, item: Item) -> float | None:
        """Take the next step for an instance; returns the seconds after which to look again."""
        vmi = objects.find(self._store, item.key, item.uid)
        if vmi is None:
            await self._discard(item, 0)
            self._forget(item.uid)
            return None
        if get(vmi, "metadata.deletionTimestamp"):
            await self._terminate(item, vmi)
            return None
        if is_final(vmi):
            if item.uid not in self._cleaned:
                await self._discard(item, 0)
                self._cleaned.add(item.uid)
            return None
        try:
            return await self._run(item, vmi)
        except (Unavailable, DeadlineExceeded) as error:
            await self._write_trouble(item, error)
            raise

    async def _run(self, item: Item, vmi: Doc) -> float | None:
        if reason := insufficient(vmi, self._context.node):
            message = f"0/1 nodes are available: 1 {reason}."
            problem = Problem("Unschedulable", message, "PodScheduled")
            await self._write(item, "Scheduling", problem=problem)
            self._recorder.warning(vmi, "FailedScheduling", message)
            return None
        starting = phase_of(vmi) in STARTING
        # Nothing is started before the phase is Scheduled: a new instance need not be asked for.
        fresh = phase_of(vmi) in ("", "Pending")
        observed = None if fresh else await self._runtime.observe(item.uid)
        if observed is not None and starting and observed.phase is Phase.STOPPED:
            # Defined and never started: a daemon died in between. It is begun anew.
            await self._runtime.delete(item.uid, grace_seconds=0)
            observed = None
        if observed is not None:
            await self._follow(item, vmi, observed)
            return None
        if starting:
            return await self._start(item, vmi)
        await self._end(item, vmi, "Failed", None, "The VirtualMachineInstance has disappeared.")
        return None

    # -- starting ----------------------------------------------------------------------------

    async def _start(self, item: Item, vmi: Doc) -> float | None:
        if wait := self._backoff.remaining(item.uid):
            synchronized = condition(vmi, "Synchronized") or {}
            if synchronized.get("reason") == "ErrImagePull":
                problem = Problem("ImagePullBackOff", synchronized.get("message", ""))
                await self._write(item, phase_of(vmi) or "Scheduling", problem=problem)
            return wait
        if phase_of(vmi) in ("", "Pending"):
            vmi = await self._write(item, "Scheduling") or vmi
        created: list[RuntimeStatus] = []

        async def create() -> None:
            lookup = partial(self._source, item)
            xml = await self._files.domain_xml(item.uid, vmi, lookup=lookup)
            await self._write(item, "Scheduled")
            spec = _runtime_spec(vmi, xml, self._context.cluster)
            created.append(await self._runtime.create(spec))

        try:
            if not await self._operations.run(item.uid, create):
                return None
        except (Unavailable, DeadlineExceeded):
            raise
        except TandemError as error:
            return await self._not_started(item, vmi, error)
        self._backoff.forget(item.uid)
        self._recorder.normal(vmi, "Created", "VirtualMachineInstance defined.")
        self._recorder.normal(vmi, "Started", "VirtualMachineInstance started.")
        await self._follow(item, vmi, created[0])
        return None

    async def _not_started(self, item: Item, vmi: Doc, error: TandemError) -> float:
        """Say why, and come back later: what is missing may appear."""
        wait = self._backoff.failed(item.uid)
        reason = "FailedCreate"
        if isinstance(error, ImagePullError):
            reason = "ErrImagePull"
            wait = min(wait, PULL_SHOWN_SECONDS)
        doc = objects.find(self._store, item.key, item.uid) or vmi
        await self._write(item, phase_of(doc) or "Scheduling", problem=Problem(reason, str(error)))
        self._recorder.warning(vmi, "SyncFailed", str(error))
        return wait

    def _source(self, item: Item, key: Key) -> Doc | None:
        """An object that a volume is made of; one that is not there yet, or a claim without its
        volume, is waited for from this moment on, so that no change of it is overlooked."""
        doc = objects.find(self._store, key)
        if doc is None or get(doc, "status.phase") == "Pending":
            self.workloads.wait_for(key, item)
        return doc

    # -- following ---------------------------------------------------------------------------

    async def _follow(self, item: Item, vmi: Doc, observed: RuntimeStatus) -> None:
        phase = phase_for(observed)
        if phase == "Succeeded":
            message = "The VirtualMachineInstance was shut down."
            await self._end(item, vmi, phase, observed, message)
        elif phase == "Failed":
            message = "The VirtualMachineInstance crashed."
            await self._end(item, vmi, phase, observed, message)
        else:
            await self._write(item, phase or phase_of(vmi), observed=observed)

    async def _end(
        self, item: Item, vmi: Doc, phase: str, observed: RuntimeStatus | None, message: str
    ) -> None:
        # The phase first: once the machine is gone, nobody can tell how it ended.
        await self._write(item, phase, observed=observed)
        say = self._recorder.normal if phase == "Succeeded" else self._recorder.warning
        say(vmi, "Stopped", message)
        await self._discard(item, 0)
        self._cleaned.add(item.uid)

    async def _terminate(self, item: Item, vmi: Doc) -> None:
        grace = 0.0 if is_final(vmi) else grace_left(vmi)
        if not is_final(vmi):
            if grace > 0:
                self._recorder.normal(vmi, "ShuttingDown", "Signaled Graceful Shutdown")
            self._recorder.normal(vmi, "Deleted", "Signaled Deletion")
        if not await self._operations.run(item.uid, lambda: self._discard(item, grace)):
            return  # less grace is given by now, or none: the next step is already due
        if await objects.remove(self._store, item.key, item.uid):
            self._forget(item.uid)
        elif not is_final(vmi):
            await self._write(item, "Succeeded")

    async def _discard(self, item: Item, grace: float) -> None:
        """End the machine and take away everything it had."""
        await self._runtime.delete(item.uid, grace_seconds=grace)
        await self._files.remove(item.uid)

    def _forget(self, uid: str) -> None:
        self._backoff.forget(uid)
        self._cleaned.discard(uid)

    # -- writing -----------------------------------------------------------------------------

    async def _write(
        self,
        item: Item,
        phase: str,
        *,
        observed: RuntimeStatus | None = None,
        problem: Problem | None = None,
    ) -> Doc | None:
        def alter(doc: Doc) -> None:
            doc["status"] = instance_status(
                doc,
                phase,
                node=self._context.node,
                observed=observed,
                problem=problem,
                emulation=self._emulation(observed),
            )

        return await objects.change(self._store, item.key, item.uid, alter)

    async def _write_trouble(self, item: Item, error: TandemError) -> None:
        def alter(doc: Doc) -> None:
            doc["status"] = out_of_reach(doc, str(error))

        await objects.change(self._store, item.key, item.uid, alter)

    def _emulation(self, observed: RuntimeStatus | None) -> str:
        if observed is None or observed.details.get("accelerator") != "qemu":
            return ""
        fingerprint = self._runtime.fingerprint
        details = fingerprint.details if fingerprint else {}
        return details.get("emulation_reason") or "the processor is emulated"


def _runtime_spec(vmi: Doc, xml: str, cluster: str) -> RuntimeSpec:
    metadata = vmi["metadata"]
    labels = {
        LABEL_NAME: metadata["name"],
        LABEL_NAMESPACE: metadata["namespace"],
        LABEL_SHUTDOWN_PHASE: Phase.SUCCEEDED.value,
        LABEL_CLUSTER: cluster,
    }
    return RuntimeSpec(id=metadata["uid"], vm_xml=xml, labels=labels)
