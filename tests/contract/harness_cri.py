"""The container adapter in the contract suite, on a real containerd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tandem.errors import Unavailable
from tandem.runtimes.adapter import LABEL_ID, RuntimeAdapter, RuntimeSpec
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.adapter import ContainerAdapter
from tandem.runtimes.cri.client import (
    CONTAINER_STATUS,
    CREATE_CONTAINER,
    IMAGE_STATUS,
    LIST_CONTAINERS,
    LIST_SANDBOXES,
    REMOVE_SANDBOX,
    RUN_SANDBOX,
    SANDBOX_STATUS,
    START_CONTAINER,
    STOP_SANDBOX,
    CriClient,
    Rpc,
)
from tests import world
from tests.contract.harness import Harness

_STEPS: dict[str, Rpc[Any, Any]] = {
    "find": LIST_SANDBOXES,
    "image": IMAGE_STATUS,
    "sandbox": RUN_SANDBOX,
    "container": CREATE_CONTAINER,
    "start": START_CONTAINER,
    "status": SANDBOX_STATUS,
}


class CriHarness(Harness):
    """Pods on containerd."""

    name = "cri"
    marks = (pytest.mark.containerd,)
    # Each call, and the moment after it: the runtime has done it, and nobody has heard the answer.
    steps: ClassVar[Sequence[str]] = (*_STEPS, "sandbox-answer", "container-answer", "start-answer")

    def __init__(self, world: Any, tmp_path: Path) -> None:
        super().__init__(world, tmp_path)
        self.endpoint = str(world)
        self.log_dir = tmp_path / "pods"
        self._breaks: dict[int, asyncio.Event] = {}

    @classmethod
    @contextlib.contextmanager
    def open_world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        yield world.containerd()

    def make_adapter(self, owner: str = "tandem") -> RuntimeAdapter:
        adapter = ContainerAdapter(self.endpoint, owner=owner, log_dir=self.log_dir)
        _make_breakable(adapter._client, self._breaks.setdefault(id(adapter), asyncio.Event()))
        return adapter

    def make_absent_adapter(self) -> RuntimeAdapter:
        return ContainerAdapter(str(self.tmp_path / "nobody.sock"), log_dir=self.log_dir)

    def _spec(self, id: str, script: str, **rest: Any) -> RuntimeSpec:
        container = {"name": "main", "image": world.BUSYBOX, "command": ["sh", "-c", script]}
        return RuntimeSpec(id, container_spec={"containers": [container]}, **rest)

    def spec(self, id: str, *, labels: dict[str, str] | None = None) -> RuntimeSpec:
        return self._spec(id, "trap 'exit 0' TERM; sleep 1000 & wait", labels=labels or {})

    def other_spec(self, id: str) -> RuntimeSpec:
        return self._spec(id, "trap 'exit 0' TERM; sleep 2000 & wait")

    def stubborn_spec(self, id: str) -> RuntimeSpec:
        return self._spec(id, "trap '' TERM; while :; do sleep 1000; done")

    def ending_spec(self, id: str, code: int) -> RuntimeSpec:
        return self._spec(id, f"exit {code}")

    def failing_spec(self, id: str) -> RuntimeSpec:
        container = {"name": "main", "image": world.BUSYBOX, "command": ["/no/such/program"]}
        return RuntimeSpec(id, container_spec={"containers": [container]})

    def invalid_specs(self) -> Sequence[tuple[RuntimeSpec, str]]:
        def pod(**fields: Any) -> RuntimeSpec:
            return RuntimeSpec("x", container_spec=fields)

        fine = {"name": "a", "image": world.BUSYBOX}
        return [
            (RuntimeSpec("x"), "container_spec"),
            (RuntimeSpec("x", container_spec={"image": "a"}, vm_xml="<domain/>"), "container_spec"),
            (RuntimeSpec("x", vm_xml="<domain/>"), "container_spec"),
            (pod(hostname="x"), "containers"),
            (pod(containers="all"), "containers"),
            (pod(containers=[{"name": "a"}]), "containers[0].image"),
            (pod(containers=[{"name": "../up", "image": "a"}]), "containers[0].name"),
            (pod(containers=[fine, fine]), "containers[1].name"),
            (pod(containers=[{**fine, "command": "sleep 1"}]), "containers[0].command"),
            (pod(containers=[fine], volumes=[{"name": "v", "emptyDir": {}}]), "volumes[0]"),
            (
                pod(containers=[{**fine, "resources": {"limits": {"memory": "1X"}}}]),
                "containers[0].resources.limits.memory",
            ),
            (
                pod(containers=[{**fine, "securityContext": {"runAsNonRoot": True}}]),
                "containers[0].securityContext.runAsNonRoot",
            ),
        ]

    def sandbox_spec(self, id: str) -> RuntimeSpec:
        return RuntimeSpec(id, container_spec={"containers": []})

    def container(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        command = ["sh", "-c", script]
        return {"name": name, "image": world.BUSYBOX, "command": command, **fields}

    async def lose_sandbox(self, id: str) -> None:
        async with _client(self.endpoint) as client:
            selector = cri.PodSandboxFilter(label_selector={LABEL_ID: id})
            request = cri.ListPodSandboxRequest(filter=selector)
            for sandbox in (await client.call(LIST_SANDBOXES, request)).items:
                stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id)
                await client.call(STOP_SANDBOX, stop)

    async def add_stranger(self) -> str:
        async with _client(self.endpoint) as client:
            config = cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(name="stranger", namespace="elsewhere", uid="1"),
                labels={"made-by": "hand"},
                log_directory=str(self.tmp_path / "stranger"),
            )
            sandbox = await client.call(RUN_SANDBOX, cri.RunPodSandboxRequest(config=config))
            container = await client.call(
                CREATE_CONTAINER,
                cri.CreateContainerRequest(
                    pod_sandbox_id=sandbox.pod_sandbox_id,
                    sandbox_config=config,
                    config=cri.ContainerConfig(
                        metadata=cri.ContainerMetadata(name="main"),
                        image=cri.ImageSpec(image=world.BUSYBOX),
                        command=["sleep", "1000"],
                        log_path="main.log",
                    ),
                ),
            )
            request = cri.StartContainerRequest(container_id=container.container_id)
            await client.call(START_CONTAINER, request)
            return sandbox.pod_sandbox_id

    async def stranger_runs(self, id: str) -> bool:
        async with _client(self.endpoint) as client:
            request = cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=id))
            listed = await client.call(LIST_CONTAINERS, request)
            return [item.state for item in listed.containers] == [cri.CONTAINER_RUNNING]

    async def remove_stranger(self, id: str) -> None:
        async with _client(self.endpoint) as client:
            await client.call(STOP_SANDBOX, cri.StopPodSandboxRequest(pod_sandbox_id=id))
            await client.call(REMOVE_SANDBOX, cri.RemovePodSandboxRequest(pod_sandbox_id=id))

    async def crash(self, id: str) -> None:
        async with _client(self.endpoint) as client:
            request = cri.ListContainersRequest(
                filter=cri.ContainerFilter(label_selector={LABEL_ID: id})
            )
            for container in (await client.call(LIST_CONTAINERS, request)).containers:
                status = await client.call(
                    CONTAINER_STATUS,
                    cri.ContainerStatusRequest(container_id=container.id, verbose=True),
                )
                os.kill(json.loads(status.info["info"])["pid"], signal.SIGKILL)

    async def leftovers(self) -> Sequence[str]:
        async with _client(self.endpoint) as client:
            sandboxes = await client.call(LIST_SANDBOXES, cri.ListPodSandboxRequest())
            listed = await client.call(LIST_CONTAINERS, cri.ListContainersRequest())
        logs = list(self.log_dir.iterdir()) if self.log_dir.exists() else []
        return [
            *(f"sandbox {item.id}" for item in sandboxes.items if LABEL_ID in item.labels),
            *(f"container {item.id}" for item in listed.containers if LABEL_ID in item.labels),
            *map(str, logs),
        ]

    def intercept(
        self, adapter: RuntimeAdapter, step: str, action: Callable[[], Awaitable[None]]
    ) -> None:
        name, _, when = step.partition("-")
        client = _client_of(adapter)
        original = client.call

        async def call(rpc: Rpc[Any, Any], *args: Any, **options: Any) -> Any:
            if rpc is not _STEPS[name]:
                return await original(rpc, *args, **options)
            client.call = original  # type: ignore[method-assign]
            if when == "answer":
                await original(rpc, *args, **options)
            await action()
            raise AssertionError("an action fails, or is cancelled")

        client.call = call  # type: ignore[method-assign]

    async def drop_events(self, adapter: RuntimeAdapter) -> None:
        self._breaks[id(adapter)].set()


def _make_breakable(client: CriClient, broken: asyncio.Event) -> None:
    """Have the streams of ``client`` end as if the runtime had gone when ``broken`` is set, once."""
    original = client.stream

    async def stream(*args: Any, **options: Any) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(original(*args, **options)) as messages:
            while True:
                coming = asyncio.ensure_future(anext(messages))
                breaking = asyncio.create_task(broken.wait())
                try:
                    both = [coming, breaking]
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    if breaking.done():
                        broken.clear()
                        raise Unavailable("the connection was cut")
                    message = await coming
                finally:
                    coming.cancel()
                    breaking.cancel()
                    await asyncio.gather(coming, breaking, return_exceptions=True)
                yield message

    client.stream = stream  # type: ignore[method-assign]


def _client_of(adapter: RuntimeAdapter) -> CriClient:
    assert isinstance(adapter, ContainerAdapter)
    return adapter._client


@contextlib.asynccontextmanager
async def _client(endpoint: str) -> AsyncGenerator[CriClient, None]:
    client = CriClient(endpoint, timeout=30.0)
    try:
        yield client
    finally:
        await client.close()
