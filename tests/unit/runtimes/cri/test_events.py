"""One stream for many listeners, from whichever source the runtime has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest

from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER, EventKind, RuntimeEvent
from tandem.runtimes.cri import events
from tandem.runtimes.cri._gen import containerd_containers_pb2 as containers
from tandem.runtimes.cri._gen import containerd_event_types_pb2 as types
from tandem.runtimes.cri._gen import containerd_events_pb2 as native
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import (
    CONTAINER_EVENTS,
    GET_CONTAINER,
    LIST_CONTAINERS,
    LIST_SANDBOXES,
    PUBLISH,
    SANDBOX_STATUS,
    SUBSCRIBE,
)
from tandem.runtimes.cri.events import EventHub
from tandem.runtimes.cri.sources import Polling
from tandem.runtimes.cri.status import Sighting
from tests.unit.runtimes.cri.fake import FakeRuntime, Refusal, serving

OURS = {LABEL_ID: "x", LABEL_OWNER: "tandem"}
RESYNC = RuntimeEvent(EventKind.RESYNC)


class Runtime(FakeRuntime):
    """One Pod ``x`` of ours with a container ``web``."""

    def __init__(self, name: str = "containerd") -> None:
        super().__init__(name)
        self.sandboxes = [cri.PodSandbox(id="s", labels=OURS)]
        self.containers = [
            cri.Container(
                id="c",
                pod_sandbox_id="s",
                metadata=cri.ContainerMetadata(name="web"),
                labels=OURS,
                state=cri.CONTAINER_RUNNING,
            )
        ]
        self.answer(LIST_SANDBOXES, self._list_sandboxes)
        self.answer(LIST_CONTAINERS, self._list_containers)

    async def _list_sandboxes(self, _: Any) -> cri.ListPodSandboxResponse:
        return cri.ListPodSandboxResponse(items=self.sandboxes)

    async def _list_containers(self, _: Any) -> cri.ListContainersResponse:
        return cri.ListContainersResponse(containers=self.containers)


class Containerd(Runtime):
    """Tells what is put into ``told``; None breaks the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[native.Envelope | None] = asyncio.Queue()
        self.subscriptions = 0
        self.stream(SUBSCRIBE, self._subscribe)
        self.answer(PUBLISH, self._publish)
        self.answer(GET_CONTAINER, self._container)
        self.answer(SANDBOX_STATUS, self._status)

    def tell(self, topic: str, event: Any) -> None:
        envelope = native.Envelope(topic=topic)
        envelope.event.value = event.SerializeToString()
        envelope.timestamp.FromNanoseconds(5)
        self.told.put_nowait(envelope)

    async def _subscribe(self, _: Any) -> AsyncIterator[native.Envelope]:
        self.subscriptions += 1
        while (envelope := await self.told.get()) is not None:
            yield envelope
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "stopping")

    async def _publish(self, request: Any) -> Any:
        self.told.put_nowait(native.Envelope(topic=request.topic, event=request.event))
        return PUBLISH.response()

    async def _container(self, request: Any) -> containers.GetContainerResponse:
        labels = {**OURS, "io.kubernetes.container.name": "db"} if request.id == "new" else {}
        return containers.GetContainerResponse(
            container=containers.Container(id=request.id, labels=labels)
        )

    async def _status(self, _: Any) -> Any:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "gone")


async def take(stream: AsyncIterator[RuntimeEvent], count: int) -> list[RuntimeEvent]:
    async with asyncio.timeout(5):
        return [await anext(stream) for _ in range(count)]


