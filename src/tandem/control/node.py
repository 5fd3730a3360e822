"""The Node loop: keeps the object that stands for this host true.

It is written when something turns (a runtime goes or comes, a disk fills up, the host was booted
again), never to say that nothing has. What users own of it, labels, annotations, taints and
``spec.unschedulable``, stays as they left it; deleted, it comes back without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tandem import __version__
from tandem.api.kind import Doc
from tandem.api.meta import condition, get, now, set_condition
from tandem.api.quantity import canonical
from tandem.api.release import git_version
from tandem.api.rest import prepare_create
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context, Node
from tandem.control.queue import WorkQueue
from tandem.control.runtime import Runtime
from tandem.errors import AlreadyExists
from tandem.host import nodefacts
from tandem.host.nodefacts import Identity, Pressure
from tandem.runtimes.adapter import Fingerprint
from tandem.store import Key

RESOURCE = "nodes"

MAX_PODS = 4096
"""What the Node says it has room for; the address range and the processor end sooner."""

_LOOK_SECONDS = 10.0  # the kubelet's own interval for pressure; a look takes 0.1 ms
_FIRST_LOOK_SECONDS = 0.5  # until every runtime has said once how it is

_CONDITIONS = {
    # type: (reason, message, event) without and with pressure, in the kubelet's words
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}

_UNASKED = "container runtime status check may not have completed yet"


class Nodes:
    """See the module's docstring. ``runtimes`` by type; ``storage`` is the file system whose size is
    the Pods' ephemeral storage."""

    def __init__(self, context: Context, runtimes: Mapping[str, Runtime], storage: Path) -> None:
        self._context = context
        self._store = context.store
        self._node = context.node
        self._kind = context.kind(RESOURCE)
        self._runtimes = runtimes
        self._storage = storage
        self.key = Key(RESOURCE, "", context.node.name)
        self.queue: WorkQueue[str] = WorkQueue("node", self.reconcile)
        self._identity: Identity | None = None
        self._unschedulable: bool | None = None
        context.changes.on(RESOURCE, self._changed)

    def look(self) -> None:
        """Something may have turned."""
        self.queue.add(self.key.name)

    async def ensure(self) -> None:
        """The object is there, with what is known by now."""
        await self.reconcile(self.key.name)

    def _changed(self, change: Change) -> None:
        if change.key != self.key:
            return
        if change.deleted:
            self.look()
            return
        unschedulable = bool(get(change.doc, "spec.unschedulable"))
        if self._unschedulable not in (None, unschedulable):
            self._say(change.doc, "NodeNotSchedulable" if unschedulable else "NodeSchedulable")
        self._unschedulable = unschedulable

    async def reconcile(self, name: str) -> float:
        """Write what is not as it should be; returns the seconds after which to look again."""
        if self._identity is None:
            self._identity = await asyncio.to_thread(nodefacts.identity, self._storage)
        pressure = nodefacts.pressure(self._storage)
        if objects.find(self._store, self.key) is None:
            await self._create()
        before: list[Doc] = []

        def alter(doc: Doc) -> None:
            assert self._identity is not None, "it was read above"
            before.append({"status": get(doc, "status", {})})
            fingerprint = self._fingerprint()
            doc["metadata"]["labels"] = {
                **(doc["metadata"].get("labels") or {}),
                **host_labels(self._node, self._identity),
            }
            doc["status"] = node_status(
                get(doc, "status", {}), self._node, self._identity, pressure, fingerprint
            )

        doc = await objects.change(self._store, self.key, "", alter)
        if doc is not None:
            self._tell(before[-1], doc)
        asked = all(runtime.fingerprint for runtime in self._runtimes.values())
        return _LOOK_SECONDS if asked else _FIRST_LOOK_SECONDS

    async def _create(self) -> None:
        doc = prepare_create(self._kind, {"metadata": {"name": self.key.name}}, namespace="").doc
        try:
            await self._store.create(self.key, doc)
        except AlreadyExists:
            return

    def _fingerprint(self) -> Fingerprint | None:
        """How the runtime of the containers is; None: it was not asked yet, or there is none."""
        runtime = self._runtimes.get("container")
        return runtime.fingerprint if runtime else None

    def _tell(self, before: Doc, doc: Doc) -> None:
        booted = get(before, "status.nodeInfo.bootID")
        boot_id = get(doc, "status.nodeInfo.bootID", "")
        if booted and booted != boot_id:
            message = f"Node {self.key.name} has been rebooted, boot id: {boot_id}"
            self._context.recorder.warning(_by_name(doc), "Rebooted", message)
        for type_ in (*_CONDITIONS, "Ready"):
            old, new = condition(before, type_), condition(doc, type_)
            if old and new and old["status"] != new["status"] and old["message"] != _UNASKED:
                self._say(doc, new["reason"].replace("Kubelet", "Node", 1))

    def _say(self, doc: Doc, reason: str) -> None:
        message = f"Node {self.key.name} status is now: {reason}"
        self._context.recorder.normal(_by_name(doc), reason, message)


