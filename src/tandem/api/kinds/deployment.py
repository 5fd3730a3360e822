"""``apps/v1`` Deployment: ReplicaSets one after the other, with a way back."""

from __future__ import annotations

from typing import Any

from tandem.api import causes, intstr
from tandem.api.kind import Column, Doc, Kind, Scale
from tandem.api.kinds.checks import not_negative_causes
from tandem.api.kinds.pod_template import (
    default_template,
    selector_causes,
    selector_text,
    template_causes,
    template_warnings,
    wide_columns,
)
from tandem.api.meta import get
from tandem.errors import Cause

_STRATEGIES = ("Recreate", "RollingUpdate")
_NUMBERS = ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")


def _default(doc: Doc) -> None:
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    default_template(spec.get("template"))


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    before = (old or {}).get("spec") or {}
    if spec == before:
        return []
    labels = get(spec, "template.metadata.labels", {})
    found = not_negative_causes(spec, _NUMBERS, "spec")
    if old is not None and spec.get("selector") != before.get("selector"):
        found.append(causes.immutable("spec.selector", spec.get("selector")))
    found += selector_causes(spec.get("selector"), labels, "spec.selector")
    if spec.get("template") != before.get("template"):
        found += template_causes(spec.get("template"), deadline_for="ReplicaSet")
    found += _strategy_causes(spec.get("strategy") or {}, "spec.strategy")
    deadline, settle = spec["progressDeadlineSeconds"], spec.get("minReadySeconds") or 0
    if 0 <= deadline <= settle:
        message = "must be greater than minReadySeconds"
        found.append(causes.invalid("spec.progressDeadlineSeconds", deadline, message))
    return found


def _strategy_causes(strategy: Doc, path: str) -> list[Cause]:
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") not in _STRATEGIES:
        return [causes.not_supported(f"{path}.type", strategy.get("type"), _STRATEGIES)]
    if strategy["type"] == "Recreate":
        message = "may not be specified when strategy `type` is 'Recreate'"
        return [causes.forbidden(f"{path}.rollingUpdate", message)] if rolling else []
    return _rolling_causes(rolling or {}, f"{path}.rollingUpdate")


def _rolling_causes(rolling: Doc, path: str) -> list[Cause]:
    away, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    found = intstr.amount_causes(away, f"{path}.maxUnavailable")
    found += intstr.amount_causes(surge, f"{path}.maxSurge")
    if not found and _is_nothing(away) and _is_nothing(surge):
        message = "may not be 0 when `maxSurge` is 0"
        found.append(causes.invalid(f"{path}.maxUnavailable", away, message))
    if (intstr.percentage(away) or 0) > 100:
        message = "must not be greater than 100%"
        found.append(causes.invalid(f"{path}.maxUnavailable", away, message))
    return found


def _is_nothing(value: Any) -> bool:
    percent = intstr.percentage(value)
    return (value if percent is None else percent) in (0, None)


def _warn(new: Doc, old: Doc | None) -> list[str]:
    template = get(new, "spec.template")
    return [] if old and template == get(old, "spec.template") else template_warnings(template)


def _ready(doc: Doc) -> str:
    return f"{get(doc, 'status.readyReplicas', 0)}/{get(doc, 'spec.replicas', 0)}"


DEPLOYMENT = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    schema="io.k8s.api.apps.v1.Deployment",
    short_names=("deploy",),
    categories=("all",),
    columns=(
        Column("Ready", _ready, description="Pods that are ready, of all that are wanted."),
        Column(
            "Up-to-date",
            lambda doc: get(doc, "status.updatedReplicas", 0),
            type="integer",
            description="Pods made from the present template.",
        ),
        Column(
            "Available",
            lambda doc: get(doc, "status.availableReplicas", 0),
            type="integer",
            description="Pods that have been ready for minReadySeconds.",
        ),
        *wide_columns(),
    ),
    default=_default,
    validate=_validate,
    warn=_warn,
    scale=Scale(lambda doc: selector_text(get(doc, "spec.selector"))),
)
