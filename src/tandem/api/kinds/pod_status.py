"""What ``kubectl get pods`` says of a Pod, read off its status as kubectl does."""

from __future__ import annotations

from collections.abc import Iterator

from tandem.api.kind import Doc
from tandem.api.kinds.resources import is_sidecar
from tandem.api.meta import get
from tandem.api.table import age


def ready_counts(doc: Doc) -> tuple[int, int]:
    """Containers that run and are ready, and all that go on running: sidecars count."""
    sidecars = _sidecars(doc)
    running = [*get(doc, "status.containerStatuses", [])]
    running += [
        entry for entry in get(doc, "status.initContainerStatuses", []) if entry["name"] in sidecars
    ]
    ready = sum(
        1 for entry in running if entry.get("ready") and "running" in entry.get("state", {})
    )
    return ready, len(get(doc, "spec.containers", [])) + len(sidecars)


def readiness_gates(doc: Doc) -> str:
    """``1/2``: how many of the Pod's gates are open; ``<none>`` for a Pod without any."""
    gates = get(doc, "spec.readinessGates", [])
    if not gates:
        return "<none>"
    true = {
        condition.get("type")
        for condition in get(doc, "status.conditions", [])
        if condition.get("status") == "True"
    }
    return f"{sum(1 for gate in gates if gate.get('conditionType') in true)}/{len(gates)}"


def restarts(doc: Doc) -> str:
    """``2``, or ``2 (5m ago)`` where the last end is known. While the Pod initializes, of the
    containers that do it; then of those that go on running."""
    sidecars = _sidecars(doc)
    statuses = get(doc, "status.initContainerStatuses", [])
    if _initializing(doc) is None or _is_true(doc.get("status") or {}, "Initialized"):
        statuses = [entry for entry in statuses if entry["name"] in sidecars]
        statuses += get(doc, "status.containerStatuses", [])
    count = sum(int(entry.get("restartCount", 0)) for entry in statuses)
    ends = [get(entry, "lastState.terminated.finishedAt") for entry in statuses]
    last = max((end for end in ends if end), default=None)
    return f"{count} ({age(last)} ago)" if count and last else str(count)


def display_status(doc: Doc) -> str:
    """The STATUS column: the phase, unless something more telling is known."""
    status = doc.get("status") or {}
    phase = str(status.get("phase") or "Unknown")
    told = str(status.get("reason") or phase)
    for condition in status.get("conditions") or ():
        if (
            condition.get("type") == "PodScheduled"
            and condition.get("reason") == "SchedulingGated"
            and condition.get("status") != "True"
        ):
            told = "SchedulingGated"
    initializing = _initializing(doc)
    if initializing is not None:
        told = initializing
    # An init container that begins anew while the others run shows those.
    if initializing is None or _is_true(status, "Initialized"):
        told = _of_containers(status, told)
    if get(doc, "metadata.deletionTimestamp") and phase not in ("Succeeded", "Failed"):
        return "Terminating"
    return told


def _of_containers(status: Doc, told: str) -> str:
    running = False
    for entry in reversed(status.get("containerStatuses") or []):
        state = entry.get("state") or {}
        if reason := (state.get("waiting") or {}).get("reason"):
            told = reason
        elif (ended := state.get("terminated")) is not None:
            told = ended.get("reason") or _code(ended)
        elif entry.get("ready") and state.get("running") is not None:
            running = True
    if told == "Completed" and running:
        return "Running" if _is_true(status, "Ready") else "NotReady"
    return told


def _initializing(doc: Doc) -> str | None:
    """How far the init containers are (``Init:1/2``, ``Init:Error``), None when they are done."""
    sidecars = _sidecars(doc)
    total = len(get(doc, "spec.initContainers", []))
    for index, entry in enumerate(get(doc, "status.initContainerStatuses", [])):
        state = entry.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if entry["name"] in sidecars and entry.get("started"):
            continue
        if ended is not None:
            return f"Init:{ended.get('reason') or _code(ended)}"
        reason = waiting.get("reason")
        if reason and reason != "PodInitializing":
            return f"Init:{reason}"
        return f"Init:{index}/{total}"
    return None


def _code(ended: Doc) -> str:
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _sidecars(doc: Doc) -> set[str]:
    return {c["name"] for c in _init_containers(doc) if is_sidecar(c)}


def _init_containers(doc: Doc) -> Iterator[Doc]:
    yield from get(doc, "spec.initContainers", [])


def _is_true(status: Doc, type_: str) -> bool:
    return any(
        condition.get("type") == type_ and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )
