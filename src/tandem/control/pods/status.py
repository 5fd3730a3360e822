"""A Pod's status out of what the runtime says: pure, in the kubelet's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tandem.api.kind import Doc
from tandem.api.kinds.resources import is_sidecar, qos_class
from tandem.api.meta import get, set_condition
from tandem.control.context import Node
from tandem.control.pods.containerstatus import (
    CREATING,
    INITIALIZING,
    View,
    Waiting,
    container_status,
    rfc3339,
)
from tandem.control.pods.plan import Role, Verdict, Verdicts, has_sandbox
from tandem.control.pods.spec import addresses_of
from tandem.runtimes.adapter import RuntimeStatus

FINAL = ("Succeeded", "Failed")
"""Phases in which nothing of a Pod will ever run again."""

STATUS_FIELDS = {
    Role.INIT: "initContainerStatuses",
    Role.MAIN: "containerStatuses",
    Role.EPHEMERAL: "ephemeralContainerStatuses",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a Pod has ended as a whole. ``phase``: empty where its containers tell. ``rejected``: before
    any of them came to be."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    disrupted: bool = False
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the status is made of, beside the Pod itself.

    ``hidden``: containers that are just being started, which are not told of before that is done.
    ``waiting``: what keeps a container from running. ``outcome``: of a Pod that has ended.
    ``runtime``: the runtime's name, for container ids.
    """

    node: Node
    observed: RuntimeStatus | None = None
    hidden: frozenset[str] = frozenset()
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    verdict: Verdicts = lambda _: Verdict()
    outcome: Outcome | None = None
    runtime: str = "containerd"


def pod_status(pod: Doc, facts: Facts) -> Doc:
    """The Pod's next status; equal to the present one when nothing has changed."""
    old: Doc = pod.get("status") or {}
    status: Doc = {**old}
    status["hostIP"] = facts.node.address
    status["hostIPs"] = [{"ip": facts.node.address}]
    status.setdefault("startTime", rfc3339(datetime.now(UTC)))
    status["qosClass"] = old.get("qosClass") or qos_class(pod["spec"])
    if generation := get(pod, "metadata.generation"):
        status["observedGeneration"] = generation
    if addresses := addresses_of(pod, facts.observed, facts.node):
        status["podIP"] = addresses[0]
        status["podIPs"] = [{"ip": address} for address in addresses]
    _settle_containers(pod, old, status, facts)
    _settle_phase(pod, status, facts)
    _settle_conditions(pod, status, facts)
    if facts.outcome is not None and facts.outcome.rejected:
        for name in STATUS_FIELDS.values():
            status.pop(name, None)
    return status


def unscheduled(pod: Doc, reason: str, message: str) -> Doc:
    """The status of a Pod that has no place on the node, or must not have one yet."""
    status: Doc = {**(pod.get("status") or {}), "phase": "Pending"}
    status.setdefault("qosClass", qos_class(pod["spec"]))
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    set_condition(conditions, "PodScheduled", "False", reason, message)
    return {**status, "conditions": conditions}


def out_of_reach(pod: Doc, why: str) -> Doc:
    """The status of a Pod whose runtime does not answer: all as it was, and nobody knows."""
    status: Doc = dict(pod.get("status") or {})
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    for type_ in ("Ready", "ContainersReady"):
        set_condition(conditions, type_, "Unknown", "RuntimeUnavailable", why)
    return {**status, "conditions": conditions}


def container_entries(pod: Doc, role: Role) -> list[Doc]:
    """The statuses of the containers that stand in one place of the spec."""
    entries: list[Doc] = get(pod, f"status.{STATUS_FIELDS[role]}", [])
    return entries


# -- containers ----------------------------------------------------------------------------------


def _settle_containers(pod: Doc, old: Doc, status: Doc, facts: Facts) -> None:
    view = View(
        seen={c.name: c for c in facts.observed.containers} if facts.observed else {},
        hidden=facts.hidden,
        waiting=facts.waiting,
        verdict=facts.verdict,
        over=facts.outcome is not None,
        runtime=facts.runtime,
    )
    spec = pod["spec"]
    default = INITIALIZING if spec.get("initContainers") else CREATING
    for role, name in STATUS_FIELDS.items():
        containers = spec.get(role.value)
        if not containers:
            continue
        before = {entry["name"]: entry for entry in old.get(name) or ()}
        entries = [
            container_status(container, role, before.get(container["name"]) or {}, view, default)
            for container in containers
        ]
        if role is not Role.INIT:
            entries.sort(key=lambda entry: str(entry["name"]))  # as the kubelet's are
        status[name] = entries


# -- phase ---------------------------------------------------------------------------------------


def _settle_phase(pod: Doc, status: Doc, facts: Facts) -> None:
    outcome = facts.outcome
    if outcome is None:
        status["phase"] = _phase(pod, status)
        return
    status["phase"] = outcome.phase or _final_phase(status)
    for name, text in (("reason", outcome.reason), ("message", outcome.message)):
        if text:
            status[name] = text


