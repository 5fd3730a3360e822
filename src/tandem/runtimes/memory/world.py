"""The pretend runtime behind the in-memory adapter: it outlives adapters, as a real daemon would.

Two adapters on one ``MemoryRuntime`` are two clients of one containerd. A workload costs one small
object and at most one timer, never a task, so ten thousand of them are no burden.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tandem.runtimes.adapter import (
    LABEL_SHUTDOWN_PHASE,
    ContainerStatus,
    EventKind,
    Phase,
    RuntimeEvent,
    RuntimeSpec,
)
from tandem.runtimes.capabilities import RegistryCredentials
from tandem.runtimes.memory.faults import Faults
from tandem.runtimes.memory.processes import PROGRAMS, Listener, Program
from tandem.runtimes.memory.script import Plan

LAG_LIMIT = 4096
"""Events a consumer may fall behind before it is sent RESYNC instead."""

_KILLED = 137
_TERMINATED = 143


def utc_now() -> datetime:
    """The time as the runtime records it."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Container:
    """One container, newest attempt; ``previous`` is the log of the attempt before.

    ``message_path``: the file whose content at the end is the message; ``logs_are_message``: where
    there is none and it failed, the end of the log is."""

    name: str
    image: str
    plan: Plan
    attempt: int = 0
    container_id: str = field(default_factory=lambda: f"memory://{uuid.uuid4().hex}")
    phase: Phase = Phase.PENDING
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    created_at: datetime = field(default_factory=utc_now)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    log: list[tuple[datetime, bytes]] = field(default_factory=list)
    previous: list[tuple[datetime, bytes]] = field(default_factory=list)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    message_path: str = ""
    logs_are_message: bool = False

    def status(self) -> ContainerStatus:
        """The status as the adapter reports it."""
        return ContainerStatus(
            name=self.name,
            phase=self.phase,
            container_id=self.container_id,
            image=self.image,
            image_id=f"memory:{self.image}",
            attempt=self.attempt,
            exit_code=self.exit_code,
            reason=self.reason,
            message=self.message,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
        )


@dataclass(slots=True)
class Workload:
    """A Pod, or a machine: then it has exactly one container, named ``""``, that is the guest."""

    spec: RuntimeSpec
    owner: str
    spec_hash: str
    uuid: str
    address: str
    machine: bool
    grace: float
    containers: dict[str, Container] = field(default_factory=dict)
    sandbox_only: bool = False
    sandbox_lost: bool = False
    paused: bool = False
    created_at: datetime = field(default_factory=utc_now)
    console_owner: object | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The caller's name for it."""
        return self.spec.id

    @property
    def running(self) -> bool:
        """Whether any container still runs."""
        return any(c.phase is Phase.RUNNING for c in self.containers.values())

    @property
    def reachable(self) -> bool:
        """Whether it has an address."""
        return not self.sandbox_lost if self.sandbox_only else self.running

    def phase(self) -> Phase:
        """The workload's phase, out of its containers' phases."""
        phases = [c.phase for c in self.containers.values()]
        if self.sandbox_only:
            return Phase.FAILED if self.sandbox_lost else Phase.RUNNING
        if self.paused:
            return Phase.PAUSED
        if Phase.RUNNING in phases:
            return Phase.RUNNING
        if not phases or Phase.PENDING in phases:
            return Phase.PENDING
        if Phase.FAILED in phases:
            return Phase.FAILED
        if self.machine and self.spec.labels.get(LABEL_SHUTDOWN_PHASE) != Phase.SUCCEEDED:
            return Phase.STOPPED
        return Phase.SUCCEEDED


