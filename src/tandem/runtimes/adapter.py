"""The adapter contract: what every runtime must do for Tandem, and nothing more.

A runtime adapter turns a :class:`RuntimeSpec` into a running workload and reports a
:class:`RuntimeStatus` in one vocabulary of phases, whatever the runtime says. Adapters know neither
the store nor each other. The post-conditions below are checked by one contract suite
(``tests/contract``) that runs over every adapter, the real ones included:

1. A ``create`` that fails or is cancelled leaves the runtime as it was. A second ``create`` with the
   same id and spec returns the first's status; with another spec it raises ``AlreadyExists``.
2. ``delete`` honours the grace period, then forces; deleting what is not there succeeds.
3. What we made carries our id and owner in the runtime itself. Strangers are never touched.
4. Native errors are wrapped into :mod:`tandem.errors`, the cause chained.
5. Nothing of a workload is a child of this process.

Verbs that only some runtimes have are protocols of their own in
:mod:`tandem.runtimes.capabilities`.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

LABEL_ID = "tandem.dev/id"
"""Label (CRI) or metadata element (libvirt) that carries ``RuntimeSpec.id`` in the runtime."""

LABEL_OWNER = "tandem.dev/owner"
"""Label that says which Tandem made it, so that two may share one runtime without meeting."""

LABEL_SPEC_HASH = "tandem.dev/spec-hash"
"""Label that lets a second ``create`` tell the same spec from another one."""

LABEL_SHUTDOWN_PHASE = "tandem.dev/shutdown-phase"
"""Set in ``RuntimeSpec.labels`` by a VM's owner: the phase (``Succeeded`` or ``Stopped``) that a
guest's own clean shutdown means to it. Without it a shut off VM is ``Stopped``."""