def _final_phase(status: Doc) -> str:
    """Succeeded when all containers, of which no more will come, ended well."""
    ends = [entry["state"].get("terminated") for entry in status["containerStatuses"]]
    return "Succeeded" if all(end and end["exitCode"] == 0 for end in ends) else "Failed"


def _phase(pod: Doc, status: Doc) -> str:
    """Pending until all containers have begun; then it runs, until it is said to have ended."""
    main = [(entry["state"], entry["lastState"]) for entry in status["containerStatuses"]]
    initialization = _initialization(pod, status)
    begun = any(_has_run(state, last) for state, last in main)
    # One that waits after it has ended once is about to be started again.
    waiting = any("waiting" in state and not last for state, last in main)
    if initialization == "pending" or (initialization and not begun) or waiting:
        return "Pending"
    return "Running"


def _initialization(pod: Doc, status: Doc) -> str | None:
    """Where the init containers are: ``failed``, ``pending``, or ``starting`` when only sidecars are
    waited for; None when all have done their part."""
    found = None
    entries = {entry["name"]: entry for entry in status.get("initContainerStatuses") or ()}
    for container in pod["spec"].get("initContainers") or ():
        entry = entries[container["name"]]
        if is_sidecar(container):
            found = found or (None if entry["started"] else "starting")
            continue
        ended = entry["state"].get("terminated")
        if ended and ended["exitCode"] != 0:
            return "failed"
        if not ended:
            found = "pending"
    return found


def _sidecars(pod: Doc, status: Doc) -> list[Doc]:
    names = {c["name"] for c in pod["spec"].get("initContainers") or () if is_sidecar(c)}
    return [entry for entry in status.get("initContainerStatuses") or () if entry["name"] in names]


def _has_run(state: Doc, last: Doc) -> bool:
    return "running" in state or "terminated" in state or bool(last)


# -- conditions ----------------------------------------------------------------------------------


def _settle_conditions(pod: Doc, status: Doc, facts: Facts) -> None:
    # Those of other types (readiness gates') are somebody else's, and stay.
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    final = status["phase"] in FINAL
    sandbox = has_sandbox(facts.observed) and not final
    set_condition(conditions, "PodReadyToStartContainers", "True" if sandbox else "False")
    set_condition(conditions, "Initialized", *_initialized(pod, status))
    ready = _containers_ready(pod, status)
    set_condition(conditions, "Ready", *_gates(pod, conditions, ready))
    set_condition(conditions, "ContainersReady", *ready)
    set_condition(conditions, "PodScheduled", "True")
    if facts.outcome is not None and facts.outcome.disrupted:
        message = facts.outcome.message
        set_condition(conditions, "DisruptionTarget", "True", "TerminationByKubelet", message)
    status["conditions"] = conditions


def _initialized(pod: Doc, status: Doc) -> tuple[str, str, str]:
    containers = pod["spec"].get("initContainers") or ()
    entries = {entry["name"]: entry for entry in status.get("initContainerStatuses") or ()}
    incomplete = [
        container["name"]
        for container in containers
        if not entries[container["name"]]["started" if is_sidecar(container) else "ready"]
    ]
    if status["phase"] == "Succeeded":
        return "True", "PodCompleted", ""
    started = any(_has_run(e["state"], e["lastState"]) for e in status["containerStatuses"])
    if not incomplete or started:
        return "True", "", ""
    message = f"containers with incomplete status: [{' '.join(incomplete)}]"
    return "False", "ContainersNotInitialized", message


def _containers_ready(pod: Doc, status: Doc) -> tuple[str, str, str]:
    if status["phase"] in FINAL:
        return "False", "PodCompleted" if status["phase"] == "Succeeded" else "PodFailed", ""
    entries = {entry["name"]: entry for entry in status["containerStatuses"]}
    ordered = [*_sidecars(pod, status), *(entries[c["name"]] for c in pod["spec"]["containers"])]
    unready = [entry["name"] for entry in ordered if not entry["ready"]]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return "False", "ContainersNotReady", message
    return "True", "", ""


def _gates(
    pod: Doc, conditions: list[Doc], containers_ready: tuple[str, str, str]
) -> tuple[str, str, str]:
    """Whether the Pod is ready: as its containers, and as its readiness gates say."""
    gates = pod["spec"].get("readinessGates")
    if containers_ready[0] != "True" or not gates:
        return containers_ready
    given = {entry["type"]: entry.get("status") for entry in conditions}
    problems = []
    for gate in gates:
        type_ = gate["conditionType"]
        if type_ not in given:
            problems.append(
                f'corresponding condition of pod readiness gate "{type_}" does not exist.'
            )
        elif given[type_] != "True":
            problems.append(
                f'the status of pod readiness gate "{type_}" is not "True", but {given[type_]}'
            )
    if problems:
        return "False", "ReadinessGatesNotReady", ", ".join(problems)
    return containers_ready
