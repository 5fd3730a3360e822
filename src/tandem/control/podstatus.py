"""A Pod's status out of what the runtime says: pure, in the kubelet's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get, set_condition
from tandem.control.context import Node
from tandem.runtimes.adapter import ContainerStatus, Phase, RuntimeStatus

ENDED = (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED)

CREATING = ("ContainerCreating", "")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the status is made of, beside the Pod itself.

    ``waiting``: reason and message of containers that something keeps from running.
    ``restarts``: how often a container had been started before the workload that runs it now.
    ``outcome``: phase, reason and message when the Pod has been ended as a whole.
    ``runtime``: the runtime's name, for container ids.
    """

    node: Node
    observed: RuntimeStatus | None = None
    waiting: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    outcome: tuple[str, str, str] | None = None
    runtime: str = "containerd"


def pod_status(pod: Doc, facts: Facts) -> Doc:
    """The Pod's next status; equal to the present one when nothing has changed."""
    old: Doc = pod.get("status") or {}
    status: Doc = {**old}
    status["hostIP"] = facts.node.address
    status["hostIPs"] = [{"ip": facts.node.address}]
    status.setdefault("startTime", rfc3339(datetime.now(UTC)))
    status["qosClass"] = qos_class(pod)
    if generation := get(pod, "metadata.generation"):
        status["observedGeneration"] = generation
    if facts.observed is not None and facts.observed.addresses:
        status["podIP"] = facts.observed.addresses[0]
        status["podIPs"] = [{"ip": address} for address in facts.observed.addresses]
    status["containerStatuses"] = _container_statuses(pod, old, facts)
    _settle_phase(pod, status, facts)
    _settle_conditions(status, facts)
    return status


def unschedulable(pod: Doc, message: str) -> Doc:
    """The status of a Pod that the node has no room for."""
    status: Doc = {**(pod.get("status") or {}), "phase": "Pending", "qosClass": qos_class(pod)}
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    set_condition(conditions, "PodScheduled", "False", "Unschedulable", message)
    return {**status, "conditions": conditions}


def out_of_reach(pod: Doc, why: str) -> Doc:
    """The status of a Pod whose runtime does not answer: all as it was, and nobody knows."""
    status: Doc = dict(pod.get("status") or {})
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    for type_ in ("Ready", "ContainersReady"):
        set_condition(conditions, type_, "Unknown", "RuntimeUnavailable", why)
    return {**status, "conditions": conditions}


def rfc3339(time: datetime | None) -> str | None:
    """The time as objects have it, None when there is none."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else None


def qos_class(pod: Doc) -> str:
    """Guaranteed, Burstable or BestEffort, by the containers' requests and limits."""
    asks_anything = False
    guaranteed = True
    for container in get(pod, "spec.containers", []):
        requests = get(container, "resources.requests", {})
        limits = get(container, "resources.limits", {})
        asks_anything = asks_anything or bool(requests or limits)
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not asks_anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _container_statuses(pod: Doc, old: Doc, facts: Facts) -> list[Doc]:
    before = {entry["name"]: entry for entry in old.get("containerStatuses") or ()}
    seen = {c.name: c for c in facts.observed.containers} if facts.observed else {}
    return [
        _container_status(
            container, before.get(container["name"]), seen.get(container["name"]), facts
        )
        for container in get(pod, "spec.containers", [])
    ]


def _container_status(
    container: Doc, old: Doc | None, seen: ContainerStatus | None, facts: Facts
) -> Doc:
    name = container["name"]
    old = old or {}
    waiting = facts.waiting.get(name)
    count = int(old.get("restartCount", 0))
    last: Doc = old.get("lastState") or {}
    if seen is not None and seen.phase is not Phase.PENDING:
        now_count = facts.restarts.get(name, 0) + seen.attempt
        if now_count > count and (ended := get(old, "state.terminated")):
            last = {"terminated": ended}
        count = max(count, now_count)
        state = _state(seen, facts.runtime)
        if waiting is not None and "terminated" in state:
            last = state
            state = _waiting(waiting)
    elif facts.outcome is not None and facts.observed is None:
        state = _lost(old)
    else:
        if ended := get(old, "state.terminated"):
            last = {"terminated": ended}
        state = _waiting(waiting or CREATING)
    running = "running" in state
    return {
        "name": name,
        "state": state,
        "lastState": last,
        "ready": running,
        "started": running,
        "restartCount": count,
        "image": (seen.image if seen and seen.image else "") or container["image"],
        "imageID": (seen.image_id if seen else "") or old.get("imageID", ""),
        **_container_id(seen, old, facts.runtime),
    }