async def test_containerds_events_are_told_by_our_ids(tmp_path: Path) -> None:
    runtime = Containerd()
    async with serving(runtime, tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as stream:
            assert await take(stream, 1) == [RESYNC]
            runtime.tell("/containers/create", types.ContainerCreate(id="new"))
            runtime.tell("/containers/create", types.ContainerCreate(id="a stranger's"))
            runtime.tell("/tasks/start", types.TaskStart(container_id="new"))
            runtime.tell("/tasks/oom", types.TaskOOM(container_id="c"))
            runtime.tell("/tasks/exit", types.TaskExit(container_id="c", id="exec", exit_status=1))
            runtime.tell("/tasks/exit", types.TaskExit(container_id="c", id="c", exit_status=137))
            runtime.tell("/tasks/exit", types.TaskExit(container_id="stranger", id="stranger"))
            runtime.tell("/tasks/paused", types.TaskPaused(container_id="new"))
            runtime.tell("/tasks/resumed", types.TaskResumed(container_id="new"))
            runtime.tell("/containers/delete", types.ContainerDelete(id="c"))
            runtime.tell("/containers/delete", types.ContainerDelete(id="s"))
            assert await take(stream, 8) == [
                RuntimeEvent(EventKind.CREATED, "x", "db"),
                RuntimeEvent(EventKind.STARTED, "x", "db"),
                RuntimeEvent(EventKind.OOM, "x", "web"),
                RuntimeEvent(EventKind.STOPPED, "x", "web"),
                RuntimeEvent(EventKind.PAUSED, "x", "db"),
                RuntimeEvent(EventKind.RESUMED, "x", "db"),
                RuntimeEvent(EventKind.STOPPED, "x", "web"),
                RuntimeEvent(EventKind.DELETED, "x", ""),
            ]


async def test_what_was_heard_is_kept_until_it_is_gone(tmp_path: Path) -> None:
    runtime = Containerd()
    async with serving(runtime, tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as stream:
            await take(stream, 1)
            runtime.tell("/tasks/oom", types.TaskOOM(container_id="c"))
            runtime.tell("/tasks/exit", types.TaskExit(container_id="c", id="c", exit_status=137))
            await take(stream, 2)
            assert hub.sightings == {"c": Sighting(0, exit_code=137, oom=True)}
            runtime.tell("/containers/delete", types.ContainerDelete(id="c"))
            await take(stream, 1)
            assert hub.sightings == {}


async def test_an_end_shortly_before_the_subscription_is_told(tmp_path: Path) -> None:
    runtime = Containerd()
    async with serving(runtime, tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as stream:
            await take(stream, 1)
            runtime.containers[0].state = cri.CONTAINER_EXITED  # CRI catches up, silently
            assert await take(stream, 1) == [RuntimeEvent(EventKind.STOPPED, "x", "web")]


async def test_the_end_of_a_task_tells_an_exit_that_was_missed(tmp_path: Path) -> None:
    runtime = Containerd()
    async with serving(runtime, tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as stream:
            await take(stream, 1)
            runtime.tell("/tasks/delete", types.TaskDelete(container_id="c", exit_status=4))
            assert await take(stream, 1) == [RuntimeEvent(EventKind.STOPPED, "x", "web")]
            assert hub.sightings["c"].exit_code == 4
            runtime.tell("/tasks/delete", types.TaskDelete(container_id="c", exit_status=4))
            runtime.tell("/tasks/paused", types.TaskPaused(container_id="c"))
            assert await take(stream, 1) == [RuntimeEvent(EventKind.PAUSED, "x", "web")]


async def test_a_broken_stream_is_taken_up_again_for_all_listeners(tmp_path: Path) -> None:
    runtime = Containerd()
    async with serving(runtime, tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as one, aclosing(hub.listen()) as two:
            assert await take(one, 1) == await take(two, 1) == [RESYNC]
            assert runtime.subscriptions == 1
            runtime.told.put_nowait(None)
            assert await take(one, 1) == await take(two, 1) == [RESYNC]
            assert runtime.subscriptions == 2
        assert hub._task is None


async def test_one_who_comes_later_is_told_to_list_at_once(tmp_path: Path) -> None:
    async with serving(Containerd(), tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as one:
            await take(one, 1)
            async with aclosing(hub.listen()) as two:
                assert await take(two, 1) == [RESYNC]


async def test_one_who_lags_is_told_to_list_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_QUEUE_LENGTH", 3)
    runtime = Containerd()
    async with serving(runtime, tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as prompt, aclosing(hub.listen()) as slow:
            await take(prompt, 1)
            await take(slow, 1)
            for _ in range(5):
                runtime.tell("/tasks/paused", types.TaskPaused(container_id="c"))
                await take(prompt, 1)
            # Three filled the queue; the fourth and what it pushed out are one, the fifth follows.
            paused = RuntimeEvent(EventKind.PAUSED, "x", "web")
            assert await take(slow, 2) == [RESYNC, paused]


async def test_listening_ends_when_the_hub_is_closed(tmp_path: Path) -> None:
    async with serving(Containerd(), tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as stream:
            await take(stream, 1)
            await hub.close()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_listeners_wait_for_a_runtime_that_is_not_there_yet(tmp_path: Path) -> None:
    async with serving(Containerd(), tmp_path / "s") as client:
        pass  # gone again, and the client's next call finds nobody
    hub = EventHub(client, "tandem")
    async with aclosing(hub.listen()) as stream:
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.02)
        assert not coming.done()
        async with serving(Containerd(), tmp_path / "s"):
            async with asyncio.timeout(5):
                assert await coming == RESYNC
            await stream.aclose()
            await client.close()


async def test_cris_own_events_are_used_where_containerds_are_not(tmp_path: Path) -> None:
    runtime = Runtime("cri-o")
    told: asyncio.Queue[cri.ContainerEventResponse] = asyncio.Queue()

    async def stream_events(_: Any) -> AsyncIterator[cri.ContainerEventResponse]:
        while True:
            yield await told.get()

    runtime.stream(CONTAINER_EVENTS, stream_events)
    sandbox = cri.PodSandboxStatus(id="s2", labels={LABEL_ID: "y", LABEL_OWNER: "tandem"})
    status = cri.ContainerStatus(id="c2", metadata=cri.ContainerMetadata(name="db"))

    def tell(id: str, kind: cri.ContainerEventType, **rest: Any) -> None:
        told.put_nowait(
            cri.ContainerEventResponse(container_id=id, container_event_type=kind, **rest)
        )

    async with serving(runtime, tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as stream:
            assert await take(stream, 1) == [RESYNC]
            known = {"pod_sandbox_status": sandbox, "containers_statuses": [status]}
            tell("s2", cri.CONTAINER_CREATED_EVENT, **known)
            tell("c2", cri.CONTAINER_STARTED_EVENT, **known)
            tell("c", cri.CONTAINER_STOPPED_EVENT)
            tell("stranger", cri.CONTAINER_STOPPED_EVENT)
            tell("c2", cri.CONTAINER_DELETED_EVENT)
            tell("s2", cri.CONTAINER_DELETED_EVENT)
            assert await take(stream, 5) == [
                RuntimeEvent(EventKind.CREATED, "y", ""),
                RuntimeEvent(EventKind.STARTED, "y", "db"),
                RuntimeEvent(EventKind.STOPPED, "x", "web"),
                RuntimeEvent(EventKind.STOPPED, "y", "db"),
                RuntimeEvent(EventKind.DELETED, "y", ""),
            ]


async def test_a_runtime_without_any_events_is_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Runtime("older"), tmp_path / "s") as client:
        hub = EventHub(client, "tandem")
        async with aclosing(hub.listen()) as stream:
            assert await take(stream, 1) == [RESYNC]
    assert "looked at instead" in caplog.text


async def test_looking_tells_what_has_changed(tmp_path: Path) -> None:
    runtime = Runtime("older")
    heard: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
    async with serving(runtime, tmp_path / "s") as client:
        polling = Polling(client, "tandem", interval=0.005)
        looking = asyncio.create_task(polling.run(heard.put_nowait))
        async with asyncio.timeout(5):
            assert await heard.get() == RESYNC
            runtime.containers[0].state = cri.CONTAINER_EXITED
            assert await heard.get() == RuntimeEvent(EventKind.STOPPED, "x", "web")
            runtime.containers.clear()
            assert await heard.get() == RuntimeEvent(EventKind.STOPPED, "x", "web")
            runtime.sandboxes.clear()
            assert await heard.get() == RuntimeEvent(EventKind.DELETED, "x", "")
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
