"""The container adapter: Pods on a CRI runtime, which is containerd, or CRI-O.

This module is the contract only. What it asks of the runtime is made by ``translate`` (pure), done by
``lifecycle``, read by ``pods`` and ``logs``, and heard from ``events``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tandem.errors import Cause, InvalidSpec, TandemError
from tandem.runtimes.adapter import (
    Fingerprint,
    RuntimeAdapter,
    RuntimeEvent,
    RuntimeHandle,
    RuntimeSpec,
    RuntimeStatus,
)
from tandem.runtimes.capabilities import (
    ExecResult,
    ExecSession,
    HalfCloseStream,
    ImageFile,
    LogOptions,
    PulledImage,
    RegistryCredentials,
    WorkloadUsage,
)
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import STATUS, VERSION, CriClient
from tandem.runtimes.cri.containers import Containers
from tandem.runtimes.cri.events import EventHub
from tandem.runtimes.cri.hostfacts import SECCOMP_DIR, HostFacts, read_host_facts
from tandem.runtimes.cri.imagedirectories import ImageMounts
from tandem.runtimes.cri.imagefiles import ImageFinder
from tandem.runtimes.cri.images import Images
from tandem.runtimes.cri.lifecycle import Lifecycle
from tandem.runtimes.cri.logrotation import LogLimits, LogRotation, reopen_log
from tandem.runtimes.cri.logs import LogReader
from tandem.runtimes.cri.orphans import Sweeper
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.snapshots import Snapshots
from tandem.runtimes.cri.stats import read_usage
from tandem.runtimes.cri.status import ADAPTER_NAME, HANDLE_VERSION
from tandem.runtimes.cri.stopping import Stopper
from tandem.runtimes.cri.streaming import Streams
from tandem.runtimes.cri.translate import plan_pod

_PROBE_TIMEOUT = 5.0  # seconds; somebody waits for a fingerprint


class ContainerAdapter(RuntimeAdapter):
    """A :class:`RuntimeAdapter` on the CRI runtime at ``endpoint``.

    ``owner`` tells the Pods of several Tandems in one runtime apart. ``log_dir`` is where the
    runtime writes the containers' output, so it must be the same path for it; ``image_dir`` is where
    images are mounted that are volumes; ``seccomp_dir`` has the seccomp profiles of this host. ``timeout`` and
    ``pull_timeout`` (seconds) bound one call and one pull. ``max_concurrency`` bounds the Pods that
    are made or removed at a time; None is two for each processor. ``log_limits``: how long the logs
    may grow before they are rotated, while :meth:`events` are listened to; None: as long as they like.
    """

    name: ClassVar[str] = ADAPTER_NAME

    def __init__(
        self,
        endpoint: str = "/run/containerd/containerd.sock",
        *,
        owner: str = "tandem",
        log_dir: Path = Path("/var/log/tandem/pods"),
        image_dir: Path = Path("/var/lib/tandem/image-volumes"),
        seccomp_dir: Path = SECCOMP_DIR,
        timeout: float = 120.0,
        pull_timeout: float = 900.0,
        max_concurrency: int | None = None,
        log_limits: LogLimits | None = None,
    ) -> None:
        self.endpoint = endpoint.removeprefix("unix://")
        self.owner = owner
        self._log_dir = Path(log_dir)
        self._seccomp_dir = Path(seccomp_dir)
        self._client = CriClient(self.endpoint, timeout=timeout)
        self._sweeper = Sweeper(self._client)
        self._hub = EventHub(self._client, owner, connected=self._sweeper.connected)
        self._pods = Pods(self._client, owner, self._hub.sightings)
        self._logs = LogReader(self._pods, self._hub)
        reopen = partial(reopen_log, self._client, owner)
        self._rotation = LogRotation(self._log_dir, log_limits, reopen) if log_limits else None
        self._streams = Streams(self._client, self._pods)
        self._snapshots = Snapshots(self._client)
        self._images = Images(self._client, pull_timeout=pull_timeout)
        self._image_files = ImageFinder(self._snapshots, self._images)
        self._image_mounts = ImageMounts(self._snapshots, self._images, Path(image_dir), owner)
        slots = asyncio.Semaphore(max_concurrency or 2 * (os.cpu_count() or 1))
        shared = (self._client, self._pods, self._images)
        parts: Any = {
            "stopper": Stopper(self._client, self._pods),
            "log_dir": self._log_dir,
            "slots": slots,
        }
        self._containers = Containers(*shared, **parts)
        self._lifecycle = Lifecycle(
            *shared, self._containers, **parts, removed=self._sweeper.removed
        )

    async def fingerprint(self) -> Fingerprint:
        try:
            version, status = await asyncio.gather(
                self._client.call(VERSION, cri.VersionRequest(), timeout=_PROBE_TIMEOUT),
                self._client.call(STATUS, cri.StatusRequest(), timeout=_PROBE_TIMEOUT),
            )
        except TandemError as error:
            hint = error.hint or f"check the container runtime at {self.endpoint}"
            return Fingerprint(self.name, "", False, error.message, hint)
        return describe_runtime(version, status.status, self.endpoint)

    async def create(self, spec: RuntimeSpec) -> RuntimeStatus:
        host = await self._host()
        plan = plan_pod(spec, owner=self.owner, log_dir=self._log_dir, host=host)
        return await self._lifecycle.create(plan)

    async def _host(self) -> HostFacts:
        return await asyncio.to_thread(read_host_facts, seccomp_dir=self._seccomp_dir)

    async def delete(self, id: str, *, grace_seconds: float | None = None) -> None:
        await self._lifecycle.delete(id, grace_seconds=grace_seconds)

    async def get_status(self, id: str) -> RuntimeStatus:
        return await self._pods.status(id)

    async def list(self, *, strangers: bool = False) -> Sequence[RuntimeStatus]:
        return await self._pods.list(strangers=strangers)

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        if self._rotation is not None:
            self._rotation.start()
        return self._hub.listen()

    async def recover(self, handle: RuntimeHandle) -> RuntimeStatus:
        if handle.adapter != self.name or handle.version != HANDLE_VERSION:
            raise InvalidSpec(
                f"a handle of {handle.adapter!r}, version {handle.version}, is not one of "
                f"{self.name!r}, version {HANDLE_VERSION}",
                causes=[Cause("handle", "Invalid value: of another adapter or version")],
            )
        return await self._pods.status(handle.data.get("id", ""))

    async def close(self) -> None:
        if self._rotation is not None:
            await self._rotation.close()
        await self._hub.close()
        await self._sweeper.close()
        await self._client.close()

    async def start_container(
        self, id: str, container: Mapping[str, Any], *, attempt: int
    ) -> RuntimeStatus:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        host = await self._host()
        return await self._containers.start(id, container, attempt=attempt, host=host)

    async def stop_container(self, id: str, container: str, *, grace_seconds: float) -> None:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        await self._containers.stop(id, container, grace_seconds=grace_seconds)

    async def release(self, id: str) -> None:
        """See :class:`tandem.runtimes.capabilities.Containers`."""
        await self._lifecycle.release(id)

    async def pull_image(
        self,
        image: str,
        *,
        pull_policy: str = "IfNotPresent",
        credentials: Sequence[RegistryCredentials] = (),
    ) -> PulledImage:
        """See :class:`tandem.runtimes.capabilities.Images`."""
        return await self._images.pull(image, pull_policy, credentials)

    async def usage(self) -> Sequence[WorkloadUsage]:
        """See :class:`tandem.runtimes.capabilities.Stats`."""
        return await read_usage(self._client, self.owner)

    def logs(self, id: str, *, container: str = "", options: LogOptions) -> AsyncIterator[bytes]:
        """See :class:`tandem.runtimes.capabilities.Logs`."""
        return self._logs.read(id, container, options)

    async def exec(
        self,
        id: str,
        command: Sequence[str],
        *,
        container: str = "",
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> ExecSession:
        """See :class:`tandem.runtimes.capabilities.Exec`."""
        return await self._streams.exec(
            id, command, container, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
        )

    async def exec_sync(
        self, id: str, command: Sequence[str], *, container: str = "", timeout: float
    ) -> ExecResult:
        """See :class:`tandem.runtimes.capabilities.Exec`."""
        return await self._streams.exec_sync(id, command, container, timeout=timeout)

    async def attach(
        self,
        id: str,
        *,
        container: str = "",
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> ExecSession:
        """See :class:`tandem.runtimes.capabilities.Attach`."""
        return await self._streams.attach(
            id, container, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
        )

    async def port_forward(self, id: str, port: int) -> HalfCloseStream:
        """See :class:`tandem.runtimes.capabilities.PortForward`."""
        return await self._streams.port_forward(id, port)

    async def image_file(
        self, image: str, path: str | None, *, pull_policy: str = "IfNotPresent"
    ) -> ImageFile:
        """See :class:`tandem.runtimes.capabilities.ImageFiles`. Needs containerd."""
        return await self._image_files.find(image, path, pull_policy)

    async def image_directory(
        self,
        image: str,
        *,
        holder: str,
        pull_policy: str = "IfNotPresent",
        credentials: Sequence[RegistryCredentials] = (),
    ) -> Path:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`. Needs containerd."""
        return await self._image_mounts.give(image, holder, pull_policy, credentials)

    async def release_image_directories(self, holder: str) -> None:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`."""
        await self._image_mounts.release(holder)

    async def image_directory_holders(self) -> Collection[str]:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`."""
        return await self._image_mounts.holders()


_HINTS = {
    "RuntimeReady": "see the container runtime's log",
    "NetworkReady": (
        "put a CNI configuration into /etc/cni/net.d and the CNI plugins where the runtime looks "
        "for them (on Debian: package containernetworking-plugins, bin_dir = /usr/lib/cni)"
    ),
}


def describe_runtime(
    version: cri.VersionResponse, status: cri.RuntimeStatus, endpoint: str
) -> Fingerprint:
    """The fingerprint of a runtime that answers."""
    problems = [item for item in status.conditions if not item.status and item.type in _HINTS]
    containerd = version.runtime_name == "containerd"
    return Fingerprint(
        name=version.runtime_name,
        version=version.runtime_version,
        healthy=not problems,
        problem="; ".join(f"{item.type} is false: {item.message}" for item in problems),
        hint="; ".join(_HINTS[item.type] for item in problems),
        capabilities=frozenset(
            {
                *("Attach", "Containers", "Exec", "Images", "Logs", "PortForward", "Stats"),
                *(["ImageDirectories", "ImageFiles"] if containerd else []),
            }
        ),
        details={"endpoint": endpoint, "cri": version.runtime_api_version},
    )
