"""The status of one container of a Pod, out of what the runtime says. Pure, in the kubelet's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.kinds.resources import is_sidecar
from tandem.control.pods.plan import ENDED, LOST_EXIT_CODE, Role, Verdict, Verdicts
from tandem.runtimes.adapter import ContainerStatus, Phase


class Waiting(NamedTuple):
    """Why a container does not run yet, or again."""

    reason: str
    message: str = ""


CREATING = Waiting("ContainerCreating")
INITIALIZING = Waiting("PodInitializing")


@dataclass(frozen=True, slots=True)
class View:
    """What the statuses are made of, beside the Pod itself.

    ``seen``: the containers in the runtime. ``hidden``: those that are just being started, which are
    not told of before that is done. ``waiting``: what keeps a container from running. ``over``: none
    of them will run any more. ``runtime``: its name, for container ids.
    """

    seen: Mapping[str, ContainerStatus] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    verdict: Verdicts = lambda _: Verdict()
    over: bool = False
    runtime: str = "containerd"


def container_status(container: Doc, role: Role, old: Doc, view: View, default: Waiting) -> Doc:
    """The container's next status; ``old`` is the present one, empty when there is none.

    ``default``: what it waits for as long as nothing else is known.
    """
    name = container["name"]
    seen = view.seen.get(name)
    if seen is not None and (name in view.hidden or seen.phase is Phase.PENDING):
        seen = None
    entry: Doc = {
        "name": name,
        "state": {},
        "lastState": old.get("lastState") or {},
        "ready": False,
        "restartCount": int(old.get("restartCount", 0)),
        "image": container["image"],
        "imageID": old.get("imageID", ""),
    }
    if old.get("containerID"):
        entry["containerID"] = old["containerID"]
    if role is not Role.EPHEMERAL:
        entry["started"] = False
    if seen is None:
        _absent(entry, old, view, default)
    else:
        _present(entry, seen, old, view)
        _judge(entry, seen, role, container, view)
    return entry


def _present(entry: Doc, seen: ContainerStatus, old: Doc, view: View) -> None:
    """``seen`` is what there is to tell of."""
    ended = (old.get("state") or {}).get("terminated")
    if ended and seen.attempt > entry["restartCount"]:
        entry["lastState"] = {"terminated": ended}
    entry["restartCount"] = max(entry["restartCount"], seen.attempt)
    entry["state"] = _state(seen, view.runtime)
    entry["image"] = seen.image or entry["image"]
    entry["imageID"] = seen.image_id
    if seen.container_id:
        entry["containerID"] = _full_id(seen.container_id, view.runtime)
    waiting = view.waiting.get(entry["name"])
    if waiting is not None and "terminated" in entry["state"]:
        entry["lastState"] = entry["state"]
        entry["state"] = _waiting(waiting)


def _absent(entry: Doc, old: Doc, view: View, default: Waiting) -> None:
    """Nothing runs, or nothing that is to be told of yet."""
    state: Doc = old.get("state") or {}
    name = entry["name"]
    waiting = view.waiting.get(name)
    if "running" in state and name in view.hidden:
        entry["state"] = state
        return
    if "running" in state:
        # It was there, and nobody saw it end.
        state = {"terminated": _lost(state["running"], entry.get("containerID", ""))}
        waiting = None if view.over else waiting or default
    if "terminated" in state and waiting is None:
        entry["state"] = state
        return
    if "terminated" in state:
        entry["lastState"] = state
    if waiting is None and "waiting" in state and state["waiting"].get("reason"):
        entry["state"] = state  # what was known last holds until something else is
        return
    entry["state"] = _waiting(waiting or default)


def _judge(entry: Doc, seen: ContainerStatus, role: Role, container: Doc, view: View) -> None:
    """Whether it is ready, and whether it has started."""
    if role is Role.EPHEMERAL:
        return
    if role is Role.INIT and not is_sidecar(container) and "terminated" in entry["state"]:
        entry["ready"] = seen.exit_code == 0
    if "running" not in entry["state"]:
        return
    verdict = view.verdict(seen)
    entry["started"] = verdict.started
    entry["ready"] = verdict.ready and (role is Role.MAIN or is_sidecar(container))


def _state(seen: ContainerStatus, runtime: str) -> Doc:
    if seen.phase not in ENDED:
        return {"running": {"startedAt": rfc3339(seen.started_at)}}
    code = LOST_EXIT_CODE if seen.exit_code is None else seen.exit_code
    ended: Doc = {
        "exitCode": code,
        "reason": seen.reason or ("Completed" if code == 0 else "Error"),
        "startedAt": rfc3339(seen.started_at),
        "finishedAt": rfc3339(seen.finished_at),
    }
    if seen.message:
        ended["message"] = seen.message
    if seen.container_id:
        ended["containerID"] = _full_id(seen.container_id, runtime)
    return {"terminated": ended}


def _lost(running: Doc, container_id: str) -> Doc:
    ended: Doc = {
        "exitCode": LOST_EXIT_CODE,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was deleted.  The container "
        "used to be Running",
        "startedAt": running.get("startedAt"),
        "finishedAt": None,
    }
    return {**ended, "containerID": container_id} if container_id else ended


def _waiting(why: Waiting) -> Doc:
    waiting = {"reason": why.reason}
    return {"waiting": {**waiting, "message": why.message} if why.message else waiting}


def _full_id(container_id: str, runtime: str) -> str:
    return container_id if "://" in container_id else f"{runtime}://{container_id}"


def rfc3339(time: datetime | None) -> str | None:
    """The time as objects have it, None when there is none."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else None
