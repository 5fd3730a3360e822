"""What some runtimes can do beyond the adapter contract, each a small protocol of its own.

An adapter that has a capability implements its methods and names it in
``Fingerprint.capabilities`` (``"Logs"``, ``"Console"``, ...). Callers ask with ``isinstance``, which
these runtime-checkable protocols allow, and refuse at admission what an adapter lacks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tandem.runtimes.adapter import RuntimeStatus


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a log, as ``v1`` PodLogOptions has it.

    ``tail_lines`` counts from the end; ``since`` drops older lines; ``limit_bytes`` bounds the whole
    answer; ``previous`` is the attempt before the current one.
    """

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None


@runtime_checkable
class Logs(Protocol):
    """The output a workload has written."""

    def logs(self, id: str, *, container: str = "", options: LogOptions) -> AsyncIterator[bytes]:
        """Chunks of the log. A container's output by its name; a VM's serial console with an empty
        one. With ``follow``, ends when the workload ends. Raises ``NotFound``."""
        ...


@runtime_checkable
class Containers(Protocol):
    """Workloads made of several containers that come and go on their own."""

    async def start_container(
        self, id: str, container: Mapping[str, Any], *, attempt: int
    ) -> RuntimeStatus:
        """Start one container (a ``v1`` Container document, literal values) in a workload that
        exists: a new name, or the next ``attempt`` of one that has ended, which it replaces while
        keeping its log for ``previous``. Idempotent for the same name and attempt.

        A container that the runtime could make and not start (no such program, say) is no error: it
        is an attempt that has ended, with exit code 128, reason StartError and the runtime's words.
        Whatever is wrong before that raises and leaves no attempt: ``NotFound`` (no such workload),
        ``Conflict`` (the attempt before still runs, or the sandbox is gone), ``InvalidSpec``,
        ``ImagePullError``, or another error; its ``details["reason"]``, where there is one, is the
        kubelet's word for it: CreateContainerConfigError, CreateContainerError, ErrImagePull, ..."""
        ...

    async def stop_container(self, id: str, container: str, *, grace_seconds: float) -> None:
        """Ask the running attempt of one container to end, wait ``grace_seconds``, then kill it. It
        stays as an ended attempt, with its log. One that has ended, or never was, is success."""
        ...

    async def release(self, id: str) -> None:
        """Take the sandbox of a workload that is over: what still runs in it is killed, its network
        and address are given back. Its containers stay as they ended, with their logs, until
        ``delete``. One that was lost, or is not there, is success."""
        ...


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """Who we are at a registry: a user name and password, or a token that the registry gave."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""


@dataclass(frozen=True, slots=True)
class PulledImage:
    """What became of asking for an image. ``pulled``: whether the registry was asked for it; then
    ``seconds`` is how long that took. ``size``: bytes."""

    id: str
    pulled: bool
    seconds: float = 0.0
    size: int = 0


@runtime_checkable
class Images(Protocol):
    """Images are had before a container needs them, so that their trouble has a name of its own."""

    async def pull_image(
        self,
        image: str,
        *,
        pull_policy: str = "IfNotPresent",
        credentials: Sequence[RegistryCredentials] = (),
    ) -> PulledImage:
        """Make ``image`` present as ``pull_policy`` (Always, IfNotPresent, Never) says, trying each of
        ``credentials`` in order, then none. Equal pulls under way at once are one. Raises
        ``ImagePullError`` with the registry's words; its ``details["reason"]`` is the kubelet's:
        ErrImagePull, ErrImageNeverPull, InvalidImageName or RegistryUnavailable."""
        ...


class ByteStream(Protocol):
    """A two-way stream of bytes. ``read`` returns ``b""`` at the end."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class HalfCloseStream(ByteStream, Protocol):
    """A two-way stream each of whose directions ends on its own, as TCP's do."""

    async def close_write(self) -> None:
        """Say that no more will be written; reading goes on."""
        ...


