"""The writing half of the adapter: making Pods and containers, and removing them.

A Pod is one sandbox and its containers, and is made in one go: all of it or nothing. Calls that make
something are never abandoned in flight, because the runtime would finish them unseen; a failure or a
cancellation takes back what was made, and what a killed process left is found by its labels and
removed by the next create of the same id.

Two processes may share an owner; they may not create the same id at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from tandem.errors import (
    AlreadyExists,
    Cause,
    Conflict,
    DeadlineExceeded,
    InvalidSpec,
    NotFound,
    TandemError,
    Unavailable,
)
from tandem.runtimes.adapter import LABEL_SPEC_HASH, Phase, RuntimeStatus
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.aio import to_the_end, together
from tandem.runtimes.cri.client import (
    CREATE_CONTAINER,
    REMOVE_CONTAINER,
    REMOVE_SANDBOX,
    RUN_SANDBOX,
    START_CONTAINER,
    STOP_CONTAINER,
    STOP_SANDBOX,
    CriClient,
)
from tandem.runtimes.cri.container import ContainerPlan
from tandem.runtimes.cri.images import Images
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.status import attempt_order
from tandem.runtimes.cri.translate import (
    HostFacts,
    PodPlan,
    PodRecord,
    log_directory,
    plan_later_container,
    restore_sandbox,
)

_log = logging.getLogger(__name__)

_RESERVED = re.compile(r"name .* is reserved for")
_NOT_STARTABLE = re.compile(
    r"executable file not found|no such file or directory|permission denied|exec format error"
)
_REMOVE_PAUSES = (0.05, 0.1, 0.2, 0.4)  # seconds between the tries of one step of a removal
_STOP_MARGIN = 60.0  # seconds that a stop may take beyond its grace, on a busy host


class Lifecycle:
    """Makes and removes the Pods of one owner. ``max_concurrency`` bounds the Pods made or removed
    at a time: it is work for the host's processors, and more at once only makes each slower."""

    def __init__(
        self,
        client: CriClient,
        pods: Pods,
        images: Images,
        *,
        log_dir: Path,
        max_concurrency: int,
    ) -> None:
        self._client = client
        self._pods = pods
        self._images = images
        self._log_dir = log_dir
        self._slots = asyncio.Semaphore(max_concurrency)
        # One change at a time to what a Pod is made of; a lock goes when nobody needs it any more.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- making ------------------------------------------------------------------------------

    async def create(self, plan: PodPlan) -> RuntimeStatus:
        """Make the Pod, or return the status of the same that is there already."""
        async with self._lock(plan.id):
            if existing := await self._existing(plan):
                return existing
            images = await self._ensure_images(plan.containers)
            configs = [item.with_image(images[item.image]) for item in plan.containers]
            async with self._slots:
                return await self._create(plan, configs)

    async def start_container(
        self, id: str, document: Mapping[str, Any], *, attempt: int, host: HostFacts
    ) -> RuntimeStatus:
        """Start one container, or the next ``attempt`` of one, in a Pod that exists."""
        async with self._lock(id):
            sandbox = await self._pods.sandbox(id)
            config = restore_sandbox(sandbox, log_dir=self._log_dir, host=host)
            record = PodRecord.from_annotations(sandbox.annotations)
            plan = plan_later_container(config, record, document, attempt=attempt, host=host)
            earlier = await self._attempts(sandbox.id, plan.name)
            if earlier and earlier[-1].metadata.attempt >= attempt:
                if earlier[-1].state == cri.CONTAINER_CREATED:  # a process was killed in between
                    await self._start(earlier[-1].id, plan)
                return await self._pods.status(id)
            status = await self._pods.status(id)
            if any(
                item.name == plan.name and item.phase is Phase.RUNNING for item in status.containers
            ):
                raise Conflict(f"container {plan.name!r} of Pod {id!r} is still running")
            if sandbox.state != cri.SANDBOX_READY:
                raise Conflict(f"the sandbox of Pod {id!r} is gone, and its containers with it")
            image = await self._images.ensure(plan.image, plan.pull_policy)
            settings = plan.with_image(image)
            async with self._slots:
                await asyncio.to_thread(_make_directories, config.log_directory, [plan])
                await self._make(sandbox.id, config, [plan], [settings])
            # The one before stays, for its log and its last state.
            await together(self._discard(item, config) for item in earlier[:-1])
            return await self._pods.status(id)

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())

    async def _existing(self, plan: PodPlan) -> RuntimeStatus | None:
        """The Pod's status when it is there and whole. What a crash left half made is removed."""
        found = await self._pods.find(plan.id)
        if not found:
            return None
        status = await self._pods.status(plan.id)
        if status.phase is not Phase.PENDING and len(found) == 1:
            if status.labels.get(LABEL_SPEC_HASH) != plan.spec_hash:
                raise AlreadyExists(f"Pod {plan.id!r} exists with another spec")
            return status
        _log.info("removing what an interrupted create left of Pod %s", plan.id)
        await self.delete(plan.id, grace_seconds=0)
        return None

    async def _ensure_images(self, plans: Sequence[ContainerPlan]) -> dict[str, cri.Image]:
        wanted = {plan.image: plan.pull_policy for plan in plans}
        wanted |= {plan.image: "Always" for plan in plans if plan.pull_policy == "Always"}
        found = await together(self._images.ensure(*item) for item in wanted.items())
        return dict(zip(wanted, found, strict=True))

    async def _create(self, plan: PodPlan, configs: Sequence[cri.ContainerConfig]) -> RuntimeStatus:
        request = cri.RunPodSandboxRequest(config=plan.sandbox)
        directory = plan.sandbox.log_directory
        try:
            await asyncio.to_thread(_make_directories, directory, plan.containers)
            sandbox = (await self._client.call(RUN_SANDBOX, request, whole=True)).pod_sandbox_id
            self._pods.remember(plan.id, sandbox)
            await self._make(sandbox, plan.sandbox, plan.containers, configs)
            return await self._pods.status(plan.id)
        except BaseException as error:
            if isinstance(error, TandemError) and _RESERVED.search(error.message):
                # An earlier call that was cut off is still at it; it is not ours to undo.
                raise Conflict(f"Pod {plan.id!r} is being made or removed already") from error
            await to_the_end(self._undo(plan))
            raise

    async def _make(
        self,
        sandbox: str,
        sandbox_config: cri.PodSandboxConfig,
        plans: Sequence[ContainerPlan],
        configs: Sequence[cri.ContainerConfig],
    ) -> None:
        """Make containers and start them, once all are made: nothing of a Pod runs before the last
        of it was found to be possible. They are made at once and started in order, as a kubelet
        starts them. Leaves none of them behind when it fails."""
        made: list[str] = []

        async def make(config: cri.ContainerConfig) -> str:
            request = cri.CreateContainerRequest(
                pod_sandbox_id=sandbox, config=config, sandbox_config=sandbox_config
            )
            response = await self._client.call(CREATE_CONTAINER, request, whole=True)
            made.append(response.container_id)
            return response.container_id

        try:
            ids = await together(make(config) for config in configs)
            for id, plan in zip(ids, plans, strict=True):
                await self._start(id, plan)
        except BaseException:
            await to_the_end(self._remove_containers(made))
            raise

    async def _start(self, container: str, plan: ContainerPlan) -> None:
        request = cri.StartContainerRequest(container_id=container)
        try:
            await self._client.call(START_CONTAINER, request, whole=True)
        except TandemError as error:
            if not _NOT_STARTABLE.search(error.message):
                raise
            words = error.message.rpartition("create failed: ")[2].removesuffix(": unknown")
            cause = Cause(f"{plan.path}.command", f"Invalid value: {words}")
            message = f"container {plan.name!r} cannot be started: {words}"
            details = {"container": plan.name}
            raise InvalidSpec(message, causes=[cause], details=details) from error

    async def _undo(self, plan: PodPlan) -> None:
        """Leave nothing of a create that failed. What cannot be removed now, because the runtime is
        away, the next create of the same id removes."""
        try:
            await self.delete(plan.id, grace_seconds=0)
        except TandemError as error:
            _log.warning("Pod %s is left half made: %s", plan.id, error.message)
        await asyncio.to_thread(shutil.rmtree, plan.sandbox.log_directory, ignore_errors=True)

    # -- removing ----------------------------------------------------------------------------

    async def delete(self, id: str, *, grace_seconds: float | None) -> None:
        """Stop the Pod and remove it; see the adapter's contract.

        Takes no lock, so that a forced delete overtakes one that waits for a graceful end.
        """
        sandboxes = await self._pods.find(id)
        await together(self._remove(sandbox, grace_seconds) for sandbox in sandboxes)
        self._pods.forget(id)

    async def _remove(self, sandbox: str, grace_seconds: float | None) -> None:
        try:
            status = await self._pods.read_sandbox(sandbox)
        except NotFound:
            return
        if grace_seconds is None:
            grace_seconds = PodRecord.from_annotations(status.annotations).grace_seconds
        if grace_seconds > 0:
            await self._stop_containers(sandbox, grace_seconds)
        async with self._slots:
            # Stopping a sandbox kills what still runs in it.
            stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
            await self._insist(lambda: self._client.call(STOP_SANDBOX, stop))
            remove = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
            await self._insist(lambda: self._client.call(REMOVE_SANDBOX, remove))
        directory = log_directory(self._log_dir, status.metadata)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _stop_containers(self, sandbox: str, grace_seconds: float) -> None:
        """Ask all that runs to end, each within the grace; the runtime kills it after that."""
        seconds = math.ceil(grace_seconds)  # CRI knows whole ones only

        async def stop(container: str) -> None:
            request = cri.StopContainerRequest(container_id=container, timeout=seconds)
            limit = seconds + _STOP_MARGIN
            await self._insist(lambda: self._client.call(STOP_CONTAINER, request, timeout=limit))

        running = await self._pods.containers(sandbox)
        await together(stop(item.id) for item in running if item.state == cri.CONTAINER_RUNNING)

    @staticmethod
    async def _insist(step: Callable[[], Awaitable[object]]) -> None:
        """Take a step of a removal, for which what is gone already is success.

        A container that ends by itself in the moment in which it is killed makes the runtime fail
        ("ttrpc: closed"); the next try finds it ended.
        """
        for pause in _REMOVE_PAUSES:
            try:
                await step()
            except NotFound:
                return
            except (Unavailable, DeadlineExceeded):
                raise
            except TandemError as error:
                _log.info("trying again: %s", error.message)
                await asyncio.sleep(pause)
            else:
                return
        with contextlib.suppress(NotFound):
            await step()

    async def _remove_containers(self, containers: Sequence[str]) -> None:
        async def remove(container: str) -> None:
            with contextlib.suppress(TandemError):  # the failure that led here is the one to tell
                request = cri.RemoveContainerRequest(container_id=container)
                await self._client.call(REMOVE_CONTAINER, request)

        await together(remove(container) for container in containers)

    async def _discard(self, container: cri.Container, config: cri.PodSandboxConfig) -> None:
        """Remove an attempt that has ended, with its log."""
        await self._remove_containers([container.id])
        name, attempt = container.metadata.name, container.metadata.attempt
        file = Path(config.log_directory, name, f"{attempt}.log")
        await asyncio.to_thread(file.unlink, missing_ok=True)

    async def _attempts(self, sandbox: str, name: str) -> Sequence[cri.Container]:
        """All attempts of one container, the last one last."""
        containers = await self._pods.containers(sandbox)
        return sorted((c for c in containers if c.metadata.name == name), key=attempt_order)


def _make_directories(log_directory: str, plans: Sequence[ContainerPlan]) -> None:
    for plan in plans:
        Path(log_directory, plan.name).mkdir(mode=0o755, parents=True, exist_ok=True)