class Phase(StrEnum):
    """Where a workload is in its life, in one vocabulary for every runtime."""

    PENDING = "Pending"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What to run.

    ``id``: the caller's name for it, unique per adapter and owner: 1 to 63 characters of
    ``[A-Za-z0-9._-]`` that start and end with a letter or digit.
    ``container_spec``: a ``v1`` PodSpec document (``{"containers": [...], ...}``) in which nothing is
    left to look up, or, as a shorthand, one container (``{"image": ..., "command": [...]}``). The
    adapter expands ``$(NAME)`` in ``env``, ``command`` and ``args``, as Kubernetes does. With an empty
    ``containers`` list only the Pod's sandbox is made, Running until it is deleted or lost, for
    containers that are started in it later. Those, all of them, initContainers included, are then
    named in ``plannedContainers``: of these documents only ``name``, ``ports``, ``resources`` and
    ``securityContext.privileged`` are looked at, because the sandbox's host ports, the class of
    service and what its containers may do are settled when it is made. ``runtimeHandler`` is the
    handler of the Pod's RuntimeClass. An entry of ``volumeMounts`` may say ``hostPath``, the path on
    this host to mount; then no volume of its name is looked for.
    ``vm_xml``: libvirt domain XML.
    ``labels``: kept in the runtime beside our own, and returned in the status.

    Exactly one of ``container_spec`` and ``vm_xml`` must be given; which one an adapter takes is its
    own matter, and it raises ``InvalidSpec`` when it is the other.
    """

    id: str
    container_spec: Mapping[str, Any] | None = None
    vm_xml: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuntimeHandle:
    """What an adapter needs to find a workload again; opaque to everyone else, JSON-friendly.

    ``version`` is raised when ``data`` changes shape, so that an old handle read back after an
    upgrade is understood or refused, never misread.
    """

    adapter: str
    version: int
    data: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container of a workload. Times are aware datetimes in UTC; ``phase`` is never PAUSED."""

    name: str
    phase: Phase
    container_id: str = ""
    image: str = ""
    image_id: str = ""
    attempt: int = 0
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """How a workload is.

    ``id``: the id to ask this adapter by. Containers: ``RuntimeSpec.id``. Virtual machines: the
    domain's UUID, as libvirt's own tools show it; ``delete`` and ``get_status`` take it as well as
    ``RuntimeSpec.id``.
    ``spec_id``: ``RuntimeSpec.id`` as it was given to ``create``.
    ``exit_code``, ``reason``, ``message``: of the workload's end, where the runtime tells.
    ``addresses``: IP addresses, the primary one first.
    ``containers``: one entry for each container, newest attempt only; empty for a VM.
    ``details``: native facts worth showing (for a VM: ``accelerator`` is ``kvm`` or ``qemu``).
    """

    phase: Phase
    id: str
    spec_id: str = ""
    handle: RuntimeHandle | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    addresses: tuple[str, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


class EventKind(StrEnum):
    """What happened to a workload. ``RESYNC`` says that events may have been missed: list again."""

    CREATED = "Created"
    STARTED = "Started"
    STOPPED = "Stopped"
    PAUSED = "Paused"
    RESUMED = "Resumed"
    OOM = "OOM"
    DELETED = "Deleted"
    RESYNC = "Resync"


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """A runtime's word that something changed; the status is read afresh, never taken from it.

    ``id`` is ``RuntimeSpec.id`` (empty for ``RESYNC``); ``container`` names the container of a Pod.
    """

    kind: EventKind
    id: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the runtime is and whether it can work.

    ``problem`` is empty when ``healthy``, else one sentence for a person, with the fix in ``hint``.
    ``capabilities`` are the names of the protocols in :mod:`tandem.runtimes.capabilities` that hold
    here and now; ``details`` are facts worth showing (``accelerator``, ``emulation_reason``, ...).
    """

    name: str
    version: str
    healthy: bool
    problem: str = ""
    hint: str = ""
    capabilities: frozenset[str] = frozenset()
    details: Mapping[str, str] = field(default_factory=dict)


class RuntimeAdapter(abc.ABC):
    """A runtime, behind the verbs that Tandem needs. See the module's docstring for the promises.

    Constructing an adapter does no I/O: it connects at the first call and reconnects when the
    runtime comes back. All methods may raise ``Unavailable`` (the runtime cannot be reached) and
    ``DeadlineExceeded`` (it did not answer in time). Use as an async context manager, or call
    :meth:`close`.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    async def fingerprint(self) -> Fingerprint:
        """Say what the runtime is, and whether it is healthy. Never raises for an absent runtime."""

    @abc.abstractmethod
    async def create(self, spec: RuntimeSpec) -> RuntimeStatus:
        """Make the workload exist and start it; all of it, or nothing.

        Raises ``InvalidSpec`` (``causes`` name the fields), ``Unsupported``, ``AlreadyExists`` (this
        id, another spec), ``ImagePullError``.
        """

    @abc.abstractmethod
    async def delete(self, id: str, *, grace_seconds: float | None = None) -> None:
        """Stop the workload and remove it with everything that ``create`` made.

        It is asked to end (stop signal, ACPI), given ``grace_seconds`` (None: the spec's own, else
        30 s as in Kubernetes; 0: none), then forced. An id that does not exist is success.
        """

    @abc.abstractmethod
    async def get_status(self, id: str) -> RuntimeStatus:
        """Read the status from the runtime itself. Raises ``NotFound``."""

    @abc.abstractmethod
    async def list(self, *, strangers: bool = False) -> Sequence[RuntimeStatus]:
        """Every workload of this owner; with ``strangers``, those that somebody else made instead."""

    @abc.abstractmethod
    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Changes to this owner's workloads as they happen, until closed.

        The first event is ``RESYNC``, and one follows after every reconnection. A consumer that
        lags is sent ``RESYNC`` in place of what it missed; it is never silently skipped over.
        """

    @abc.abstractmethod
    async def recover(self, handle: RuntimeHandle) -> RuntimeStatus:
        """Take up a workload again by a stored handle, after a restart. Raises ``NotFound``, and
        ``InvalidSpec`` for a handle of another adapter or of a version it does not know."""

    async def close(self) -> None:
        """Let go of connections and files. Workloads go on."""
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