def _by_name(doc: Doc) -> Doc:
    """The Node as its Events name it: a kubelet does not know the UID, and kubectl looks for the name
    in its place."""
    return {**doc, "metadata": {**doc["metadata"], "uid": doc["metadata"]["name"]}}


def host_labels(node: Node, identity: Identity) -> dict[str, str]:
    """The labels that say which host this is; a user cannot change them for long."""
    return {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": identity.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": identity.architecture,
    }


def node_status(
    before: Doc,
    node: Node,
    identity: Identity,
    pressure: Pressure,
    fingerprint: Fingerprint | None,
) -> Doc:
    """The status that follows from the facts; the very same as ``before`` when nothing turned."""
    capacity = {
        "cpu": canonical(f"{node.cpu_millis}m"),
        "memory": f"{node.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{identity.storage_bytes // 1024}Ki",
        "pods": str(MAX_PODS),
        **{
            f"hugepages-{canonical(f'{kib}Ki')}": canonical(f"{size // 1024}Ki")
            for kib, size in identity.hugepages.items()
        },
    }
    free = node.memory_bytes - sum(identity.hugepages.values())
    runtime = "<unknown>"
    if fingerprint and fingerprint.version:
        runtime = f"{fingerprint.name}://{fingerprint.version.removeprefix('v')}"
    elif known := get(before, "nodeInfo.containerRuntimeVersion"):
        runtime = known  # it is away, and was this
    status = {
        **before,
        "capacity": capacity,
        "allocatable": {**capacity, "memory": f"{max(0, free) // 1024}Ki"},
        "addresses": [
            {"type": "InternalIP", "address": node.address},
            {"type": "Hostname", "address": node.name},
        ],
        "nodeInfo": {
            "machineID": identity.machine_id,
            "systemUUID": identity.system_uuid,
            "bootID": identity.boot_id,
            "kernelVersion": identity.kernel,
            "osImage": identity.os_image,
            "containerRuntimeVersion": runtime,
            "kubeletVersion": git_version(__version__),
            "kubeProxyVersion": git_version(__version__),
            "operatingSystem": "linux",
            "architecture": identity.architecture,
        },
        "conditions": [dict(entry) for entry in before.get("conditions") or ()],
    }
    _set_conditions(status["conditions"], pressure, fingerprint)
    return status


def _set_conditions(
    conditions: list[Doc], pressure: Pressure, fingerprint: Fingerprint | None
) -> None:
    pressed = {
        "MemoryPressure": pressure.memory,
        "DiskPressure": pressure.disk,
        "PIDPressure": pressure.processes,
    }
    turned = False
    for type_, has in pressed.items():
        reason, message = _CONDITIONS[type_][has]
        turned |= set_condition(conditions, type_, str(has), reason, message)
    if fingerprint is not None:
        turned |= set_condition(conditions, "Ready", *_readiness(fingerprint))
    elif condition({"status": {"conditions": conditions}}, "Ready") is None:
        turned |= set_condition(conditions, "Ready", "False", "KubeletNotReady", _UNASKED)
    if turned:
        for entry in conditions:
            entry["lastHeartbeatTime"] = now()


def _readiness(fingerprint: Fingerprint) -> tuple[str, str, str]:
    if fingerprint.healthy:
        return "True", "KubeletReady", "kubelet is posting ready status"
    if not fingerprint.version:
        return "False", "KubeletNotReady", f"container runtime is down: {fingerprint.problem}"
    return "False", "KubeletNotReady", f"container runtime not ready: {fingerprint.problem}"
