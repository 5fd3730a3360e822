"""Pods through the API against the same CRI calls made bare."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.daemon import Served
from benchmarks.figures import Row, in_turn, latency_row
from tandem.runtimes.cri import client as calls
from tandem.runtimes.cri._gen import cri_pb2 as cri

_RUNS = 15
_BURST = 100
_BEST_PARALLEL = 4  # more gains nothing on two cores: the calls are bound by the processor
_COMMAND = ["sleep", "3600"]


class Bare:
    """The CRI calls that a Pod of one container takes, and nothing else."""

    def __init__(self, endpoint: str, image: str) -> None:
        self._client = calls.CriClient(endpoint, timeout=120)
        self._image = cri.ImageSpec(image=image)

    async def run(self) -> str:
        """Create and start; returns the sandbox's id."""
        name = f"bare-{uuid.uuid4().hex[:12]}"
        sandbox = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace="bench", uid=name),
            hostname=name,
            log_directory=f"/var/log/tandem/{name}",
            linux=cri.LinuxPodSandboxConfig(),
        )
        made = await self._client.call(calls.RUN_SANDBOX, cri.RunPodSandboxRequest(config=sandbox))
        container = await self._client.call(
            calls.CREATE_CONTAINER,
            cri.CreateContainerRequest(
                pod_sandbox_id=made.pod_sandbox_id,
                config=cri.ContainerConfig(
                    metadata=cri.ContainerMetadata(name="main"),
                    image=self._image,
                    command=_COMMAND,
                    log_path="main.log",
                ),
                sandbox_config=sandbox,
            ),
        )
        await self._client.call(
            calls.START_CONTAINER,
            cri.StartContainerRequest(container_id=container.container_id),
        )
        return made.pod_sandbox_id

    async def remove(self, sandbox: str) -> None:
        """Take it away again."""
        await self._client.call(
            calls.STOP_SANDBOX, cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
        )
        await self._client.call(
            calls.REMOVE_SANDBOX, cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


def pod(name: str, image: str, command: list[str] = _COMMAND) -> dict[str, Any]:
    """The Pod that stands against :meth:`Bare.run`."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image, "command": command}],
        },
    }


class Phases:
    """The phases of objects of one kind, as a watcher of the API sees them."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._phases: dict[str, str] = {}

    async def until(self, phase: str, *names: str) -> None:
        """Wait until each of ``names`` is in ``phase``; an empty phase: until it is gone."""
        async with self._changed, asyncio.timeout(180):
            await self._changed.wait_for(
                lambda: all(self._phases.get(name, "") == phase for name in names)
            )

    async def follow(self, served: Served, resource: str) -> None:
        """Follow a watch for as long as it is not cancelled."""
        async for type_, doc in served.api.watch(resource, since="0"):
            phase = "" if type_ == "DELETED" else doc.get("status", {}).get("phase", "")
            async with self._changed:
                self._phases[doc["metadata"]["name"]] = phase
                self._changed.notify_all()


@asynccontextmanager
async def watched(served: Served, resource: str) -> AsyncIterator[Phases]:
    """A watcher beside the block."""
    phases = Phases()
    task = asyncio.create_task(phases.follow(served, resource))
    try:
        yield phases
    finally:
        task.cancel()
        await asyncio.wait([task])


async def exits(served: Served, image: str) -> Row:
    """From the death of a container's only process to a watcher's sight of it in the status."""
    taken = []
    async with watched(served, "pods") as phases:
        for number in range(_RUNS):
            name, command = f"exit-{number}", ["sleep", str(100_000 + number)]
            doc = pod(name, image, command)
            doc["spec"]["restartPolicy"] = "Never"
            await served.api.create("pods", doc)
            await phases.until("Running", name)
            await asyncio.sleep(0.2)  # nothing of the start is still under way
            process = _process(command)
            began = time.monotonic()
            os.kill(process, signal.SIGKILL)
            await phases.until("Failed", name)
            taken.append((time.monotonic() - began) * 1000)
            await served.api.delete("pods", name)
            await phases.until("", name)
    return Row(
        "Pod: death of its process to Failed seen by a watcher",
        f"{statistics.median(taken):.0f} ms",
        "containerd's own event 3-6 ms (another run)",
        "",
        "at most 50 ms",
    )


def _process(command: list[str]) -> int:
    wanted = "\0".join([*command, ""]).encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if entry.read_bytes() == wanted:
                return int(entry.parent.name)
    raise RuntimeError(f"no process runs {' '.join(command)}")


async def rows(served: Served, endpoint: str, image: str) -> list[Row]:
    """One at a time, and a burst of them."""
    bare = Bare(endpoint, image)
    api = served.api
    async with watched(served, "pods") as phases:

        async def ours(number: int) -> float:
            name = f"one-{number}"
            began = time.monotonic()
            await api.create("pods", pod(name, image))
            await phases.until("Running", name)
            taken = (time.monotonic() - began) * 1000
            await api.delete("pods", name)
            await phases.until("", name)
            return taken

        async def reference(_number: int) -> float:
            began = time.monotonic()
            sandbox = await bare.run()
            taken = (time.monotonic() - began) * 1000
            await bare.remove(sandbox)
            return taken

        async def our_burst(number: int) -> float:
            names = [f"many-{number}-{i}" for i in range(_BURST)]
            began = time.monotonic()
            await asyncio.gather(*(api.create("pods", pod(name, image)) for name in names))
            await phases.until("Running", *names)
            taken = (time.monotonic() - began) * 1000
            await asyncio.gather(*(api.delete("pods", name) for name in names))
            await phases.until("", *names)
            return taken

        async def reference_burst(_number: int) -> float:
            places = asyncio.Semaphore(_BEST_PARALLEL)

            async def one() -> str:
                async with places:
                    return await bare.run()

            began = time.monotonic()
            made = await asyncio.gather(*(one() for _ in range(_BURST)))
            taken = (time.monotonic() - began) * 1000
            for sandbox in made:
                await bare.remove(sandbox)
            return taken

        try:
            single = await in_turn(_RUNS, ours, reference)
            burst = await in_turn(2, our_burst, reference_burst)
        finally:
            await bare.close()
    rate = [_BURST * 1000 / value for value in (min(burst.ours), min(burst.reference))]
    return [
        latency_row(
            "Pod: create to Running seen by a watcher (bare CRI calls)",
            single,
            "at most 15 ms over",
        ),
        Row(
            f"{_BURST} Pods at once (bare CRI calls, {_BEST_PARALLEL} in parallel)",
            f"{rate[0]:.1f} per s",
            f"{rate[1]:.1f} per s",
            f"{1 / burst.ratio:.2f} of its rate",
            "at least 0.95",
        ),
        await exits(served, image),
    ]