def _container_id(seen: ContainerStatus | None, old: Doc, runtime: str) -> dict[str, str]:
    if seen is not None and seen.container_id:
        return {"containerID": _full_id(seen.container_id, runtime)}
    return {"containerID": old["containerID"]} if old.get("containerID") else {}


def _full_id(container_id: str, runtime: str) -> str:
    return container_id if "://" in container_id else f"{runtime}://{container_id}"


def _state(seen: ContainerStatus, runtime: str) -> Doc:
    if seen.phase in ENDED:
        code = seen.exit_code if seen.exit_code is not None else 0
        ended: dict[str, Any] = {
            "exitCode": code,
            "reason": seen.reason or ("Completed" if code == 0 else "Error"),
            "startedAt": rfc3339(seen.started_at),
            "finishedAt": rfc3339(seen.finished_at),
            "containerID": _full_id(seen.container_id, runtime),
        }
        if seen.message:
            ended["message"] = seen.message
        return {"terminated": ended}
    return {"running": {"startedAt": rfc3339(seen.started_at)}}


def _waiting(why: tuple[str, str]) -> Doc:
    reason, message = why
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def _lost(old: Doc) -> Doc:
    """The end of a container that nobody can ask any more."""
    if get(old, "state.terminated"):
        return dict(old["state"])
    return {
        "terminated": {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": get(old, "state.running.startedAt"),
            "finishedAt": rfc3339(datetime.now(UTC)),
        }
    }


def _settle_phase(pod: Doc, status: Doc, facts: Facts) -> None:
    if facts.outcome is not None:
        phase, reason, message = facts.outcome
        status["phase"] = phase
        if reason:
            status["reason"] = reason
        if message:
            status["message"] = message
        return
    status["phase"] = _phase(status["containerStatuses"], get(pod, "spec.restartPolicy", "Always"))


def _phase(statuses: list[Doc], policy: str) -> str:
    states = [entry["state"] for entry in statuses]
    # One that waits after it has ended once has been started, and is about to be started again.
    never = sum(1 for entry in statuses if "waiting" in entry["state"] and not entry["lastState"])
    again = sum(1 for entry in statuses if "waiting" in entry["state"] and entry["lastState"])
    running = sum(1 for state in states if "running" in state)
    codes = [state["terminated"]["exitCode"] for state in states if "terminated" in state]
    if never:
        return "Pending"
    if running or again or policy == "Always":
        return "Running"
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _settle_conditions(status: Doc, facts: Facts) -> None:
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    has_sandbox = facts.observed is not None and status["phase"] not in ("Succeeded", "Failed")
    set_condition(conditions, "PodReadyToStartContainers", "True" if has_sandbox else "False")
    set_condition(conditions, "Initialized", "True")
    unready = [entry["name"] for entry in status["containerStatuses"] if not entry["ready"]]
    verdict, reason, message = "True", "", ""
    if status["phase"] in ("Succeeded", "Failed"):
        verdict = "False"
        reason = "PodCompleted" if status["phase"] == "Succeeded" else "PodFailed"
    elif unready:
        verdict, reason = "False", "ContainersNotReady"
        message = f"containers with unready status: [{' '.join(unready)}]"
    for type_ in ("Ready", "ContainersReady"):
        set_condition(conditions, type_, verdict, reason, message)
    set_condition(conditions, "PodScheduled", "True")
    status["conditions"] = conditions
