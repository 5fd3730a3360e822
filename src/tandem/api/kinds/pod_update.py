"""What may change in a Pod that is there: a few fields, each in one direction."""

from __future__ import annotations

from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import MAX_INT32, range_causes
from tandem.api.meta import get
from tandem.errors import Cause

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
    "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)


def update_causes(new: Doc, old: Doc) -> list[Cause]:
    """What is wrong with the step from the spec ``old`` to the spec ``new``."""
    for field in ("containers", "initContainers"):
        if len(new.get(field) or ()) != len(old.get(field) or ()):
            message = "pod updates may not add or remove containers"
            return [causes.forbidden(f"spec.{field}", message)]
    found = _deadline_causes(new, old)
    found += _toleration_causes(new, old)
    found += _gate_causes(new, old)
    if old.get("schedulingGates"):
        found += _gated_causes(new, old)
    before, after = _frozen(old, old), _frozen(new, old)
    if before != after:
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        what = ", ".join(f"`spec.{name}`" for name in changed)
        found.append(causes.forbidden("spec", f"{_MUTABLE}; this one changes {what}"))
    return found


def _deadline_causes(new: Doc, old: Doc) -> list[Cause]:
    field = "activeDeadlineSeconds"
    before, after = old.get(field), new.get(field)
    if before == after:
        return []
    if after is None:
        message = "must not update from a positive integer to nil value"
        return [causes.invalid(f"spec.{field}", None, message)]
    if before is not None and after > before:
        message = "must be less than or equal to previous value"
        return [causes.invalid(f"spec.{field}", after, message)]
    return range_causes(new, field, 0, MAX_INT32, "spec")


def _toleration_causes(new: Doc, old: Doc) -> list[Cause]:
    def timeless(toleration: Doc) -> Doc:
        return {name: value for name, value in toleration.items() if name != "tolerationSeconds"}

    kept = [timeless(toleration) for toleration in new.get("tolerations") or ()]
    if all(timeless(toleration) in kept for toleration in old.get("tolerations") or ()):
        return []
    message = "existing toleration can not be modified except its tolerationSeconds"
    return [causes.forbidden("spec.tolerations", message)]


def _gate_causes(new: Doc, old: Doc) -> list[Cause]:
    before = {gate.get("name") for gate in old.get("schedulingGates") or ()}
    return [
        causes.forbidden(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
        )
        for index, gate in enumerate(new.get("schedulingGates") or ())
        if gate.get("name") not in before
    ]


def _gated_causes(new: Doc, old: Doc) -> list[Cause]:
    """While a Pod is gated, where it may run can be narrowed."""
    found = []
    selector = new.get("nodeSelector") or {}
    if not (old.get("nodeSelector") or {}).items() <= selector.items():
        message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        found.append(causes.invalid("spec.nodeSelector", selector, message))
    path = f"affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
    before, after = get(old, path, []), get(new, path, [])
    if before and len(before) != len(after):
        message = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        return [*found, causes.invalid(f"spec.{path}", after, message)]
    for index, (one, two) in enumerate(zip(before, after, strict=False)):
        if not _only_adds(two, one):
            message = "only additions are allowed (no mutations or deletions)"
            found.append(causes.invalid(f"spec.{path}[{index}]", two, message))
    return found


def _only_adds(new: Doc, old: Doc) -> bool:
    fields = ("matchExpressions", "matchFields")
    if not any(old.get(field) for field in fields):
        return not any(new.get(field) for field in fields)
    return all(
        (new.get(field) or [])[: len(old.get(field) or [])] == (old.get(field) or [])
        for field in fields
    )


def _frozen(spec: Doc, old: Doc) -> Doc:
    """The spec without what may change, in a Pod whose spec was ``old``."""
    free = {"activeDeadlineSeconds", "tolerations", "schedulingGates"}
    if old.get("schedulingGates"):
        free.add("nodeSelector")
    kept: dict[str, Any] = {name: value for name, value in spec.items() if name not in free}
    for field in ("containers", "initContainers"):
        kept[field] = [
            {name: value for name, value in container.items() if name != "image"}
            for container in spec.get(field) or ()
        ]
    if old.get("schedulingGates"):
        affinity = dict(kept.pop("affinity", None) or {})
        affinity.pop("nodeAffinity", None)
        if affinity:
            kept["affinity"] = affinity
    return kept


def take_ephemeral_containers(new: Doc, old: Doc) -> Doc:
    """``old`` with the ephemeral containers of ``new``."""
    spec = {name: value for name, value in old["spec"].items() if name != "ephemeralContainers"}
    if wanted := get(new, "spec.ephemeralContainers"):
        spec["ephemeralContainers"] = wanted
    return {**old, "spec": spec}


def ephemeral_causes(new: Doc, old: Doc) -> list[Cause]:
    """Ephemeral containers are added; none that is there changes or goes."""
    path = "spec.ephemeralContainers"
    wanted = {container.get("name"): container for container in get(new, path, [])}
    found = []
    for container in get(old, path, []):
        name = container["name"]
        if name not in wanted:
            message = f'existing ephemeral containers "{name}" may not be removed'
            found.append(causes.forbidden(path, message))
        elif wanted[name] != container:
            message = f'existing ephemeral containers "{name}" may not be changed'
            found.append(causes.forbidden(path, message))
    return found
