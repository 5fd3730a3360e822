"""What becomes of a Job when a Pod of it fails or succeeds, where that is more than a count; and how
long to wait after failures. Pure, but for the time of day."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.meta import condition, get, parse_time
from tandem.control import clock
from tandem.control.owners import jobindexes

FIRST_SECONDS = 10.0
LAST_SECONDS = 360.0
"""The wait after a failure: ten seconds, then twice as long each time, up to six minutes."""


class Verdict(NamedTuple):
    """What a failure policy says of a Pod. ``action`` is empty where no rule is about it;
    ``message`` is there when the whole Job fails; ``counts``: whether it is a failure at all."""

    action: str = ""
    message: str = ""
    counts: bool = True


def judge(job: Doc, pod: Doc) -> Verdict:
    """What the Job's ``podFailurePolicy`` says of a Pod that has failed: the first rule that fits."""
    metadata = pod["metadata"]
    for number, rule in enumerate(get(job, "spec.podFailurePolicy.rules", [])):
        action = str(rule.get("action"))
        where = f"pod {metadata['namespace']}/{metadata['name']}"
        if codes := rule.get("onExitCodes"):
            found = _ended_with(pod, codes)
            if found is None:
                continue
            name, code = found
            message = f"Container {name} for {where} failed with exit code {code}"
        else:
            type_ = _has_condition(pod, rule.get("onPodConditions") or ())
            if type_ is None:
                continue
            message = f"P{where[1:]} has condition {type_}"
        if action == "FailJob":
            return Verdict(action, f"{message} matching {action} rule at index {number}")
        return Verdict(action, counts=action != "Ignore")
    return Verdict()


def _ended_with(pod: Doc, codes: Doc) -> tuple[str, int] | None:
    """The container that ended with one of the codes, and the code."""
    for field in ("containerStatuses", "initContainerStatuses"):
        for entry in get(pod, f"status.{field}", []):
            code = get(entry, "state.terminated.exitCode")
            if not code or codes.get("containerName") not in (None, entry["name"]):
                continue
            if (code in codes["values"]) is (codes["operator"] == "In"):
                return entry["name"], code
    return None


def _has_condition(pod: Doc, patterns: Sequence[Doc]) -> str | None:
    for entry in get(pod, "status.conditions", []):
        for pattern in patterns:
            if (entry["type"], entry["status"]) == (pattern["type"], pattern["status"]):
                return str(entry["type"])
    return None


def success_rule(job: Doc, succeeded: Collection[int]) -> int | None:
    """The number of the first rule of the ``successPolicy`` that the indexes meet, None for none."""
    if not succeeded:
        return None
    for number, rule in enumerate(get(job, "spec.successPolicy.rules", [])):
        count, text = rule.get("succeededCount"), rule.get("succeededIndexes")
        if text is None:
            if count is not None and len(succeeded) >= count:
                return number
            continue
        required = jobindexes.parse(text, int(get(job, "spec.completions", 0)))
        met = required & set(succeeded)
        if required and (met == required or (count is not None and len(met) >= count)):
            return number
    return None


def finished_at(pod: Doc) -> str:
    """When a Pod came to its end, as well as can be told."""
    ends = [
        get(entry, "state.terminated.finishedAt", "")
        for entry in get(pod, "status.containerStatuses", [])
    ]
    if ends and all(ends):
        return str(max(ends))
    ready = condition(pod, "Ready") or {}
    if ready.get("status") == "False" and ready.get("lastTransitionTime"):
        return str(ready["lastTransitionTime"])
    metadata = pod["metadata"]
    if deleted := metadata.get("deletionTimestamp"):
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        return (parse_time(deleted) - grace).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(metadata["creationTimestamp"])


def back_off(failed: Sequence[Doc], succeeded: Sequence[Doc]) -> float:
    """Seconds until a Job may try again: by its failures since the last success."""
    last_success = max((finished_at(pod) for pod in succeeded), default="")
    since = [end for pod in failed if (end := finished_at(pod)) > last_success]
    return wait_after(len(since), max(since, default=""))


def wait_after(failures: int, last: str) -> float:
    """Seconds until the next try after so many failures, the last of them at ``last``."""
    if not failures:
        return 0.0
    delay = min(FIRST_SECONDS * 2.0 ** min(failures - 1, 20), LAST_SECONDS)
    return max(0.0, delay - clock.since(last))
