"""From what CRI says of a sandbox and its containers to a ``RuntimeStatus``. Pure.

The phase of a Pod, in this order:

- a container that was asked for and is not there, or was not started yet: ``Pending``
- a container runs: ``Running``
- all have ended: ``Succeeded`` when each with 0, else ``Failed``
- the sandbox itself is gone (its first process died, or the host was restarted): containers that have
  ended well still make ``Succeeded``; everything else is ``Failed``, because nothing that runs
  without its sandbox has a network any more
- a state that CRI itself does not know: ``Unknown``

A Pod whose sandbox was made for containers to come is ``Running`` as long as it has the sandbox,
whatever its containers do, and ``Failed`` without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tandem.runtimes.adapter import (
    LABEL_ID,
    ContainerStatus,
    Phase,
    RuntimeHandle,
    RuntimeStatus,
)
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.container import ANNOTATION_IMAGE
from tandem.runtimes.cri.translate import PodRecord

ADAPTER_NAME = "container"
HANDLE_VERSION = 1

REASON_SANDBOX_LOST = "SandboxLost"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an event said of a container, a moment before CRI's own status says it too.

    ``exit_code`` None: it was started. ``at``: when, in nanoseconds since 1970.
    """

    at: int
    exit_code: int | None = None
    oom: bool = False


def newest(containers: Iterable[cri.Container]) -> list[cri.Container]:
    """The last attempt of each container of a Pod."""
    found: dict[str, cri.Container] = {}
    for container in containers:
        name = container.metadata.name
        if name not in found or attempt_order(container) > attempt_order(found[name]):
            found[name] = container
    return list(found.values())


def attempt_order(container: cri.Container) -> tuple[int, int]:
    """By which the attempts of one container are in order."""
    return container.metadata.attempt, container.created_at


def pod_status(
    sandbox: cri.PodSandboxStatus,
    containers: Sequence[cri.ContainerStatus],
    sightings: Mapping[str, Sighting],
) -> RuntimeStatus:
    """The status of the Pod in ``sandbox``; ``containers`` are the newest attempts only."""
    record = PodRecord.from_annotations(sandbox.annotations)
    order = {name: index for index, name in enumerate(record.containers)}
    statuses = sorted(
        (container_status(item, sightings.get(item.id)) for item in containers),
        key=lambda item: (order.get(item.name, len(order)), item.created_at or _EPOCH),
    )
    missing = [name for name in record.containers if name not in {s.name for s in statuses}]
    ready = sandbox.state == cri.SANDBOX_READY
    if record.sandbox_only:
        phase = Phase.RUNNING if ready else Phase.FAILED
    else:
        phase = _phase(statuses, missing=bool(missing), ready=ready)
    ended = phase in (Phase.SUCCEEDED, Phase.FAILED)
    guilty = _guilty(statuses) if ended and not record.sandbox_only else None
    lost = phase is Phase.FAILED and guilty is None
    spec_id = sandbox.labels.get(LABEL_ID, "")
    return RuntimeStatus(
        phase=phase,
        id=spec_id or sandbox.id,
        spec_id=spec_id,
        handle=RuntimeHandle(ADAPTER_NAME, HANDLE_VERSION, {"id": spec_id, "sandbox": sandbox.id}),
        exit_code=guilty.exit_code if guilty else None,
        reason=guilty.reason if guilty else REASON_SANDBOX_LOST if lost else "",
        message=guilty.message if guilty else "the Pod's sandbox is gone" if lost else "",
        created_at=moment(sandbox.created_at),
        started_at=min((s.started_at for s in statuses if s.started_at), default=None),
        finished_at=max((s.finished_at for s in statuses if s.finished_at), default=None)
        if ended
        else None,
        addresses=_addresses(sandbox) if ready else (),
        containers=tuple(statuses),
        labels=dict(sandbox.labels),
        details={"sandbox": sandbox.id},
    )


