"""What a VirtualMachine does next, and how it is: pure decisions in KubeVirt's vocabulary."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tandem.api.kind import Doc
from tandem.api.kinds.machine import run_strategy
from tandem.api.meta import condition, get, parse_time, set_condition
from tandem.control.instancestatus import STARTING, is_final, phase_of, was_running

TEMPLATE_ANNOTATION = "tandem.dev/template"
"""On an instance: a digest of the template it was made of, to tell when the machine has moved on."""

_FIRST_WAIT_SECONDS = 10
_LAST_WAIT_SECONDS = 300

_COPIED = (
    "Paused",
    "LiveMigratable",
    "SoftwareEmulation",
    "Synchronized",
    "PodScheduled",
    "AgentConnected",
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step. ``requests``: the state change requests that remain; ``wait``: seconds until a
    start that is put off may happen."""

    start: bool = False
    stop: bool = False
    requests: tuple[Doc, ...] = ()
    failure: Doc | None = None
    wait: float | None = None


def decide(vm: Doc, vmi: Doc | None) -> Decision:
    """What to do about ``vm``, whose instance is ``vmi``."""
    strategy = run_strategy(vm)
    requests = _open_requests(vm, vmi)
    failure = start_failure(vm, vmi)
    stop = start = False
    action = requests[0].get("action") if requests else None
    last = get(vm, "status.runStrategy")
    if vmi is not None and get(vmi, "metadata.deletionTimestamp"):
        return Decision(
            requests=requests, failure=failure
        )  # it is going; come back when it is gone
    final = vmi is not None and is_final(vmi)
    match strategy:
        case "Always":
            start, stop = vmi is None, final or action == "Stop"
        case "RerunOnFailure":
            if vmi is None:
                start = action == "Start" or last != strategy
            elif final:
                stop = True
                if phase_of(vmi) == "Failed" and action is None:
                    requests = ({"action": "Start"},)
            else:
                stop = action == "Stop"
        case "Manual":
            start = vmi is None and action == "Start"
            stop = vmi is not None and (action == "Stop" or (final and action == "Start"))
        case "Once":
            start, stop = vmi is None and last != strategy, action == "Stop"
        case _:
            stop, requests = vmi is not None, ()
    if vmi is None:
        stop = False
    wait = _wait(failure) if start and strategy in ("Always", "RerunOnFailure", "Once") else None
    return Decision(start and wait is None, stop, requests, failure, wait)


def start_failure(vm: Doc, vmi: Doc | None) -> Doc | None:
    """``status.startFailure``: instances that failed before they ever ran, counted."""
    failure: Doc | None = get(vm, "status.startFailure")
    if vmi is None:
        return failure
    if was_running(vmi):
        return None
    uid = vmi["metadata"]["uid"]
    if phase_of(vmi) != "Failed" or (failure or {}).get("lastFailedVMIUID") == uid:
        return failure
    count = int((failure or {}).get("consecutiveFailCount", 0)) + 1
    seconds = min(_FIRST_WAIT_SECONDS * count**2 * random.uniform(1.0, 1.5), _LAST_WAIT_SECONDS)
    retry = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": uid,
        "retryAfterTimestamp": retry.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def machine_status(
    vm: Doc, vmi: Doc | None, decision: Decision, error: tuple[str, str] | None
) -> Doc:
    """The machine's status after ``decision``; ``error`` is the reason and message of a failure."""
    status: Doc = dict(vm.get("status") or {})
    status["created"] = vmi is not None
    ready = (condition(vmi, "Ready") if vmi else None) or {}
    status["ready"] = ready.get("status") == "True"
    status["runStrategy"] = run_strategy(vm)
    generation = get(vm, "metadata.generation")
    status["observedGeneration"] = status["desiredGeneration"] = generation
    _set_or_drop(status, "stateChangeRequests", list(decision.requests))
    _set_or_drop(status, "startFailure", decision.failure)
    status["printableStatus"] = printable_status(vm, vmi, decision)
    status["conditions"] = _conditions(vm, vmi, ready, error)
    return status


def printable_status(vm: Doc, vmi: Doc | None, decision: Decision) -> str:
    """One word; the first that is true, in KubeVirt's order."""
    if get(vm, "metadata.deletionTimestamp"):
        return "Terminating"
    live = vmi is not None and not is_final(vmi)
    if vmi is not None and live:
        if decision.stop or get(vmi, "metadata.deletionTimestamp"):
            return "Stopping"
        if phase_of(vmi) == "Running":
            return "Paused" if condition(vmi, "Paused") else "Running"
        if (condition(vmi, "PodScheduled") or {}).get("reason") == "Unschedulable":
            return "ErrorUnschedulable"
        reason = (condition(vmi, "Synchronized") or {}).get("reason")
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            return str(reason)
    if decision.start or (vmi is not None and phase_of(vmi) in STARTING):
        return "Starting"
    if decision.failure and run_strategy(vm) in ("Always", "RerunOnFailure", "Once"):
        return "CrashLoopBackOff"
    return "Unknown" if live else "Stopped"


def template_digest(vm: Doc) -> str:
    """What tells one state of the template from another."""
    text = json.dumps(get(vm, "spec.template.spec", {}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _conditions(vm: Doc, vmi: Doc | None, ready: Doc, error: tuple[str, str] | None) -> list[Doc]:
    old = [dict(entry) for entry in get(vm, "status.conditions", [])]
    kept = [entry for entry in old if entry["type"] == "Ready"]
    if vmi is None:
        set_condition(kept, "Ready", "False", "VMINotExists", "VMI does not exist")
    else:
        reason, message = ready.get("reason", ""), ready.get("message", "")
        set_condition(kept, "Ready", ready.get("status", "False"), reason, message)
    if vmi is not None:
        kept += [copied for type_ in _COPIED if (copied := condition(vmi, type_))]
    if error is not None:
        kept += [entry for entry in old if entry["type"] == "Failure"]
        set_condition(kept, "Failure", "True", *error)
    if vmi is not None and not is_final(vmi):
        made_of = get(vmi, "metadata.annotations", {}).get(TEMPLATE_ANNOTATION)
        if made_of is not None and made_of != template_digest(vm):
            kept += [entry for entry in old if entry["type"] == "RestartRequired"]
            message = "a non-live-updatable field was changed in the template spec"
            set_condition(kept, "RestartRequired", "True", "", message)
    return kept


def _open_requests(vm: Doc, vmi: Doc | None) -> tuple[Doc, ...]:
    """The state change requests that are not done yet."""
    requests: list[Doc] = list(get(vm, "status.stateChangeRequests", []))
    while requests:
        first = requests[0]
        uid = vmi["metadata"]["uid"] if vmi else None
        stopped = first.get("action") == "Stop" and (
            vmi is None or (first.get("uid") and first["uid"] != uid)
        )
        started = (
            first.get("action") == "Start"
            and vmi is not None
            and not is_final(vmi)
            and not get(vmi, "metadata.deletionTimestamp")
        )
        if not stopped and not started:
            break
        requests.pop(0)
    return tuple(requests)


def _wait(failure: Doc | None) -> float | None:
    if not failure or not failure.get("retryAfterTimestamp"):
        return None
    left = (parse_time(failure["retryAfterTimestamp"]) - datetime.now(UTC)).total_seconds()
    return left if left > 0 else None


def _set_or_drop(status: Doc, field: str, value: Any) -> None:
    if value:
        status[field] = value
    else:
        status.pop(field, None)
