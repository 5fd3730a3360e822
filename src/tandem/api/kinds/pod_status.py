"""What ``kubectl get pods`` says of a Pod, read off its status as kubectl does."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.table import age


def ready_counts(doc: Doc) -> tuple[int, int]:
    """Containers that run and are ready, and all that the spec has."""
    statuses = get(doc, "status.containerStatuses", [])
    ready = sum(
        1 for entry in statuses if entry.get("ready") and "running" in entry.get("state", {})
    )
    return ready, len(get(doc, "spec.containers", []))


def restarts(doc: Doc) -> str:
    """``2``, or ``2 (5m ago)`` where the last end is known."""
    statuses = get(doc, "status.containerStatuses", [])
    count = sum(int(entry.get("restartCount", 0)) for entry in statuses)
    ends = [get(entry, "lastState.terminated.finishedAt") for entry in statuses]
    last = max((end for end in ends if end), default=None)
    return f"{count} ({age(last)} ago)" if count and last else str(count)


def display_status(doc: Doc) -> str:
    """The STATUS column: the phase, unless something more telling is known."""
    status = doc.get("status") or {}
    phase = str(status.get("phase") or "Unknown")
    told = str(status.get("reason") or phase)
    running = False
    for entry in reversed(status.get("containerStatuses") or []):
        state = entry.get("state") or {}
        if reason := (state.get("waiting") or {}).get("reason"):
            told = reason
        elif (ended := state.get("terminated")) is not None:
            told = ended.get("reason") or (
                f"Signal:{ended['signal']}"
                if ended.get("signal")
                else f"ExitCode:{ended.get('exitCode', 0)}"
            )
        elif entry.get("ready") and state.get("running") is not None:
            running = True
    if told == "Completed" and running:
        told = "Running" if _is_ready(status) else "NotReady"
    if get(doc, "metadata.deletionTimestamp") and phase not in ("Succeeded", "Failed"):
        return "Terminating"
    return told


def _is_ready(status: Doc) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )
