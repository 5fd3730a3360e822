"""Where events come from: containerd's own stream, CRI's, or, where a runtime has neither, looking.

A source runs until its stream breaks. It tells ``emit`` a ``RESYNC`` once it is sure to miss nothing
from then on, and what happens to this owner's workloads after that, and keeps ``sightings`` of what
CRI's status does not say yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from google.protobuf import any_pb2

from tandem.errors import NotFound, TandemError, Unavailable
from tandem.host import groups
from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER, EventKind, RuntimeEvent
from tandem.runtimes.cri._gen import containerd_containers_pb2 as containers
from tandem.runtimes.cri._gen import containerd_event_types_pb2 as types
from tandem.runtimes.cri._gen import containerd_events_pb2 as events
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import (
    CONTAINER_EVENTS,
    CONTAINERD_NAMESPACE,
    GET_CONTAINER,
    LIST_CONTAINERS,
    LIST_SANDBOXES,
    PUBLISH,
    SANDBOX_STATUS,
    SUBSCRIBE,
    CriClient,
)
from tandem.runtimes.cri.container import LABEL_CONTAINER_NAME
from tandem.runtimes.cri.status import Sighting

Emit = Callable[[RuntimeEvent], None]

_HELLO = "/tandem/subscribed"
_FILTERS = (
    'namespace==k8s.io,topic~="^/tasks/(start|exit|delete|oom|paused|resumed)$"',
    'namespace==k8s.io,topic~="^/containers/(create|delete)$"',
    f'namespace==k8s.io,topic=="{_HELLO}"',
)
_HELLO_INTERVAL = 0.05  # seconds; a subscription is there within some milliseconds
_HELLO_TIMEOUT = 5.0
_GONE_TIMEOUT = 1.0  # a sandbox leaves CRI's list a millisecond after containerd's record of it
_CATCH_UP_PAUSES = (0.1, 0.4, 1.5)  # CRI is some 40 ms behind containerd, more on a busy host
_POLL_INTERVAL = 2.0
_KILLED = 137  # the exit code of what was ended by SIGKILL


class Member(NamedTuple):
    """Whose a container or sandbox is: ``name`` is empty for a sandbox."""

    id: str
    name: str


class Source(Protocol):
    """One way to learn of events."""

    async def run(self, emit: Emit) -> None:
        """Tell events until the stream breaks, which raises; ``Unsupported`` if there is none."""
        ...


class Seen(NamedTuple):
    """A container or sandbox as CRI lists it; ``state`` is CRI's of the one or the other."""

    member: Member
    state: int


async def look(client: CriClient, owner: str) -> dict[str, Seen]:
    """Every sandbox and container of ``owner``, by the runtime's id."""
    label = {LABEL_OWNER: owner}
    sandboxes = await client.call(
        LIST_SANDBOXES,
        cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=label)),
    )
    listed = await client.call(
        LIST_CONTAINERS,
        cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=label)),
    )
    found = {
        item.id: Seen(Member(item.labels.get(LABEL_ID, ""), ""), item.state)
        for item in sandboxes.items
    }
    for container in listed.containers:
        member = Member(container.labels.get(LABEL_ID, ""), container.metadata.name)
        found[container.id] = Seen(member, container.state)
    return found


