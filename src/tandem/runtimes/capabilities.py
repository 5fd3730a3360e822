"""What some runtimes can do beyond the adapter contract, each a small protocol of its own.

An adapter that has a capability implements its methods and names it in
``Fingerprint.capabilities`` (``"Logs"``, ``"Console"``, ...). Callers ask with ``isinstance``, which
these runtime-checkable protocols allow, and refuse at admission what an adapter lacks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
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
        keeping its log for ``previous``. Idempotent for the same name and attempt. Raises
        ``NotFound``, ``InvalidSpec``, ``ImagePullError``."""
        ...


class ByteStream(Protocol):
    """A two-way stream of bytes. ``read`` returns ``b""`` at the end."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


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
