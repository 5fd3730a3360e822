"""``batch/v1`` Job: Pods until enough of them have succeeded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds.job_rules import job_spec_causes
from tandem.api.kinds.pod_template import (
    default_template,
    selector_causes,
    template_warnings,
    wide_columns,
)
from tandem.api.meta import condition, get, parse_time
from tandem.api.table import human_duration
from tandem.errors import Cause

JOB_NAME = "batch.kubernetes.io/job-name"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
_LEGACY_JOB_NAME = "job-name"
_LEGACY_CONTROLLER_UID = "controller-uid"

_FROZEN = (
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)
# Where a suspended Job's Pods may run can still be changed before the first of them.
_PLACEMENT = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def default_job_spec(spec: Any) -> None:
    """Fill in what Kubernetes fills in, also where a Job is only described. Idempotent."""
    if not isinstance(spec, dict):
        return
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    unlimited = (1 << 31) - 1  # each index has a limit of its own
    spec.setdefault(
        "backoffLimit", unlimited if spec.get("backoffLimitPerIndex") is not None else 6
    )
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    policy = spec.get("podFailurePolicy")
    spec.setdefault("podReplacementPolicy", "Failed" if policy else "TerminatingOrFailed")
    for rule in get(spec, "podFailurePolicy.rules", []):
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    default_template(spec.get("template"))


def _default(doc: Doc) -> None:
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return
    default_job_spec(spec)
    if isinstance(spec.get("template"), dict) and not spec.get("manualSelector"):
        _default_selector(doc["metadata"], spec)
    doc["metadata"].setdefault("labels", dict(get(spec, "template.metadata.labels", {})))
    if not doc["metadata"]["labels"]:
        del doc["metadata"]["labels"]


def _default_selector(metadata: Doc, spec: Doc) -> None:
    labels = spec["template"]["metadata"].setdefault("labels", {})
    for key in (JOB_NAME, _LEGACY_JOB_NAME):
        labels.setdefault(key, metadata.get("name", ""))
    for key in (CONTROLLER_UID, _LEGACY_CONTROLLER_UID):
        labels.setdefault(key, metadata.get("uid", ""))
    wanted = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    wanted.setdefault(CONTROLLER_UID, metadata.get("uid", ""))


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    before = (old or {}).get("spec") or {}
    if spec == before:
        return []
    found = job_spec_causes(
        spec, "spec", check_template=spec.get("template") != before.get("template")
    )
    labels = get(spec, "template.metadata.labels", {})
    found += selector_causes(spec.get("selector"), labels, "spec.selector")
    if old is None:
        return found + _generated_causes(new["metadata"], spec, labels)
    return found + _transition_causes(spec, before, old)


def _generated_causes(metadata: Doc, spec: Doc, labels: Doc) -> list[Cause]:
    """Whether a selector that was to be made for the user was left alone by the user."""
    if spec.get("manualSelector"):
        return []
    expected = {
        _LEGACY_CONTROLLER_UID: metadata["uid"],
        _LEGACY_JOB_NAME: metadata["name"],
        CONTROLLER_UID: metadata["uid"],
        JOB_NAME: metadata["name"],
    }
    path = "spec.template.metadata.labels"
    found = [
        causes.invalid(path, labels, f"must be '{value}'")
        for key, value in expected.items()
        if labels.get(key) != value
    ]
    if get(spec, "selector.matchLabels") != {CONTROLLER_UID: metadata["uid"]} or get(
        spec, "selector.matchExpressions"
    ):
        message = "`selector` not auto-generated"
        found.append(causes.invalid("spec.selector", spec["selector"], message))
    return found


def _transition_causes(spec: Doc, before: Doc, old: Doc) -> list[Cause]:
    found = [
        causes.immutable(f"spec.{field}", spec.get(field))
        for field in _FROZEN
        if spec.get(field) != before.get(field)
    ]
    template, former = spec.get("template") or {}, before["template"]
    if before.get("suspend") and not get(old, "status.startTime"):
        template, former = _fixed_part(template), _fixed_part(former)
    if template != former:
        found.append(causes.immutable("spec.template", spec.get("template")))
    if spec.get("completions") != before.get("completions"):
        elastic = spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
        if not elastic or before.get("completions") != before.get("parallelism"):
            if spec["completionMode"] == "Indexed":
                message = "can only be modified in tandem with spec.parallelism"
                found.append(causes.invalid("spec.completions", spec.get("completions"), message))
            else:
                found.append(causes.immutable("spec.completions", spec.get("completions")))
    return found


def _fixed_part(template: Doc) -> Doc:
    spec = {
        name: value
        for name, value in (template.get("spec") or {}).items()
        if name not in _PLACEMENT
    }
    return {"spec": spec}


def _warn(new: Doc, old: Doc | None) -> list[str]:
    return template_warnings(get(new, "spec.template")) if old is None else []


def job_phase(doc: Doc) -> str:
    """What ``kubectl get jobs`` calls its status."""

    def holds(type_: str) -> bool:
        return (condition(doc, type_) or {}).get("status") == "True"

    for type_ in ("Complete", "Failed"):
        if holds(type_):
            return type_
    if get(doc, "metadata.deletionTimestamp"):
        return "Terminating"
    for type_ in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if holds(type_):
            return type_
    return "Running"


def is_finished(doc: Doc) -> bool:
    """Whether a Job has come to its end, one or the other."""
    return any(
        (condition(doc, type_) or {}).get("status") == "True" for type_ in ("Complete", "Failed")
    )


def _completions(doc: Doc) -> str:
    done, wanted = get(doc, "status.succeeded", 0), get(doc, "spec.completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    at_once = get(doc, "spec.parallelism", 0)
    return f"{done}/1 of {at_once}" if at_once > 1 else f"{done}/1"


def _duration(doc: Doc) -> str:
    start, end = get(doc, "status.startTime"), get(doc, "status.completionTime")
    if not start:
        return ""
    until = parse_time(end) if end else datetime.now(UTC)
    return human_duration((until - parse_time(start)).total_seconds())


JOB = Kind(
    group="batch",
    version="v1",
    kind="Job",
    plural="jobs",
    singular="job",
    schema="io.k8s.api.batch.v1.Job",
    categories=("all",),
    columns=(
        Column("Status", job_phase, description="What the Job is doing, in one word."),
        Column("Completions", _completions, description="Pods that succeeded, of all wanted."),
        Column("Duration", _duration, description="How long it has run, or ran."),
        *wide_columns(),
    ),
    default=_default,
    validate=_validate,
    warn=_warn,
    field_labels={"status.successful": lambda doc: str(get(doc, "status.succeeded", 0))},
    orphans=True,
)