class ContainerdEvents:
    """containerd's event service: exits within some milliseconds, and memory kills besides."""

    def __init__(self, client: CriClient, owner: str, sightings: dict[str, Sighting]) -> None:
        self._client = client
        self._owner = owner
        self._sightings = sightings
        self._members: dict[str, Member] = {}
        self._oom: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, emit: Emit) -> None:
        hello = secrets.token_bytes(8)
        greeting = asyncio.create_task(self._greet(hello))
        stream = self._client.stream(SUBSCRIBE, events.SubscribeRequest(filters=_FILTERS))
        try:
            async with contextlib.aclosing(stream) as envelopes:
                async for envelope in envelopes:
                    if envelope.topic != _HELLO:
                        await self._handle(envelope, emit)
                    elif envelope.event.value == hello and not greeting.done():
                        greeting.cancel()
                        await self._resync(emit)
            raise Unavailable("the container runtime ended its stream of events")
        finally:
            greeting.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(greeting, *self._tasks, return_exceptions=True)

    async def _greet(self, hello: bytes) -> None:
        """Publish until it is heard: a subscription is not acknowledged in any other way, and what
        happens before it is there would be missed in silence."""
        event = any_pb2.Any(type_url="tandem.dev/subscribed", value=hello)
        while True:
            request = events.PublishRequest(topic=_HELLO, event=event)
            with contextlib.suppress(TandemError):  # the stream's own failure tells
                await self._client.call(PUBLISH, request, timeout=_HELLO_TIMEOUT)
            await asyncio.sleep(_HELLO_INTERVAL)

    async def _resync(self, emit: Emit) -> None:
        self._sightings.clear()
        self._oom.clear()
        seen = await look(self._client, self._owner)
        self._members = {id: item.member for id, item in seen.items()}
        emit(RuntimeEvent(EventKind.RESYNC))
        running = {
            id
            for id, item in seen.items()
            if item.member.name and item.state == cri.CONTAINER_RUNNING
        }
        self._spawn(self._catch_up(running, emit))

    async def _catch_up(self, running: set[str], emit: Emit) -> None:
        """Find what happened just before the subscription, which CRI's lists told a little later:
        the end of one of ``running``, and a sandbox that was being made."""
        with contextlib.suppress(TandemError):  # the stream breaks too then, and all begins anew
            for pause in _CATCH_UP_PAUSES:
                await asyncio.sleep(pause)
                seen = await look(self._client, self._owner)
                for id, (member, state) in seen.items():
                    self._members.setdefault(id, member)
                    if id in running and state != cri.CONTAINER_RUNNING:
                        running.remove(id)
                        emit(RuntimeEvent(EventKind.STOPPED, *member))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, envelope: events.Envelope, emit: Emit) -> None:
        topic, payload = envelope.topic, envelope.event.value
        if topic == "/containers/create":
            await self._created(types.ContainerCreate.FromString(payload).id, emit)
        elif topic == "/containers/delete":
            self._deleted(types.ContainerDelete.FromString(payload).id, emit)
        elif topic == "/tasks/start":
            id = types.TaskStart.FromString(payload).container_id
            if (member := self._members.get(id)) and member.name:
                self._sightings[id] = Sighting(envelope.timestamp.ToNanoseconds())
                emit(RuntimeEvent(EventKind.STARTED, *member))
        elif topic == "/tasks/exit":
            self._exited(types.TaskExit.FromString(payload), emit)
        elif topic == "/tasks/delete":
            # Follows an exit, and may be all that is heard of it by who has just subscribed.
            deleted = types.TaskDelete.FromString(payload)
            sighting = self._sightings.get(deleted.container_id)
            if sighting is None or sighting.exit_code is None:
                self._exited(deleted, emit)
        elif topic == "/tasks/oom":
            id = types.TaskOOM.FromString(payload).container_id
            if member := self._members.get(id):
                self._oom.add(id)
                if (sighting := self._sightings.get(id)) and sighting.exit_code:
                    # It was killed for it, and this is told late.
                    self._sightings[id] = replace(sighting, oom=True)
                emit(RuntimeEvent(EventKind.OOM, *member))
        elif topic == "/tasks/paused":
            self._told(EventKind.PAUSED, types.TaskPaused.FromString(payload).container_id, emit)
        elif topic == "/tasks/resumed":
            self._told(EventKind.RESUMED, types.TaskResumed.FromString(payload).container_id, emit)

    async def _created(self, id: str, emit: Emit) -> None:
        # CRI lists a sandbox only once it runs; containerd's own record has the labels already.
        try:
            request = containers.GetContainerRequest(id=id)
            response = await self._client.call(GET_CONTAINER, request)
        except NotFound:
            return
        labels: Mapping[str, str] = response.container.labels
        if labels.get(LABEL_OWNER) == self._owner and LABEL_ID in labels:
            member = Member(labels[LABEL_ID], labels.get(LABEL_CONTAINER_NAME, ""))
            self._members[id] = member
            emit(RuntimeEvent(EventKind.CREATED, *member))

    def _deleted(self, id: str, emit: Emit) -> None:
        self._sightings.pop(id, None)
        self._oom.discard(id)
        member = self._members.pop(id, None)
        if member is None:
            return
        if member.name:
            emit(RuntimeEvent(EventKind.STOPPED, *member))
            return
        self._spawn(self._gone(id, member, emit))

    async def _gone(self, sandbox: str, member: Member, emit: Emit) -> None:
        """Tell of a deletion when CRI's status agrees, so that whoever asks then is told so."""
        with contextlib.suppress(TandemError, TimeoutError):
            async with asyncio.timeout(_GONE_TIMEOUT):
                request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
                while True:
                    await self._client.call(SANDBOX_STATUS, request)
                    await asyncio.sleep(0.005)
        emit(RuntimeEvent(EventKind.DELETED, *member))

    def _exited(self, event: types.TaskExit | types.TaskDelete, emit: Emit) -> None:
        id = event.container_id
        member = self._members.get(id)
        if member is None or event.id not in ("", id):
            return
        if member.name:
            oom = id in self._oom or (
                event.exit_status == _KILLED and groups.killed_for_memory(CONTAINERD_NAMESPACE, id)
            )
            self._sightings[id] = Sighting(event.exited_at.ToNanoseconds(), event.exit_status, oom)
        emit(RuntimeEvent(EventKind.STOPPED, *member))

    def _told(self, kind: EventKind, id: str, emit: Emit) -> None:
        if member := self._members.get(id):
            emit(RuntimeEvent(kind, *member))


