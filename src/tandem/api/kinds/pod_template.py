"""What everything that makes Pods has in common: a template, and a selector of what it made.

Defaults, rules in Kubernetes' words, and the columns that ``kubectl get -o wide`` shows of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tandem.api import causes
from tandem.api.kind import Column, Doc
from tandem.api.kinds import placement, pod_spec
from tandem.api.meta import annotation_causes, get, label_causes
from tandem.api.selectors import label_selector_from_doc
from tandem.errors import Cause

TEMPLATE = "spec.template"
_ORDERED = {"In": "in", "NotIn": "notin"}


def default_template(template: Any) -> None:
    """Fill in what Kubernetes fills in. Idempotent."""
    if not isinstance(template, dict):
        return
    template.setdefault("metadata", {})
    if isinstance(spec := template.setdefault("spec", {}), dict):
        pod_spec.default(spec)


def template_causes(
    template: Doc | None,
    path: str = TEMPLATE,
    *,
    restart: Iterable[str] = ("Always",),
    deadline_for: str = "",
) -> list[Cause]:
    """What is wrong with a template. ``restart``: the policies that its Pods may have.
    ``deadline_for``: the kind in which ``activeDeadlineSeconds`` has no place, if it has none."""
    if not template:
        return [causes.required(path)]
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    found = label_causes(metadata.get("labels") or {}, f"{path}.metadata.labels")
    found += annotation_causes(metadata.get("annotations") or {}, f"{path}.metadata.annotations")
    found += pod_spec.causes(spec, f"{path}.spec")
    policy = spec.get("restartPolicy")
    if policy in ("Always", "OnFailure", "Never") and policy not in restart:
        found.append(causes.not_supported(f"{path}.spec.restartPolicy", policy, restart))
    if deadline_for and spec.get("activeDeadlineSeconds") is not None:
        message = f"activeDeadlineSeconds in {deadline_for} is not Supported"
        found.append(causes.forbidden(f"{path}.spec.activeDeadlineSeconds", message))
    return found


def template_warnings(template: Any, path: str = TEMPLATE) -> list[str]:
    """Sentences about what of a template is taken without effect."""
    return pod_spec.warnings(get(template or {}, "spec", {}), f"{path}.spec")


def selector_causes(selector: Doc | None, labels: Mapping[str, str], path: str) -> list[Cause]:
    """What is wrong with the selector of an owner whose template has ``labels``."""
    if selector is None:
        return [causes.required(path)]
    found = placement.selector_causes(selector, path)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        message = "empty selector is invalid for deployment"
        found.append(causes.invalid(path, selector, message))
    elif not found and not label_selector_from_doc(selector).matches(labels):
        found.append(_mismatch(labels))
    return found


def _mismatch(labels: Mapping[str, str]) -> Cause:
    message = "`selector` does not match template `labels`"
    return causes.invalid("spec.template.metadata.labels", labels, message)


def map_selector_causes(selector: Doc | None, labels: Mapping[str, str], path: str) -> list[Cause]:
    """The same for the older form of a selector, which is a plain map of labels."""
    if not selector:
        return [causes.required(path)]
    found = label_causes(selector, path)
    if not found and any(labels.get(key) != value for key, value in selector.items()):
        found.append(_mismatch(labels))
    return found


def selector_text(selector: Doc | None) -> str:
    """A ``metav1.LabelSelector`` as clients write it in a query, empty for one that selects all."""
    selector = selector or {}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, operator = expression["key"], expression["operator"]
        if operator in _ORDERED:
            values = ",".join(sorted(expression.get("values") or ()))
            terms.append(f"{key} {_ORDERED[operator]} ({values})")
        else:
            terms.append(key if operator == "Exists" else f"!{key}")
    return ",".join(terms)


def plain_selector_text(selector: Mapping[str, str] | None) -> str:
    """A plain map of labels in the same form."""
    return ",".join(f"{key}={value}" for key, value in sorted((selector or {}).items()))


def wide_columns(selector: str = "spec.selector", *, plain: bool = False) -> tuple[Column, ...]:
    """Containers, Images and Selector, as ``kubectl get -o wide`` has them."""

    def text(doc: Doc) -> str:
        found = get(doc, selector)
        return (plain_selector_text(found) if plain else selector_text(found)) or "<none>"

    return (
        Column("Containers", _names, priority=1, description="Names of the template's containers."),
        Column("Images", _images, priority=1, description="Images of the template's containers."),
        Column("Selector", text, priority=1, description="What selects the Pods."),
    )


def _names(doc: Doc) -> str:
    return ",".join(c.get("name", "") for c in get(doc, f"{TEMPLATE}.spec.containers", []))


def _images(doc: Doc) -> str:
    return ",".join(c.get("image", "") for c in get(doc, f"{TEMPLATE}.spec.containers", []))
