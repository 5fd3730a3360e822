"""Containers that come and go in a Pod that exists: starting, starting again, stopping.

What a Pod's sandbox is made of, and which attempts of its containers there are, is kept in memory, so
that a start costs the runtime no more than the start itself. It only spares asking: after a restart
of this process, or when the runtime turns out to know better, it is read from the runtime again.

Calls that make something are never abandoned in flight, because the runtime would finish them unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from tandem.errors import Conflict, DeadlineExceeded, NotFound, TandemError, Unavailable
from tandem.runtimes.adapter import RuntimeStatus
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.aio import to_the_end, together
from tandem.runtimes.cri.client import (
    CREATE_CONTAINER,
    REMOVE_CONTAINER,
    START_CONTAINER,
    CriClient,
)
from tandem.runtimes.cri.container import ContainerPlan
from tandem.runtimes.cri.hostfacts import HostFacts
from tandem.runtimes.cri.images import Images
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.status import attempt_order
from tandem.runtimes.cri.stopping import Stopper
from tandem.runtimes.cri.translate import (
    PodRecord,
    plan_later_container,
    restore_sandbox,
)

_log = logging.getLogger(__name__)

RESERVED = re.compile(r"name .* is reserved for")
"""What a runtime says to who makes what is there, or is just being made."""


@dataclass(slots=True)
class _Attempt:
    """One attempt of a container. ``started`` False: it may have been made only, and not started."""

    number: int
    id: str
    started: bool = True


@dataclass(slots=True)
class _Pod:
    """A Pod as it is known: ``attempts`` of each container, the last one last."""

    sandbox: cri.PodSandboxStatus
    config: cri.PodSandboxConfig
    record: PodRecord
    attempts: dict[str, list[_Attempt]] = field(default_factory=dict)


class Containers:
    """Starts and stops single containers. ``slots`` bounds how many are being made at a time."""

    def __init__(
        self,
        client: CriClient,
        pods: Pods,
        images: Images,
        *,
        stopper: Stopper,
        log_dir: Path,
        slots: asyncio.Semaphore,
    ) -> None:
        self._client = client
        self._pods = pods
        self._images = images
        self._stopper = stopper
        self._log_dir = log_dir
        self._slots = slots
        self._known: dict[str, _Pod] = {}
        # One start at a time for each container; a lock goes when nobody needs it any more.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def remember(
        self, id: str, sandbox: cri.PodSandboxStatus, config: cri.PodSandboxConfig
    ) -> None:
        """The Pod has just been made, with nothing in it."""
        self._known[id] = _Pod(sandbox, config, PodRecord.from_annotations(config.annotations))

    def forget(self, id: str) -> None:
        """The Pod is not what it was, or is no more."""
        self._known.pop(id, None)

    # -- starting ----------------------------------------------------------------------------

    async def start(
        self, id: str, document: Mapping[str, Any], *, attempt: int, host: HostFacts
    ) -> RuntimeStatus:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        async with self._lock(id, str(document.get("name", ""))):
            try:
                return await self._attempt(id, document, attempt, host)
            except _Outdated:
                self.forget(id)
            except (Unavailable, DeadlineExceeded):
                self.forget(id)  # whatever was asked for may have been done
                raise
            try:
                return await self._attempt(id, document, attempt, host)
            except _Outdated as error:
                self.forget(id)
                raise Conflict(f"Pod {id!r} is being made or removed already") from error

    async def _attempt(
        self, id: str, document: Mapping[str, Any], attempt: int, host: HostFacts
    ) -> RuntimeStatus:
        pod = await self._pod(id, host)
        plan = plan_later_container(pod.config, pod.record, document, attempt=attempt, host=host)
        attempts = pod.attempts.setdefault(plan.name, [])
        if attempts and attempts[-1].number >= attempt:
            await self._finish(id, pod, attempts[-1])
            return await self._pods.status(id)
        if attempts:
            await self._check_ended(id, plan.name, attempts[-1].id)
        image = await self._images.ensure(plan.image, plan.pull_policy)
        settings = plan.with_image(image)
        if plan.target:
            _set_target(settings, plan, pod)
        async with self._slots:
            made = await self._make(id, pod, plan, settings, attempts)
        for old in attempts[:-2]:  # the one before stays, for its log and its last state
            await self._discard(pod, plan.name, old)
            attempts.remove(old)
        if not made:
            return await self._pods.status(id)
        newest = [found[-1].id for found in pod.attempts.values() if found]
        return await self._pods.status_of(pod.sandbox, newest)

    async def _make(
        self,
        id: str,
        pod: _Pod,
        plan: ContainerPlan,
        settings: cri.ContainerConfig,
        attempts: list[_Attempt],
    ) -> bool:
        """Make the next attempt and start it; False when it could not be started."""
        await asyncio.to_thread(make_directories, pod.config.log_directory, [plan])
        request = cri.CreateContainerRequest(
            pod_sandbox_id=pod.sandbox.id, config=settings, sandbox_config=pod.config
        )
        container = ""

        async def create() -> None:
            nonlocal container
            container = (await self._client.call(CREATE_CONTAINER, request)).container_id

        try:
            await to_the_end(create())
        except (Unavailable, DeadlineExceeded):
            raise
        except TandemError as error:
            if isinstance(error, NotFound) or RESERVED.search(error.message):
                raise _Outdated from error
            await self._check_sandbox(id, pod)
            raise _named(error, plan) from error
        except BaseException:  # nobody wants it any more
            await to_the_end(self.remove([container] if container else []))
            raise
        attempts.append(_Attempt(settings.metadata.attempt, container, started=False))
        return await self._finish(id, pod, attempts[-1])

    async def _finish(self, id: str, pod: _Pod, attempt: _Attempt) -> bool:
        """Start what was made, unless it was started before; False when it cannot be started."""
        if attempt.started:
            return True
        request = cri.StartContainerRequest(container_id=attempt.id)
        try:
            await self._client.call(START_CONTAINER, request, whole=True)
        except (Unavailable, DeadlineExceeded):
            raise
        except TandemError as error:
            status = await self._pods.container(attempt.id)
            if status is None:
                raise _Outdated from error
            if status.state == cri.CONTAINER_CREATED:
                await self._drop(pod, attempt)
                raise
            try:
                await self._check_sandbox(id, pod)
            except (_Outdated, Conflict):
                await self._drop(pod, attempt)
                raise
            # It could not be started, and the runtime keeps it with the reason.
            attempt.started = True
            return False
        except BaseException:
            await to_the_end(self._drop(pod, attempt))
            raise
        attempt.started = True
        return True

    async def _drop(self, pod: _Pod, attempt: _Attempt) -> None:
        await self.remove([attempt.id])
        for attempts in pod.attempts.values():
            if attempt in attempts:
                attempts.remove(attempt)

    async def _check_ended(self, id: str, name: str, container: str) -> None:
        """Raise ``Conflict`` when the attempt before still runs."""
        sighting = self._pods.sighting(container)
        if sighting is not None and sighting.exit_code is not None:
            return
        status = await self._pods.container(container)
        if status is not None and status.state == cri.CONTAINER_RUNNING:
            raise Conflict(f"container {name!r} of Pod {id!r} is still running")

    async def _check_sandbox(self, id: str, pod: _Pod) -> None:
        """Raise ``Conflict`` when the Pod has lost its sandbox."""
        try:
            status = await self._pods.read_sandbox(pod.sandbox.id)
        except NotFound as error:
            raise _Outdated from error
        if status.state != cri.SANDBOX_READY:
            self.forget(id)
            raise Conflict(_sandbox_gone(id))

    async def _pod(self, id: str, host: HostFacts) -> _Pod:
        if known := self._known.get(id):
            return known
        async with self._lock(id, ""):
            if known := self._known.get(id):
                return known
            sandbox = await self._pods.sandbox(id)
            if sandbox.state != cri.SANDBOX_READY:
                raise Conflict(_sandbox_gone(id))
            pod = _Pod(
                sandbox,
                restore_sandbox(sandbox, log_dir=self._log_dir, host=host),
                PodRecord.from_annotations(sandbox.annotations),
            )
            for item in sorted(await self._pods.containers(sandbox.id), key=attempt_order):
                started = item.state != cri.CONTAINER_CREATED
                attempt = _Attempt(item.metadata.attempt, item.id, started)
                pod.attempts.setdefault(item.metadata.name, []).append(attempt)
            self._known[id] = pod
            return pod

    def _lock(self, id: str, name: str) -> asyncio.Lock:
        return self._locks.setdefault((id, name), asyncio.Lock())

    # -- stopping and removing ---------------------------------------------------------------

    async def stop(self, id: str, name: str, *, grace_seconds: float) -> None:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        try:
            sandbox = await self._pods.sandbox(id)
        except NotFound:
            return
        await self._stopper.stop(sandbox.id, grace_seconds, only=name)

    async def remove(self, containers: Sequence[str]) -> None:
        """Remove containers, whatever they do; what cannot be removed goes with its sandbox."""

        async def remove(container: str) -> None:
            with contextlib.suppress(TandemError):  # the failure that led here is the one to tell
                request = cri.RemoveContainerRequest(container_id=container)
                await self._client.call(REMOVE_CONTAINER, request)

        await together(remove(container) for container in containers)

    async def _discard(self, pod: _Pod, name: str, attempt: _Attempt) -> None:
        """Remove an attempt that has ended, with its files."""
        await self.remove([attempt.id])
        await asyncio.to_thread(_remove_files, Path(pod.config.log_directory, name), attempt.number)


class _Outdated(Exception):
    """What is known of the Pod is not so any more."""


def make_directories(log_directory: str, plans: Sequence[ContainerPlan]) -> None:
    """Where the runtime writes the containers' output to, and they their last words. Blocking."""
    for plan in plans:
        Path(log_directory, plan.name).mkdir(mode=0o755, parents=True, exist_ok=True)
        if plan.message_file:
            with open(plan.message_file, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o666)  # whoever the container runs as may write it


def _set_target(config: cri.ContainerConfig, plan: ContainerPlan, pod: _Pod) -> None:
    """Let the container see the processes of the one that it targets."""
    attempts = pod.attempts.get(plan.target)
    if not attempts:
        message = f"unable to find target container {plan.target}"
        details = {"container": plan.name, "reason": "CreateContainerConfigError"}
        raise Conflict(message, details=details)
    options = config.linux.security_context.namespace_options
    options.pid = cri.TARGET
    options.target_id = attempts[-1].id


def _remove_files(folder: Path, attempt: int) -> None:
    for file in folder.glob(f"{attempt}.*"):  # the log, what was rotated of it, its last words
        file.unlink(missing_ok=True)


def _sandbox_gone(id: str) -> str:
    return f"the sandbox of Pod {id!r} is gone, and its containers with it"


def _named(error: TandemError, plan: ContainerPlan) -> TandemError:
    """``error`` of making a container, with what a kubelet calls it."""
    words = error.message.removeprefix("CreateContainer: ")
    details = {"container": plan.name, "reason": "CreateContainerError"}
    return TandemError(f"container {plan.name!r} cannot be made: {words}", details=details)
