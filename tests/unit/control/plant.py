"""A manager on the in-memory runtime and an in-memory store, and the moves of a user."""

from __future__ import annotations

import asyncio
import copy
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from tandem.api.kind import Doc, Kind
from tandem.api.kinds import REGISTRY
from tandem.api.meta import condition, get
from tandem.api.rest import prepare_create, prepare_delete, prepare_update
from tandem.config import Settings
from tandem.control.context import Node
from tandem.control.manager import Manager
from tandem.control.pods.podfields import Lookup
from tandem.control.pods.volumes.sources import MissingSource
from tandem.errors import NotFound, TandemError
from tandem.runtimes.memory import MemoryAdapter, MemoryRuntime
from tandem.runtimes.memory.world import Workload
from tandem.store import Key, Store

FAKE_TIME = pytest.mark.looptime(start=time.monotonic)
"""The clock jumps to the next timer when nobody has anything to do. It starts at the real time, which
the timers that fixtures have set go by."""

NODE = Node("node-1", "192.0.2.10", memory_bytes=8 << 30, cpu_millis=4000)


class FakeFiles:
    """Machine files that are only names; what the guest does is said by an annotation."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.error: TandemError | None = None
        self.hold: asyncio.Event | None = None

    async def domain_xml(self, uid: str, vmi: Doc, *, lookup: Lookup) -> str:
        for volume in vmi["spec"].get("volumes") or ():
            if name := get(volume, "cloudInitNoCloud.secretRef.name"):
                key = Key("secrets", vmi["metadata"]["namespace"], name)
                if lookup(key) is None:
                    raise MissingSource(f'secret "{name}" not found', key)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.present.add(uid)
        words = get(vmi, "metadata.annotations", {}).get("guest", "serve")
        return f"<domain><name>{uid}</name><description>{words}</description></domain>"

    async def remove(self, uid: str) -> None:
        self.present.discard(uid)

    async def sweep(self, keep: Collection[str]) -> list[str]:
        stale = sorted(self.present - set(keep))
        self.present &= set(keep)
        return stale


class Plant:
    """The whole of it. ``containers`` and ``machines`` are the runtimes, which outlive a restart."""

    def __init__(self, store: Store, node: Node = NODE) -> None:
        self.store = store
        self.node = node
        self.containers = MemoryRuntime()
        self.containers.present.add("demo:1")
        self.machines = MemoryRuntime()
        self.files = FakeFiles()
        self.folder = Path(tempfile.mkdtemp(prefix="plant-"))
        self.manager = self._manager()

    def _manager(self) -> Manager:
        adapters = {
            "container": MemoryAdapter(self.containers),
            "vm": MemoryAdapter(self.machines),
        }
        settings = Settings(data_dir=self.folder)
        return Manager(self.store, REGISTRY, adapters, settings, node=self.node, files=self.files)

    async def start(self) -> None:
        """Start the loops and let them settle."""
        await self.manager.start()
        await self.settle()

    async def stop(self) -> None:
        """Stop the loops."""
        await self.manager.stop()

    async def restart(self) -> None:
        """A new daemon on the same store and runtimes."""
        await self.manager.stop()
        self.manager = self._manager()
        await self.start()

    async def settle(self) -> None:
        """Wait until nobody has anything to do."""
        await self.manager.settled()

    # -- a user's moves ----------------------------------------------------------------------

    async def create(self, plural: str, doc: Doc, namespace: str = "default") -> Doc:
        kind = _kind(plural)
        prepared = prepare_create(
            kind, copy.deepcopy(doc), namespace=namespace if kind.namespaced else ""
        )
        return await self.store.create(_key(kind, prepared.doc), prepared.doc)

    async def pod(self, name: str, *command: str, **spec: Any) -> Doc:
        image = spec.pop("image", "demo:1")
        container = {"name": "main", "image": image, "command": list(command or ("serve",))}
        spec.setdefault("containers", [container])
        return await self.create("pods", {"metadata": {"name": name}, "spec": spec})

    async def vm(self, name: str, guest: str = "serve", **spec: Any) -> Doc:
        spec.setdefault("runStrategy", "Always")
        template = {
            "metadata": {"annotations": {"guest": guest}},
            "spec": {"domain": {"resources": {"requests": {"memory": "64Mi"}}}},
        }
        template["spec"] |= spec.pop("template_spec", {})
        doc = {"metadata": {"name": name}, "spec": {**spec, "template": template}}
        return await self.create("virtualmachines", doc)

    async def update(
        self,
        plural: str,
        name: str,
        alter: Callable[[Doc], None],
        subresource: str = "",
        namespace: str = "default",
    ) -> Doc:
        kind = _kind(plural)
        key = Key(kind.resource, namespace if kind.namespaced else "", name)
        old = self.store.get(key)
        new = copy.deepcopy(old)
        alter(new)
        return await self.store.update(
            key, prepare_update(kind, new, old, subresource=subresource).doc
        )

    async def delete(
        self, plural: str, name: str, namespace: str = "default", **options: Any
    ) -> None:
        kind = _kind(plural)
        key = Key(kind.resource, namespace if kind.namespaced else "", name)
        decision = prepare_delete(kind, self.store.get(key), options)
        if decision.remove_now:
            await self.store.delete(key)
        else:
            await self.store.update(key, decision.doc)

    # -- looking -----------------------------------------------------------------------------

    def get(self, plural: str, name: str, namespace: str = "default") -> Doc:
        kind = _kind(plural)
        return self.store.get(Key(kind.resource, namespace if kind.namespaced else "", name))

    def exists(self, plural: str, name: str, namespace: str = "default") -> bool:
        try:
            self.get(plural, name, namespace)
        except NotFound:
            return False
        return True

    def phase(self, plural: str, name: str) -> str:
        return str(get(self.get(plural, name), "status.phase", ""))

    def container(self, pod: str, name: str = "main") -> Doc:
        """The status of a Pod's container."""
        statuses = get(self.get("pods", pod), "status.containerStatuses", [])
        return next(dict(entry) for entry in statuses if entry["name"] == name)

    def workload(self, pod: str) -> Workload:
        """What the runtime has of a Pod."""
        return self.containers.workloads["tandem", self.uid("pods", pod)]

    def condition(self, plural: str, name: str, type_: str) -> Doc:
        return condition(self.get(plural, name), type_) or {}

    def uid(self, plural: str, name: str) -> str:
        return str(self.get(plural, name)["metadata"]["uid"])

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """Type, reason and message of what was said about ``name``, oldest first."""
        found = [
            doc for doc in self.store.list("events").items if doc["involvedObject"]["name"] == name
        ]
        found.sort(key=lambda doc: int(doc["metadata"]["resourceVersion"]))
        return [(doc["type"], doc["reason"], doc["message"]) for doc in found]

    def reasons(self, name: str) -> list[str]:
        return [reason for _, reason, _ in self.events(name)]


def _kind(plural: str) -> Kind:
    return next(kind for kind in REGISTRY if kind.plural == plural)


def _key(kind: Kind, doc: Doc) -> Key:
    metadata = doc["metadata"]
    return Key(kind.resource, metadata.get("namespace", ""), metadata["name"])