def container_status(
    status: cri.ContainerStatus, sighting: Sighting | None = None
) -> ContainerStatus:
    """One container, where a ``sighting`` counts as long as CRI has not caught up with it."""
    if sighting is not None:
        status = _caught_up(status, sighting)
    ended = status.state == cri.CONTAINER_EXITED
    phase = {
        cri.CONTAINER_CREATED: Phase.PENDING,
        cri.CONTAINER_RUNNING: Phase.RUNNING,
        cri.CONTAINER_EXITED: Phase.SUCCEEDED if status.exit_code == 0 else Phase.FAILED,
    }.get(status.state, Phase.UNKNOWN)
    return ContainerStatus(
        name=status.metadata.name,
        phase=phase,
        container_id=status.id,
        image=status.annotations.get(ANNOTATION_IMAGE)
        or status.image.user_specified_image
        or status.image.image,
        image_id=status.image_ref,
        attempt=status.metadata.attempt,
        exit_code=status.exit_code if ended else None,
        reason=_reason(status) if ended else status.reason,
        message=status.message,
        created_at=moment(status.created_at),
        started_at=moment(status.started_at),
        finished_at=moment(status.finished_at) if ended else None,
    )


def moment(nanoseconds: int) -> datetime | None:
    """CRI's time, which is 0 where there is none."""
    # Integer arithmetic: a float of nanoseconds is some hundred microseconds off.
    if nanoseconds <= 0:
        return None
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


_EPOCH = datetime.fromtimestamp(0, UTC)


def _caught_up(status: cri.ContainerStatus, sighting: Sighting) -> cri.ContainerStatus:
    result = cri.ContainerStatus()
    result.CopyFrom(status)
    if sighting.exit_code is None:
        if status.state == cri.CONTAINER_CREATED:
            result.state = cri.CONTAINER_RUNNING
            result.started_at = sighting.at
    elif status.state in (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING):
        result.state = cri.CONTAINER_EXITED
        result.started_at = status.started_at or sighting.at
        result.finished_at = sighting.at
        result.exit_code = sighting.exit_code
        result.reason = "OOMKilled" if sighting.oom else ""
    elif sighting.oom and status.exit_code and status.reason in ("", "Error"):
        result.reason = "OOMKilled"  # the runtime heard of it too late
    return result


def _phase(statuses: Sequence[ContainerStatus], *, missing: bool, ready: bool) -> Phase:
    phases = {status.phase for status in statuses}
    if Phase.UNKNOWN in phases:
        return Phase.UNKNOWN
    complete = bool(statuses) and not missing
    if complete and phases == {Phase.SUCCEEDED}:
        return Phase.SUCCEEDED
    if not ready:
        return Phase.FAILED
    if not complete or Phase.PENDING in phases:
        return Phase.PENDING
    return Phase.RUNNING if Phase.RUNNING in phases else Phase.FAILED


def _guilty(statuses: Sequence[ContainerStatus]) -> ContainerStatus | None:
    """The container whose end tells the Pod's: the first to have failed, else the last to end."""
    ended = [status for status in statuses if status.exit_code is not None]
    ended.sort(key=lambda status: status.finished_at or _EPOCH)
    failed = [status for status in ended if status.exit_code]
    if len(ended) < len(statuses):
        return failed[0] if failed else None
    return failed[0] if failed else ended[-1] if ended else None


def _reason(status: cri.ContainerStatus) -> str:
    return status.reason or ("Completed" if status.exit_code == 0 else "Error")


def _addresses(sandbox: cri.PodSandboxStatus) -> tuple[str, ...]:
    network = sandbox.network
    return tuple(ip for ip in (network.ip, *(item.ip for item in network.additional_ips)) if ip)


def stranger_status(status: RuntimeStatus, sandbox_id: str) -> RuntimeStatus:
    """The status of a Pod that is not this owner's: shown by the runtime's own name for it."""
    return replace(status, id=sandbox_id, spec_id="", handle=None)