class ExecSession(Protocol):
    """A process in a container, or the attachment to one, with its streams."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next output: 1 and bytes of stdout, or 2 and bytes of stderr; None when both have
        ended. A slow reader slows the process down; nothing is buffered without bound."""
        ...

    async def write(self, data: bytes) -> None:
        """Give the process input; waits while it takes none."""
        ...

    async def close_stdin(self) -> None:
        """End the process's input; its output goes on."""
        ...

    async def resize(self, columns: int, rows: int) -> None:
        """Tell a terminal its size, in characters."""
        ...

    async def wait(self) -> int:
        """The exit code, once the process has ended; 0 for an attachment that has. Raises
        ``InvalidSpec`` (no such program) and ``Unavailable`` (the runtime has gone away)."""
        ...

    async def close(self) -> None:
        """Let go at once. The process may go on."""
        ...


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended, and what it wrote: at most the runtime's limit (16 MiB) of each."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@runtime_checkable
class Exec(Protocol):
    """Commands inside a running workload."""

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
        """Run ``command`` with streams. Raises ``NotFound`` and ``Conflict`` (it does not run); a
        program that there is not is told by the session's ``wait``."""
        ...

    async def exec_sync(
        self, id: str, command: Sequence[str], *, container: str = "", timeout: float
    ) -> ExecResult:
        """Run ``command`` to its end, at most ``timeout`` seconds: after that it is killed and
        ``DeadlineExceeded`` is raised."""
        ...


@runtime_checkable
class Attach(Protocol):
    """The streams of a running workload's own first process."""

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
        """Join the container's own process; output from now on. Raises ``NotFound``, ``Conflict``."""
        ...


@runtime_checkable
class PortForward(Protocol):
    """Connections to a port inside a workload's own network, loopback included."""

    async def port_forward(self, id: str, port: int) -> HalfCloseStream:
        """Connect to TCP ``port``. Raises ``NotFound``, ``Conflict`` (it does not run) and
        ``Unavailable`` (nobody takes the connection)."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container, or a machine, has used. ``cpu_nanoseconds``: of processor time since it
    started. ``memory_bytes``: its working set, what cannot be had back under pressure. ``at``: when
    this was so, seconds of the monotonic clock."""

    cpu_nanoseconds: int
    memory_bytes: int
    at: float


@dataclass(frozen=True, slots=True)
class WorkloadUsage:
    """What one workload has used: ``containers`` by name; a VM has one, with an empty name."""

    id: str
    containers: Mapping[str, Usage] = field(default_factory=dict)


@runtime_checkable
class Stats(Protocol):
    """What the workloads use, in one question for all of them."""

    async def usage(self) -> Sequence[WorkloadUsage]:
        """Of every running workload of this owner, as the runtime knows it now."""
        ...


@runtime_checkable
class Console(Protocol):
    """The serial console of a virtual machine."""

    async def open_console(self, id: str) -> ByteStream:
        """Open the console; whoever had it before is cut off, as in KubeVirt. Raises ``NotFound``
        and ``Conflict`` (not running)."""
        ...


@runtime_checkable
class Pause(Protocol):
    """Freeze and thaw a running workload."""

    async def pause(self, id: str) -> RuntimeStatus: ...

    async def resume(self, id: str) -> RuntimeStatus: ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file inside an OCI image, where it lies on the host. ``digest`` is the image's."""

    digest: str
    path: Path


@runtime_checkable
class ImageFiles(Protocol):
    """Files out of OCI images, for containerDisk and kernelBoot."""

    async def image_file(
        self, image: str, path: str | None, *, pull_policy: str = "IfNotPresent"
    ) -> ImageFile:
        """Pull ``image`` as ``pull_policy`` (Always, IfNotPresent, Never) says, and find ``path`` in
        it; with None, the single file in ``/disk`` as KubeVirt's containerDisk has it. The file
        stays where it is at least until the image is removed, so link or copy it. Raises
        ``ImagePullError``, ``InvalidSpec`` (no such file, or more than one), ``Unsupported``."""
        ...


@runtime_checkable
class ImageDirectories(Protocol):
    """The whole file system of OCI images as read-only directories, for volumes of type image.

    A directory belongs to a ``holder`` (a Pod's uid) and outlives this process; after a reboot it is
    made again by asking for it again. Equal images of different holders share what they consist of.
    """

    async def image_directory(
        self,
        image: str,
        *,
        holder: str,
        pull_policy: str = "IfNotPresent",
        credentials: Sequence[RegistryCredentials] = (),
    ) -> Path:
        """The root directory of ``image``, pulled as ``pull_policy`` says, for ``holder`` to mount
        into its containers. Idempotent. Raises ``ImagePullError``, ``InvalidSpec`` (an image
        without layers), ``Unsupported``."""
        ...

    async def release_image_directories(self, holder: str) -> None:
        """Take away what ``holder`` was given; what is gone already is success. Nothing may have it
        mounted any more."""
        ...

    async def image_directory_holders(self) -> Collection[str]:
        """All who hold directories, also those that an earlier process gave them to."""
        ...
