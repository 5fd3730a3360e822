"""A Deployment's status, out of its ReplicaSets'. Pure, but for the time of day."""

from __future__ import annotations

from collections.abc import Sequence

from tandem.api.kind import Doc
from tandem.api.meta import condition, get, now
from tandem.control import clock
from tandem.control.owners.rollout import actual, available, max_unavailable, wanted

AVAILABLE_REASON = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"

_NO_LIMIT = (1 << 31) - 1


def has_deadline(deployment: Doc) -> bool:
    """Whether a rollout that does not move is to be told of."""
    return bool(get(deployment, "spec.progressDeadlineSeconds", _NO_LIMIT) != _NO_LIMIT)


def set_condition(
    status: Doc, type_: str, value: str, reason: str, message: str, *, moved: bool = False
) -> None:
    """Put a condition in its place. Nothing changes while status and reason stay as they are, unless
    something has ``moved``, from when on the time counts anew."""
    conditions: list[Doc] = status.setdefault("conditions", [])
    old = next((entry for entry in conditions if entry["type"] == type_), None)
    if old and (old["status"], old["reason"]) == (value, reason) and not moved:
        return
    time = now()
    same = old is not None and old["status"] == value
    new = {
        "type": type_,
        "status": value,
        "reason": reason,
        "message": message,
        "lastUpdateTime": time,
        "lastTransitionTime": old["lastTransitionTime"] if old and same else time,
    }
    if old is None:
        conditions.append(new)
    else:
        conditions[conditions.index(old)] = new


def counted(deployment: Doc, new: Doc | None, sets: Sequence[Doc]) -> Doc:
    """The next status but for progress: counts, and whether enough Pods are available."""
    old: Doc = deployment.get("status") or {}
    total = actual(sets)
    ready = sum(int(get(doc, "status.readyReplicas", 0)) for doc in sets)
    usable = sum(available(doc) for doc in sets)
    counts = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": total,
        "updatedReplicas": actual([new] if new else []),
        "readyReplicas": ready,
        "availableReplicas": usable,
        "unavailableReplicas": max(0, sum(_size(doc) for doc in sets) - usable),
        "collisionCount": int(old.get("collisionCount", 0)),
    }
    status: Doc = {name: count for name, count in counts.items() if count}
    status["conditions"] = [dict(entry) for entry in old.get("conditions") or ()]
    if usable >= wanted(deployment) - max_unavailable(deployment):
        message = "Deployment has minimum availability."
        set_condition(status, "Available", "True", "MinimumReplicasAvailable", message)
    else:
        message = "Deployment does not have minimum availability."
        set_condition(status, "Available", "False", "MinimumReplicasUnavailable", message)
    return status


def _size(replica_set: Doc) -> int:
    return int(get(replica_set, "spec.replicas", 0))


def is_complete(deployment: Doc, status: Doc) -> bool:
    """Whether all Pods are of the newest ReplicaSet and available, and no others are left."""
    total = wanted(deployment)
    return all(
        status.get(field, 0) == total
        for field in ("updatedReplicas", "replicas", "availableReplicas")
    )


def progressed(deployment: Doc, new: Doc | None, sets: Sequence[Doc]) -> Doc:
    """The next status of a Deployment that rolls, or stands at the end of a rollout."""
    old: Doc = deployment.get("status") or {}
    status = counted(deployment, new, sets)
    before = condition(deployment, "Progressing") or {}
    finished = (
        status.get("replicas", 0) == status.get("updatedReplicas", 0)
        and before.get("reason") == AVAILABLE_REASON
    )
    if not has_deadline(deployment):
        status["conditions"] = [c for c in status["conditions"] if c["type"] != "Progressing"]
    elif not finished:
        what = (
            f'ReplicaSet "{new["metadata"]["name"]}"'
            if new
            else f'Deployment "{deployment["metadata"]["name"]}"'
        )
        if new and not before:
            set_condition(
                status,
                "Progressing",
                "True",
                "FoundNewReplicaSet",
                f'Found new replica set "{new["metadata"]["name"]}"',
            )
        if is_complete(deployment, status):
            message = f"{what} has successfully progressed."
            set_condition(status, "Progressing", "True", AVAILABLE_REASON, message)
        elif _is_moving(old, status):
            message = f"{what} is progressing."
            set_condition(status, "Progressing", "True", "ReplicaSetUpdated", message, moved=True)
        elif timeout_left(deployment) == 0:
            message = f"{what} has timed out progressing."
            set_condition(status, "Progressing", "False", TIMED_OUT, message)
    _tell_failures(status, new, sets)
    return status


def _is_moving(old: Doc, new: Doc) -> bool:
    def grew(field: str) -> bool:
        return bool(new.get(field, 0) > old.get(field, 0))

    def left(status: Doc) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    return (
        grew("updatedReplicas")
        or grew("readyReplicas")
        or grew("availableReplicas")
        or left(new) < left(old)
    )


def timeout_left(deployment: Doc) -> float | None:
    """Seconds until a rollout that does not move has timed out; None when it cannot, or has."""
    progressing = condition(deployment, "Progressing") or {}
    if not has_deadline(deployment) or progressing.get("reason") in (
        None,
        AVAILABLE_REASON,
        TIMED_OUT,
    ):
        return None
    limit = float(deployment["spec"]["progressDeadlineSeconds"])
    return max(0.0, limit - clock.since(progressing["lastUpdateTime"]))


def _tell_failures(status: Doc, new: Doc | None, sets: Sequence[Doc]) -> None:
    """What the newest ReplicaSet, or else any, cannot do."""
    for replica_set in [*([new] if new else []), *sets]:
        if failure := condition(replica_set, "ReplicaFailure"):
            set_condition(
                status, "ReplicaFailure", "True", failure["reason"], failure.get("message", "")
            )
            return
    status["conditions"] = [c for c in status["conditions"] if c["type"] != "ReplicaFailure"]
