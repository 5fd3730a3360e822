"""``apps/v1`` ReplicaSet and ``v1`` ReplicationController: a number of equal Pods."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind, Scale
from tandem.api.kinds.checks import not_negative_causes
from tandem.api.kinds.pod_template import (
    default_template,
    map_selector_causes,
    plain_selector_text,
    selector_causes,
    selector_text,
    template_causes,
    template_warnings,
    wide_columns,
)
from tandem.api.meta import get
from tandem.errors import Cause


def _default(doc: Doc) -> None:
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return
    spec.setdefault("replicas", 1)
    default_template(spec.get("template"))
    doc.setdefault("status", {}).setdefault("replicas", 0)


def _default_controller(doc: Doc) -> None:
    labels = get(doc, "spec.template.metadata.labels")
    if labels and isinstance(doc.get("spec"), dict):
        doc["spec"].setdefault("selector", dict(labels))
        doc["metadata"].setdefault("labels", dict(labels))
    _default(doc)


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    before = (old or {}).get("spec") or {}
    if spec == before:
        return []
    labels = get(spec, "template.metadata.labels", {})
    found = not_negative_causes(spec, ("replicas", "minReadySeconds"), "spec")
    if old is not None and spec.get("selector") != before.get("selector"):
        found.append(causes.immutable("spec.selector", spec.get("selector")))
    found += selector_causes(spec.get("selector"), labels, "spec.selector")
    if spec.get("template") != before.get("template"):
        found += template_causes(spec.get("template"), deadline_for="ReplicaSet")
    return found


def _validate_controller(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    if old is not None and spec == old.get("spec"):
        return []
    labels = get(spec, "template.metadata.labels", {})
    found = not_negative_causes(spec, ("replicas", "minReadySeconds"), "spec")
    found += map_selector_causes(spec.get("selector"), labels, "spec.selector")
    return found + template_causes(spec.get("template"), deadline_for="ReplicationController")


def _warn(new: Doc, old: Doc | None) -> list[str]:
    template = get(new, "spec.template")
    return [] if old and template == get(old, "spec.template") else template_warnings(template)


def _count(path: str) -> Column:
    names = {
        "spec.replicas": ("Desired", "How many Pods are wanted."),
        "status.replicas": ("Current", "How many Pods there are."),
        "status.readyReplicas": ("Ready", "How many Pods are ready."),
    }
    name, description = names[path]
    return Column(name, lambda doc: get(doc, path, 0), type="integer", description=description)


_COLUMNS = (_count("spec.replicas"), _count("status.replicas"), _count("status.readyReplicas"))
_FIELDS = {"status.replicas": lambda doc: str(get(doc, "status.replicas", 0))}

REPLICA_SET = Kind(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    singular="replicaset",
    schema="io.k8s.api.apps.v1.ReplicaSet",
    short_names=("rs",),
    categories=("all",),
    columns=(*_COLUMNS, *wide_columns()),
    default=_default,
    validate=_validate,
    warn=_warn,
    field_labels=_FIELDS,
    scale=Scale(lambda doc: selector_text(get(doc, "spec.selector"))),
)

REPLICATION_CONTROLLER = Kind(
    group="",
    version="v1",
    kind="ReplicationController",
    plural="replicationcontrollers",
    singular="replicationcontroller",
    schema="io.k8s.api.core.v1.ReplicationController",
    short_names=("rc",),
    categories=("all",),
    columns=(*_COLUMNS, *wide_columns(plain=True)),
    default=_default_controller,
    validate=_validate_controller,
    warn=_warn,
    field_labels=_FIELDS,
    scale=Scale(lambda doc: plain_selector_text(get(doc, "spec.selector"))),
    orphans=True,
)