class MemoryRuntime:
    """All workloads of all owners, the subscribers to their events, and the faults to inject.

    ``images``: files that ``image_file`` finds, by image and path (path None: the single disk).
    ``directories``: images with a whole file system. ``unpullable``: images that cannot be pulled.
    ``private``: the credentials without which an image cannot. ``present``: images that need not be
    pulled. ``available``: False makes every call fail. ``programs`` and ``ports``: what commands in
    containers do, and who listens in them (see :mod:`tandem.runtimes.memory.processes`).
    """

    def __init__(self) -> None:
        self.faults = Faults()
        self.images: dict[tuple[str, str | None], Path] = {}
        self.directories: dict[str, Path] = {}
        self.holders: dict[str, set[str]] = {}
        self.unpullable: set[str] = set()
        self.private: dict[str, RegistryCredentials] = {}
        self.present: set[str] = set()
        self.programs: dict[str, Program] = dict(PROGRAMS)
        self.ports: dict[int, Listener] = {}
        self.workloads: dict[tuple[str, str], Workload] = {}
        self._by_uuid: dict[tuple[str, str], Workload] = {}
        self._subscribers: dict[asyncio.Queue[RuntimeEvent | None], str] = {}
        self._addresses = 0
        self._available = asyncio.Event()
        self._available.set()

    # -- what a test or a trial does to the runtime ------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the runtime answers; setting it to False also breaks the event streams."""
        return self._available.is_set()

    @available.setter
    def available(self, value: bool) -> None:
        if value:
            self._available.set()
        else:
            self._available.clear()
            self.drop_events()

    async def wait_available(self) -> None:
        """Return as soon as the runtime answers."""
        await self._available.wait()

    def drop_events(self) -> None:
        """Break every event stream: consumers reconnect and are told to list again."""
        for queue in self._subscribers:
            _offer(queue, None)

    def end(self, id: str, container: str = "", *, code: int = 0, owner: str = "tandem") -> None:
        """Let a workload's container (or the guest, or the only container) exit with ``code``."""
        workload = self.workloads[owner, id]
        name = container or next(iter(workload.containers))
        self._finish(
            workload, workload.containers[name], code, "Completed" if code == 0 else "Error"
        )

    def crash(self, id: str, *, owner: str = "tandem") -> None:
        """Kill everything in the workload from outside, as the OOM killer or an operator does."""
        workload = self.workloads[owner, id]
        for container in workload.containers.values():
            if container.phase is Phase.RUNNING:
                self._finish(
                    workload, container, _KILLED, "Crashed" if workload.machine else "Error"
                )

    def lose_sandbox(self, id: str, *, owner: str = "tandem") -> None:
        """Take a Pod's sandbox away, as a reboot of the host does; its containers end."""
        workload = self.workloads[owner, id]
        workload.sandbox_lost = True
        self.crash(id, owner=owner)
        self.publish(workload, EventKind.STOPPED)

    def vanish(self, id: str, *, owner: str = "tandem") -> None:
        """Remove a workload behind the adapter's back."""
        self.remove(self.workloads[owner, id])

    def write_log(self, id: str, text: str, container: str = "", *, owner: str = "tandem") -> None:
        """Append ``text`` to the output of a container."""
        workload = self.workloads[owner, id]
        target = workload.containers[container or next(iter(workload.containers))]
        self._output(workload, target, text.encode())

    # -- what the adapter does ---------------------------------------------------------------

    def add(self, workload: Workload) -> None:
        """Register a workload that has been built completely, and say so."""
        self.workloads[workload.owner, workload.id] = workload
        self._by_uuid[workload.owner, workload.uuid] = workload
        self.publish(workload, EventKind.CREATED)

    def remove(self, workload: Workload) -> None:
        """Take a workload away, whatever it does."""
        for container in workload.containers.values():
            _cancel_timers(container)
            if container.phase is Phase.RUNNING:
                container.phase = Phase.FAILED
        self.workloads.pop((workload.owner, workload.id), None)
        self._by_uuid.pop((workload.owner, workload.uuid), None)
        self._wake(workload)
        self.publish(workload, EventKind.DELETED)

    def find(self, owner: str, id: str) -> Workload | None:
        """By ``RuntimeSpec.id``, or by the UUID of a machine."""
        return self.workloads.get((owner, id)) or self._by_uuid.get((owner, id))

    def of(self, owner: str, *, strangers: bool) -> Iterator[Workload]:
        """This owner's workloads, or everybody else's."""
        return (w for w in list(self.workloads.values()) if (w.owner != owner) is strangers)

    def start(self, workload: Workload, container: Container) -> None:
        """Run a container's plan."""
        if missing := container.plan.missing:
            self._end(container, 128, "StartError", f"exec: {missing!r}: no such file or directory")
            self._wake(workload)
            self.publish(workload, EventKind.STOPPED, container.name)
            return
        self.publish(workload, EventKind.STARTED, container.name)
        container.phase = Phase.RUNNING
        container.started_at = utc_now()
        loop = asyncio.get_running_loop()
        for after, line in container.plan.outputs:
            if after == 0:
                self._output(workload, container, line)
            else:
                container.timers.append(
                    loop.call_later(after, self._output, workload, container, line)
                )
        if end := container.plan.end:
            after, code = end
            reason = "Completed" if code == 0 else "Error"
            container.timers.append(
                loop.call_later(after, self._finish, workload, container, code, reason)
            )

    async def stop(self, workload: Workload, grace: float, *, only: str | None = None) -> None:
        """Ask every container (or the one named ``only``) to end, wait ``grace`` seconds, then force
        the rest."""
        stopping = [c for c in workload.containers.values() if only in (None, c.name)]

        def running() -> bool:
            return any(container.phase is Phase.RUNNING for container in stopping)

        for container in stopping:
            if container.phase is Phase.RUNNING and grace > 0 and not container.plan.ignores_stop:
                self._finish(workload, container, *self._obeyed(workload))
        if running() and grace > 0:
            try:
                async with asyncio.timeout(grace):
                    while running():
                        await workload.changed.wait()
            except TimeoutError:
                pass
        for container in stopping:
            if container.phase is Phase.RUNNING:
                self._finish(workload, container, _KILLED, "Killed")

    @staticmethod
    def _obeyed(workload: Workload) -> tuple[int, str]:
        return (0, "Shutdown") if workload.machine else (_TERMINATED, "Error")

    def next_address(self) -> str:
        """An address nobody else has had; never reused, which 2^24 of them allow."""
        self._addresses += 1
        number = self._addresses
        return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    # -- events ------------------------------------------------------------------------------

    def subscribe(self, owner: str) -> asyncio.Queue[RuntimeEvent | None]:
        """A queue of this owner's events; None in it means that some were lost."""
        queue: asyncio.Queue[RuntimeEvent | None] = asyncio.Queue(LAG_LIMIT)
        self._subscribers[queue] = owner
        return queue

    def unsubscribe(self, queue: asyncio.Queue[RuntimeEvent | None]) -> None:
        """Stop filling ``queue``."""
        self._subscribers.pop(queue, None)

    def publish(self, workload: Workload, kind: EventKind, container: str = "") -> None:
        """Tell the owner's subscribers; one that is too far behind loses all and hears so."""
        event = RuntimeEvent(kind, workload.id, container)
        for queue, owner in self._subscribers.items():
            if owner == workload.owner:
                _offer(queue, event)

    def _output(self, workload: Workload, container: Container, text: bytes) -> None:
        now = utc_now()
        container.log.extend((now, line) for line in text.splitlines(keepends=True))
        self._wake(workload)

    def _finish(self, workload: Workload, container: Container, code: int, reason: str) -> None:
        if container.phase is not Phase.RUNNING:
            return
        self._end(container, code, reason, _last_words(container, code))
        workload.paused = False
        self._wake(workload)
        self.publish(workload, EventKind.STOPPED, container.name)

    @staticmethod
    def _end(container: Container, code: int, reason: str, message: str) -> None:
        _cancel_timers(container)
        container.phase = Phase.SUCCEEDED if code == 0 else Phase.FAILED
        container.exit_code = code
        container.reason = reason
        container.message = message
        container.finished_at = utc_now()

    @staticmethod
    def _wake(workload: Workload) -> None:
        workload.changed.set()
        workload.changed = asyncio.Event()


def _last_words(container: Container, code: int) -> str:
    """The termination message, of at most 4096 bytes, or 80 lines and 2048 bytes of the log."""
    message = container.plan.files.get(container.message_path, "")[-4096:]
    if not message and code and container.logs_are_message:
        return b"".join(line for _, line in container.log[-80:])[-2048:].decode(errors="replace")
    return message


def _cancel_timers(container: Container) -> None:
    for timer in container.timers:
        timer.cancel()
    container.timers.clear()


def _offer(queue: asyncio.Queue[RuntimeEvent | None], event: RuntimeEvent | None) -> None:
    try:
        queue.put_nowait(event)
    except asyncio.QueueFull:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)
