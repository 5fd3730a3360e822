"""The in-memory adapter: the whole contract, without a runtime, without root, without waiting.

It takes container specs and domain XML alike. What a workload does is said by its command (see
:mod:`tandem.runtimes.memory.script`); what goes wrong, by ``runtime.faults``; and a test may end,
crash or remove a workload through the :class:`MemoryRuntime` that it hands in.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary
from xml.etree import ElementTree

from tandem.errors import (
    AlreadyExists,
    Cause,
    Conflict,
    InvalidSpec,
    NotFound,
    Unavailable,
)
from tandem.runtimes.adapter import (
    LABEL_ID,
    LABEL_OWNER,
    LABEL_SPEC_HASH,
    EventKind,
    Fingerprint,
    Phase,
    RuntimeAdapter,
    RuntimeEvent,
    RuntimeHandle,
    RuntimeSpec,
    RuntimeStatus,
)
from tandem.runtimes.capabilities import (
    ImageFile,
    LogOptions,
    PulledImage,
    RegistryCredentials,
    WorkloadUsage,
)
from tandem.runtimes.memory.console import EchoConsole
from tandem.runtimes.memory.faults import Faults
from tandem.runtimes.memory.images import pull, unpullable
from tandem.runtimes.memory.logs import select, stamped
from tandem.runtimes.memory.script import plan
from tandem.runtimes.memory.spec import check, container_of, pod_spec, spec_hash
from tandem.runtimes.memory.stats import used
from tandem.runtimes.memory.streams import StreamVerbs
from tandem.runtimes.memory.world import Container, MemoryRuntime, Workload

HANDLE_VERSION = 1
DEFAULT_GRACE_SECONDS = 30.0
STRANGER = "somebody-else"

_CAPABILITIES = frozenset(
    [
        "Attach",
        "Console",
        "Containers",
        "Exec",
        "ImageDirectories",
        "ImageFiles",
        "Images",
        "Logs",
        "Pause",
        "PortForward",
        "Stats",
    ]
)


class MemoryAdapter(StreamVerbs, RuntimeAdapter):
    """A :class:`RuntimeAdapter` on a :class:`MemoryRuntime`, one of its own by default."""

    name: ClassVar[str] = "memory"

    def __init__(self, runtime: MemoryRuntime | None = None, *, owner: str = "tandem") -> None:
        self.runtime = runtime or MemoryRuntime()
        self.owner = owner
        # One create at a time for each id; a lock goes when nobody holds or awaits it any more.
        self._creating: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def faults(self) -> Faults:
        """The runtime's failure injection."""
        return self.runtime.faults

    # -- the contract ------------------------------------------------------------------------

    async def fingerprint(self) -> Fingerprint:
        if not self.runtime.available:
            return Fingerprint(
                self.name, "", False, "the in-memory runtime is switched off", "switch it on again"
            )
        return Fingerprint(
            self.name,
            "1",
            True,
            capabilities=_CAPABILITIES,
            details={"accelerator": "qemu", "emulation_reason": "nothing is really run"},
        )

    async def create(self, spec: RuntimeSpec) -> RuntimeStatus:
        await self._reach("create")
        check(spec)
        lock = self._creating.setdefault(spec.id, asyncio.Lock())
        async with lock:
            return await self._create(spec)

    async def _create(self, spec: RuntimeSpec) -> RuntimeStatus:
        digest = spec_hash(spec)
        if existing := self.runtime.find(self.owner, spec.id):
            if existing.spec_hash != digest:
                raise AlreadyExists(f"workload {spec.id!r} exists with another spec")
            return self._status(existing)
        # Built aside and registered in one step at the end: a failure or a cancellation at any
        # step before that leaves nothing to be undone.
        workload = self._build(spec, digest)
        for container in workload.containers.values():
            await self.faults.at("create.pull")
            if container.image in self.runtime.unpullable:
                raise unpullable(container.image, container.name)
            if missing := container.plan.missing:
                raise InvalidSpec(f"container {container.name!r} cannot be started: {missing}")
        await self.faults.at("create.define")
        await self.faults.at("create.start")
        self.runtime.add(workload)
        for container in workload.containers.values():
            self.runtime.start(workload, container)
        return self._status(workload)

    async def delete(self, id: str, *, grace_seconds: float | None = None) -> None:
        await self._reach("delete")
        workload = self.runtime.find(self.owner, id)
        if workload is None:
            return
        await self.runtime.stop(
            workload, workload.grace if grace_seconds is None else grace_seconds
        )
        await self.faults.at("delete.remove")
        if self.runtime.find(self.owner, workload.id) is workload:
            self.runtime.remove(workload)

    async def get_status(self, id: str) -> RuntimeStatus:
        await self._reach("get_status")
        return self._status(self._find(id))

    async def list(self, *, strangers: bool = False) -> Sequence[RuntimeStatus]:
        await self._reach("list")
        return [self._status(w) for w in self.runtime.of(self.owner, strangers=strangers)]

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            await self.runtime.wait_available()
            queue = self.runtime.subscribe(self.owner)
            try:
                yield RuntimeEvent(EventKind.RESYNC)
                while (event := await queue.get()) is not None:
                    yield event
            finally:
                self.runtime.unsubscribe(queue)

    async def recover(self, handle: RuntimeHandle) -> RuntimeStatus:
        if handle.adapter != self.name or handle.version != HANDLE_VERSION:
            raise InvalidSpec(
                f"handle of {handle.adapter} version {handle.version} is not one of {self.name} "
                f"version {HANDLE_VERSION}",
                causes=[Cause("handle", "another adapter's, or of another version")],
            )
        await self._reach("recover")
        return self._status(self._find(handle.data.get("id", "")))

    # -- Containers, Logs, Console, Pause, ImageFiles ----------------------------------------

    async def start_container(
        self, id: str, container: Mapping[str, Any], *, attempt: int
    ) -> RuntimeStatus:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        await self._reach("start_container")
        workload = self._find(id)
        new = container_of(container)
        old = workload.containers.get(new.name)
        if old is not None and old.attempt >= attempt:
            if old.phase is Phase.PENDING:
                self.runtime.start(workload, old)
            return self._status(workload)
        if old is not None and old.phase is Phase.RUNNING:
            raise Conflict(f"container {new.name!r} of {id!r} is still running")
        if workload.sandbox_lost:
            raise Conflict(f"the sandbox of Pod {id!r} is gone, and its containers with it")
        await self.faults.at("start_container.pull")
        if new.image in self.runtime.unpullable:
            raise unpullable(new.image, new.name)
        new.attempt = attempt
        if old is not None:
            new.previous = old.log
        workload.containers[new.name] = new
        self.runtime.start(workload, new)
        return self._status(workload)

    async def stop_container(self, id: str, container: str, *, grace_seconds: float) -> None:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        await self._reach("stop_container")
        if workload := self.runtime.find(self.owner, id):
            await self.runtime.stop(workload, grace_seconds, only=container)

    async def release(self, id: str) -> None:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        await self._reach("release")
        workload = self.runtime.find(self.owner, id)
        if workload is not None and not workload.sandbox_lost:
            self.runtime.lose_sandbox(id, owner=self.owner)

    async def pull_image(
        self,
        image: str,
        *,
        pull_policy: str = "IfNotPresent",
        credentials: Sequence[RegistryCredentials] = (),
    ) -> PulledImage:
        """See :class:`tandem.runtimes.capabilities.Images`."""
        await self._reach("pull_image")
        return await pull(self.runtime, image, pull_policy, credentials)

    async def image_directory(
        self,
        image: str,
        *,
        holder: str,
        pull_policy: str = "IfNotPresent",
        credentials: Sequence[RegistryCredentials] = (),
    ) -> Path:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`; they come from
        ``runtime.directories``."""
        await self._reach("image_directory")
        await pull(self.runtime, image, pull_policy, credentials)
        if (directory := self.runtime.directories.get(image)) is None:
            raise InvalidSpec(f"image {image!r} has no layers")
        self.runtime.holders.setdefault(holder, set()).add(image)
        return directory

    async def release_image_directories(self, holder: str) -> None:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`."""
        await self._reach("release_image_directories")
        self.runtime.holders.pop(holder, None)

    async def image_directory_holders(self) -> Collection[str]:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`."""
        return list(self.runtime.holders)

    async def logs(
        self, id: str, *, container: str = "", options: LogOptions
    ) -> AsyncIterator[bytes]:
        """See :class:`tandem.runtimes.capabilities.Logs`."""
        await self._reach("logs")
        workload = self._find(id)
        source = self._container_of(workload, container)
        lines = source.previous if options.previous else source.log
        chunk = select(lines, options)
        sent, seen = len(chunk), len(lines)
        if chunk:
            yield chunk
        while options.follow and not options.previous:
            changed = workload.changed
            fresh, seen = source.log[seen:], len(source.log)
            for line in fresh:
                text = stamped(line) if options.timestamps else line[1]
                if options.limit_bytes is not None:
                    text = text[: max(0, options.limit_bytes - sent)]
                    if not text:
                        return
                sent += len(text)
                yield text
            if source.phase is not Phase.RUNNING and seen == len(source.log):
                return
            if not fresh:
                await changed.wait()

    async def usage(self) -> Sequence[WorkloadUsage]:
        """See :class:`tandem.runtimes.capabilities.Stats`."""
        await self._reach("usage")
        return used(self.runtime.of(self.owner, strangers=False))

    async def open_console(self, id: str) -> EchoConsole:
        """See :class:`tandem.runtimes.capabilities.Console`: this one says back what it is told."""
        await self._reach("open_console")
        workload = self._find(id)
        if not workload.machine or not workload.running:
            raise Conflict(f"{id!r} has no console: it is not a running machine")
        if isinstance(workload.console_owner, EchoConsole):
            await workload.console_owner.close()
        workload.console_owner = console = EchoConsole()
        return console

    async def pause(self, id: str) -> RuntimeStatus:
        """See :class:`tandem.runtimes.capabilities.Pause`."""
        return await self._set_paused(id, True)

    async def resume(self, id: str) -> RuntimeStatus:
        """See :class:`tandem.runtimes.capabilities.Pause`."""
        return await self._set_paused(id, False)

    async def _set_paused(self, id: str, paused: bool) -> RuntimeStatus:
        await self._reach("pause" if paused else "resume")
        workload = self._find(id)
        if not workload.running:
            raise Conflict(f"{id!r} is not running")
        if workload.paused is not paused:
            workload.paused = paused
            self.runtime.publish(workload, EventKind.PAUSED if paused else EventKind.RESUMED)
        return self._status(workload)

    async def image_file(
        self, image: str, path: str | None, *, pull_policy: str = "IfNotPresent"
    ) -> ImageFile:
        """See :class:`tandem.runtimes.capabilities.ImageFiles`; files come from ``runtime.images``."""
        await self._reach("image_file")
        if image in self.runtime.unpullable:
            raise unpullable(image)
        if (file := self.runtime.images.get((image, path))) is None:
            raise InvalidSpec(f"image {image!r} has no file {path or '/disk/*'!r}")
        return ImageFile(digest=f"sha256:{hashlib.sha256(image.encode()).hexdigest()}", path=file)

    # -- inside ------------------------------------------------------------------------------

    async def _reach(self, verb: str) -> None:
        await self.faults.at(verb)
        if not self.runtime.available:
            raise Unavailable("the in-memory runtime is switched off")

    def _find(self, id: str) -> Workload:
        workload = self.runtime.find(self.owner, id)
        if workload is None:
            raise NotFound(f"no workload {id!r}")
        return workload

    @staticmethod
    def _container_of(workload: Workload, name: str) -> Container:
        if not name and len(workload.containers) == 1:
            return next(iter(workload.containers.values()))
        if name not in workload.containers:
            raise NotFound(f"workload {workload.id!r} has no container {name!r}")
        return workload.containers[name]

    def _build(self, spec: RuntimeSpec, digest: str) -> Workload:
        containers: Sequence[Container]
        grace = DEFAULT_GRACE_SECONDS
        if spec.vm_xml is not None:
            domain = ElementTree.fromstring(spec.vm_xml)
            words = (domain.findtext("description") or "").split()
            containers = [Container("", "", plan(words))]
            identifier = domain.findtext("uuid") or str(uuid.uuid4())
        else:
            pod = pod_spec(spec)
            grace = float(pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))
            containers = [container_of(doc) for doc in pod["containers"]]
            identifier = ""
        return Workload(
            spec=spec,
            owner=self.owner,
            spec_hash=digest,
            uuid=identifier,
            address=self.runtime.next_address(),
            machine=spec.vm_xml is not None,
            grace=grace,
            sandbox_only=not containers,
            containers={c.name: c for c in containers},
        )

    def _status(self, workload: Workload) -> RuntimeStatus:
        pairs = [(c, c.status()) for c in workload.containers.values()]
        phase = workload.phase()
        ended = phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED)
        worst = None
        if ended and not workload.sandbox_only:
            worst = max(pairs, key=lambda pair: pair[1].exit_code or 0)[1]
        lost = workload.sandbox_lost
        return RuntimeStatus(
            phase=phase,
            id=workload.uuid if workload.machine else workload.id,
            spec_id=workload.id,
            handle=RuntimeHandle(self.name, HANDLE_VERSION, {"id": workload.id}),
            exit_code=worst.exit_code if worst and not workload.machine else None,
            reason=worst.reason if worst else "SandboxLost" if lost else "",
            message=worst.message if worst else "the Pod's sandbox is gone" if lost else "",
            created_at=workload.created_at,
            started_at=_extreme(min, [c.started_at for c, _ in pairs]),
            finished_at=_extreme(max, [c.finished_at for c, _ in pairs]) if ended else None,
            addresses=(workload.address,) if workload.reachable else (),
            containers=() if workload.machine else tuple(status for _, status in pairs),
            labels={
                **workload.spec.labels,
                LABEL_ID: workload.id,
                LABEL_OWNER: workload.owner,
                LABEL_SPEC_HASH: workload.spec_hash,
            },
            details={"accelerator": "qemu"} if workload.machine else {},
        )


def add_stranger(runtime: MemoryRuntime, id: str) -> None:
    """Put a running workload into ``runtime`` that no Tandem made."""
    spec = RuntimeSpec(id, container_spec={"image": "stranger"})
    workload = MemoryAdapter(runtime, owner=STRANGER)._build(spec, "")
    runtime.add(workload)
    for container in workload.containers.values():
        runtime.start(workload, container)


def _extreme(choose: Callable[..., Any], values: Sequence[Any]) -> Any:
    present = [value for value in values if value is not None]
    return choose(present) if present else None
