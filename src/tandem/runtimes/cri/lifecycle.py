"""The writing half of the adapter: making Pods and containers, and removing them.

A Pod is one sandbox and its containers, and is made in one go: all of it or nothing. Calls that make
something are never abandoned in flight, because the runtime would finish them unseen; a failure or a
cancellation takes back what was made, and what a killed process left is found by its labels and
removed by the next create of the same id.

Two processes may share an owner; they may not create the same id at the same time.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from tandem.errors import (
    AlreadyExists,
    Cause,
    Conflict,
    InvalidSpec,
    NotFound,
    TandemError,
)
from tandem.runtimes.adapter import LABEL_SPEC_HASH, Phase, RuntimeStatus
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.aio import to_the_end, together
from tandem.runtimes.cri.client import (
    CREATE_CONTAINER,
    REMOVE_SANDBOX,
    RUN_SANDBOX,
    START_CONTAINER,
    STOP_SANDBOX,
    CriClient,
)
from tandem.runtimes.cri.container import ContainerPlan
from tandem.runtimes.cri.containers import RESERVED, Containers, make_directories
from tandem.runtimes.cri.images import Images
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.stopping import Stopper, insist
from tandem.runtimes.cri.translate import (
    PodPlan,
    PodRecord,
    log_directory,
)

_log = logging.getLogger(__name__)

_NOT_STARTABLE = re.compile(
    r"executable file not found|no such file or directory|permission denied|exec format error"
)


class Lifecycle:
    """Makes and removes the Pods of one owner. ``slots`` bounds how many are made or removed at a
    time: it is work for the host's processors, and more at once only makes each slower. ``removed``
    is called after each removal."""

    def __init__(
        self,
        client: CriClient,
        pods: Pods,
        images: Images,
        containers: Containers,
        *,
        stopper: Stopper,
        log_dir: Path,
        slots: asyncio.Semaphore,
        removed: Callable[[], None],
    ) -> None:
        self._client = client
        self._pods = pods
        self._images = images
        self._containers = containers
        self._stopper = stopper
        self._log_dir = log_dir
        self._slots = slots
        self._removed = removed
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

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())

    async def _existing(self, plan: PodPlan) -> RuntimeStatus | None:
        """The Pod's status when it is there and whole. What a crash left half made is removed."""
        found = await self._pods.find(plan.id)
        if not found:
            return None
        status = await self._pods.status(plan.id)
        # A sandbox that was lost before anything was in it is one that a crash of the runtime cut off.
        cut_off = status.phase is Phase.FAILED and not status.containers
        if status.phase is not Phase.PENDING and not cut_off and len(found) == 1:
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
        request = cri.RunPodSandboxRequest(config=plan.sandbox, runtime_handler=plan.handler)
        directory = plan.sandbox.log_directory
        try:
            await asyncio.to_thread(make_directories, directory, plan.containers)
            sandbox = (await self._client.call(RUN_SANDBOX, request, whole=True)).pod_sandbox_id
            self._pods.remember(plan.id, sandbox)
            if not configs:
                status = await self._pods.read_sandbox(sandbox)
                self._containers.remember(plan.id, status, plan.sandbox)
                return await self._pods.status_of(status, [])
            await self._make(sandbox, plan.sandbox, plan.containers, configs)
            return await self._pods.status(plan.id)
        except BaseException as error:
            if isinstance(error, TandemError) and RESERVED.search(error.message):
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
            await to_the_end(self._containers.remove(made))
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
            details = {"container": plan.name, "reason": "RunContainerError"}
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
        self._containers.forget(id)
        await together(self._remove(sandbox, grace_seconds) for sandbox in sandboxes)
        self._containers.forget(id)
        self._pods.forget(id)

    async def release(self, id: str) -> None:
        """Stop the Pod's sandbox and leave its containers, as they ended, and their logs."""
        self._containers.forget(id)
        for sandbox in await self._pods.find(id):
            stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
            async with self._slots:
                await insist(functools.partial(self._client.call, STOP_SANDBOX, stop))

    async def _remove(self, sandbox: str, grace_seconds: float | None) -> None:
        try:
            status = await self._pods.read_sandbox(sandbox)
        except NotFound:
            return
        if grace_seconds is None:
            grace_seconds = PodRecord.from_annotations(status.annotations).grace_seconds
        if grace_seconds > 0:
            await self._stopper.stop(sandbox, grace_seconds)
        async with self._slots:
            # Stopping a sandbox kills what still runs in it.
            stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
            await insist(lambda: self._client.call(STOP_SANDBOX, stop))
            remove = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
            await insist(lambda: self._client.call(REMOVE_SANDBOX, remove))
        self._removed()
        directory = log_directory(self._log_dir, status.metadata)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
