"""What the owners of Pods want to know of one: whether it counts, and which of several goes first."""

from __future__ import annotations

import math
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import condition, get
from tandem.control import clock

RESOURCE = "pods"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def is_active(pod: Doc) -> bool:
    """Whether it runs or will, and nobody has deleted it."""
    return not is_over(pod) and not get(pod, "metadata.deletionTimestamp")


def is_over(pod: Doc) -> bool:
    """Whether it has come to its end, one or the other."""
    return get(pod, "status.phase") in ("Succeeded", "Failed")


def is_ready(pod: Doc) -> bool:
    """Whether its condition says so."""
    return (condition(pod, "Ready") or {}).get("status") == "True"


def unavailable_for(pod: Doc, min_ready: int) -> float | None:
    """Seconds until it will have been ready for ``min_ready``, 0 when it has been, None when it is not
    ready at all."""
    ready = condition(pod, "Ready") or {}
    if ready.get("status") != "True":
        return None
    if not min_ready or not ready.get("lastTransitionTime"):
        return 0.0
    return max(0.0, min_ready - clock.since(ready["lastTransitionTime"]))


def restarts(pod: Doc) -> int:
    """How often its containers have been started again."""
    return sum(
        int(entry.get("restartCount", 0))
        for field in ("initContainerStatuses", "containerStatuses")
        for entry in get(pod, f"status.{field}", [])
    )


def concerns(pod: Doc) -> tuple[Any, ...]:
    """What of a Pod its owner acts upon."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    annotations = metadata.get("annotations") or {}
    return (
        metadata.get("deletionTimestamp"),
        metadata.get("finalizers"),
        metadata.get("labels"),
        annotations.get(DELETION_COST),
        status.get("phase"),
        (condition(pod, "Ready") or {}).get("status"),
        restarts(pod),
    )


def rank(pod: Doc) -> tuple[Any, ...]:
    """By this the Pods to delete come first: what serves least, is cheapest, and is youngest."""
    metadata = pod["metadata"]
    ready = condition(pod, "Ready") or {}
    since = _age(ready.get("lastTransitionTime")) if ready.get("status") == "True" else 0.0
    return (
        bool(get(pod, "spec.nodeName")),
        _PHASES.get(get(pod, "status.phase", "Pending"), 2),
        is_ready(pod),
        _cost(pod),
        _magnitude(since),
        -restarts(pod),
        _age(metadata.get("creationTimestamp")),
        metadata.get("uid", ""),
    )


def _cost(pod: Doc) -> int:
    try:
        return int(get(pod, "metadata.annotations", {}).get(DELETION_COST, 0))
    except ValueError:
        return 0


def _age(timestamp: str | None) -> float:
    return clock.since(timestamp) if timestamp else 0.0


def _magnitude(seconds: float) -> int:
    """Pods of about the same age count as equally old, so that not always the youngest goes."""
    return int(math.log2(seconds)) if seconds >= 1 else 0