_CRI_KINDS = {
    cri.CONTAINER_CREATED_EVENT: EventKind.CREATED,
    cri.CONTAINER_STARTED_EVENT: EventKind.STARTED,
    cri.CONTAINER_STOPPED_EVENT: EventKind.STOPPED,
    cri.CONTAINER_DELETED_EVENT: EventKind.DELETED,
}


class CriEvents:
    """CRI's GetContainerEvents, as CRI-O has it."""

    def __init__(self, client: CriClient, owner: str) -> None:
        self._client = client
        self._owner = owner

    async def run(self, emit: Emit) -> None:
        known: dict[str, Member] = {}
        settled = asyncio.create_task(self._resync(known, emit))
        try:
            stream = self._client.stream(CONTAINER_EVENTS, cri.GetEventsRequest())
            async with contextlib.aclosing(stream) as told:
                async for event in told:
                    self._handle(event, known, emit)
            raise Unavailable("the container runtime ended its stream of events")
        finally:
            settled.cancel()
            await asyncio.gather(settled, return_exceptions=True)

    async def _resync(self, known: dict[str, Member], emit: Emit) -> None:
        """The stream is not acknowledged, so what is told first is told again when it must be
        there."""
        for pause in (0.05, 1.0):
            await asyncio.sleep(pause)
            seen = await look(self._client, self._owner)
            known.update({id: item.member for id, item in seen.items()})
            emit(RuntimeEvent(EventKind.RESYNC))

    def _handle(
        self, event: cri.ContainerEventResponse, known: dict[str, Member], emit: Emit
    ) -> None:
        id, sandbox = event.container_id, event.pod_sandbox_status
        if id not in known and sandbox.labels.get(LABEL_OWNER) == self._owner:
            names = {item.id: item.metadata.name for item in event.containers_statuses}
            if id == sandbox.id or id in names:
                known[id] = Member(sandbox.labels.get(LABEL_ID, ""), names.get(id, ""))
        kind = _CRI_KINDS.get(event.container_event_type)
        deleted = kind is EventKind.DELETED
        member = known.pop(id, None) if deleted else known.get(id)
        if kind is None or member is None:
            return
        if deleted and member.name:
            kind = EventKind.STOPPED  # the workload is there as long as its sandbox is
        emit(RuntimeEvent(kind, *member))


class Polling:
    """For a runtime without events: a look every two seconds, told as what has changed."""

    def __init__(self, client: CriClient, owner: str, *, interval: float = _POLL_INTERVAL) -> None:
        self._client = client
        self._owner = owner
        self._interval = interval

    async def run(self, emit: Emit) -> None:
        seen = await look(self._client, self._owner)
        emit(RuntimeEvent(EventKind.RESYNC))
        while True:
            # Not all at the same moment, where several look.
            await asyncio.sleep(self._interval * random.uniform(0.8, 1.2))
            now = await look(self._client, self._owner)
            for id, (member, state) in now.items():
                if id not in seen or seen[id].state != state:
                    emit(RuntimeEvent(self._kind(member, state), *member))
            for id, (member, _) in seen.items():
                if id not in now:
                    kind = EventKind.STOPPED if member.name else EventKind.DELETED
                    emit(RuntimeEvent(kind, *member))
            seen = now

    @staticmethod
    def _kind(member: Member, state: int) -> EventKind:
        if not member.name:
            return EventKind.CREATED if state == cri.SANDBOX_READY else EventKind.STOPPED
        if state == cri.CONTAINER_RUNNING:
            return EventKind.STARTED
        return EventKind.CREATED if state == cri.CONTAINER_CREATED else EventKind.STOPPED
