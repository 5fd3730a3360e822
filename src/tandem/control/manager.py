"""Puts the loops together, starts them in order and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

from tandem.api.kind import Registry
from tandem.config import Settings
from tandem.control import bootstrap
from tandem.control.changes import Changes
from tandem.control.context import Context, Node
from tandem.control.garbage import Garbage
from tandem.control.instances import Instances
from tandem.control.machinefiles import HostMachineFiles, MachineFiles
from tandem.control.machines import Machines
from tandem.control.namespaces import Namespaces
from tandem.control.node import Nodes
from tandem.control.owners.loops import Owners
from tandem.control.pods.handlers import Handlers
from tandem.control.pods.loop import Pods
from tandem.control.pods.volumes import Volumes
from tandem.control.recorder import Recorder
from tandem.control.runtime import Runtime
from tandem.control.serviceaccounts import ServiceAccounts
from tandem.control.storage.loop import Storage
from tandem.control.workloads import Workloads
from tandem.errors import TandemError
from tandem.runtimes.adapter import EventKind, Fingerprint, RuntimeAdapter
from tandem.store import Store

logger = logging.getLogger(__name__)

FIRST_LIST_SECONDS = 0.2
"""How long a start waits for the runtimes' lists, which spare asking for each workload. One that takes
longer (libvirt probing its emulators for the first time) is not waited for."""


_ECHOES = {"container": (EventKind.CREATED, EventKind.STARTED)}
"""Nobody but the Pod loop starts a container of a Pod."""


class Manager:
    """All loops on one store. ``adapters`` has ``container`` and ``vm``, or one of them.

    ``node`` and ``files`` are the host's own unless they are given.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        adapters: Mapping[str, RuntimeAdapter],
        settings: Settings,
        *,
        node: Node | None = None,
        files: MachineFiles | None = None,
    ) -> None:
        self.node = node or Node.this()
        self.runtimes = {
            name: Runtime(adapter, echoes=_ECHOES.get(name, ()))
            for name, adapter in adapters.items()
        }
        changes = Changes(store, [kind.resource for kind in registry])
        recorder = Recorder(store, changes, host=self.node.name)
        context = Context(store, registry, changes, recorder, self.node)
        self._store = store
        self._context = context
        self._changes = changes
        self._recorder = recorder
        self.namespaces = Namespaces(context)
        self.nodes = Nodes(context, self.runtimes, settings.data_dir)
        self.garbage = Garbage(context)
        self.machines = Machines(context)
        self.owners = Owners(context)
        self.accounts = ServiceAccounts(context, settings.data_dir / "pki" / "ca.crt")
        self.storage = Storage(context, settings.data_dir / "volumes")
        self.pods: Pods | None = None
        self.volumes: Volumes | None = None
        self.instances: Instances | None = None
        if runtime := self.runtimes.get("container"):
            self.volumes = Volumes(context, runtime, settings.data_dir / "pods")
            self.pods = Pods(context, runtime, self.volumes, Handlers(runtime))
        if runtime := self.runtimes.get("vm"):
            files = files or HostMachineFiles(settings.data_dir, adapters.get("container"))
            self.instances = Instances(context, runtime, files)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up everything that is in the store and in the runtimes. Does not wait for runtimes
        that are away; they are taken up when they come back."""
        await self.namespaces.ensure()
        await self.nodes.ensure()
        await bootstrap.ensure(self._context)
        await self.storage.ensure()
        for name, runtime in self.runtimes.items():
            self._spawn(f"first-list-{name}", self._prime(runtime))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FIRST_LIST_SECONDS)
        if self.instances is not None:
            with contextlib.suppress(TandemError):
                await self.instances.sweep_files()
        with contextlib.suppress(TandemError):
            await self._sweep_volumes()
        self._changes.start()
        self._recorder.start()
        self.nodes.look()
        for name, loop in (("container", self.pods), ("vm", self.instances)):
            if loop is None:
                continue
            runtime, workloads = self.runtimes[name], loop.workloads
            self._spawn(f"events-{name}", runtime.follow(workloads.look, workloads.listed))
            self._spawn(f"health-{name}", runtime.watch_health(partial(self._turned, workloads)))

    async def stop(self) -> None:
        """Stop all loops; workloads go on. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self.pods is not None:
            await self.pods.close()
        if self.volumes is not None:
            await self.volumes.close()
        await asyncio.gather(*(queue.close() for queue in self._queues()))
        await self._recorder.close()
        await self._changes.close()

    async def fingerprints(self) -> dict[str, Fingerprint]:
        """How each runtime is, as it was when it was last asked."""
        return {
            name: runtime.fingerprint or await runtime.check()
            for name, runtime in self.runtimes.items()
        }

    async def settled(self) -> None:
        """Return when no loop has anything to do now (timers do not count); for tests and trials."""
        calm = 0
        while calm < 3:
            await asyncio.sleep(0.001)
            busy = any(queue.busy for queue in self._queues())
            busy = busy or (self.pods is not None and self.pods.busy)
            calm = 0 if busy else calm + 1

    async def _sweep_volumes(self) -> None:
        """Remove the volumes of Pods that nobody knows any more, neither the store nor the runtime
        (which must have been asked, or nothing is removed)."""
        if self.volumes is None or (found := self.runtimes["container"].found) is None:
            return
        uids = {str(doc["metadata"]["uid"]) for doc in self._store.list("pods").items}
        await self.volumes.sweep(uids | found)

    def _queues(self) -> list[Any]:
        loops: list[Any] = [self.machines, self.namespaces, self.garbage, self.nodes]
        loops += [self.accounts, self.storage]
        loops += [loop.workloads for loop in (self.pods, self.instances) if loop is not None]
        return [*(loop.queue for loop in loops), *self.owners.queues]

    def _turned(self, workloads: Workloads) -> None:
        """A runtime went away or came back."""
        self.nodes.look()
        workloads.look_at_all()

    @staticmethod
    async def _prime(runtime: Runtime) -> None:
        try:
            await runtime.prime()
        except TandemError as error:
            logger.warning("%s is not there yet: %s", runtime.name, error)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))
