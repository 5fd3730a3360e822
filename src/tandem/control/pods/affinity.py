"""Which node a Pod wants, and which Pods it wants near or far, on one node. Pure.

A term between Pods speaks of a part of the cluster that shares a label's value (``topologyKey``); here
every such part is the one node, if it has the label.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.selectors import Requirement, label_selector_from_doc

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_OPERATORS = {
    "In": "in",
    "NotIn": "notin",
    "Exists": "exists",
    "DoesNotExist": "!",
    "Gt": "gt",
    "Lt": "lt",
}

NamespaceLabels = Callable[[str], Mapping[str, str]]


class Placed(NamedTuple):
    """What others need to know of a Pod that is on the node."""

    namespace: str
    labels: Mapping[str, str]
    terminating: bool
    rejects: tuple[Doc, ...]

    @classmethod
    def of(cls, pod: Doc) -> Placed:
        """The Pod as others see it."""
        metadata = pod["metadata"]
        return cls(
            metadata.get("namespace", ""),
            metadata.get("labels") or {},
            bool(metadata.get("deletionTimestamp")),
            tuple(_terms(pod, "podAntiAffinity")),
        )


class Conflict(NamedTuple):
    """Why the Pods do not go together; ``resolvable``: other Pods' leaving could change it."""

    text: str
    resolvable: bool


def tolerated(pod: Doc, taint: Doc) -> bool:
    """Whether one of the Pod's tolerations covers the taint."""
    return any(_covers(toleration, taint) for toleration in get(pod, "spec.tolerations", []))


def _covers(toleration: Doc, taint: Doc) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return (toleration.get("value") or "") == (taint.get("value") or "")


def wants_node(pod: Doc, node: Doc) -> bool:
    """Whether the node is one that the Pod's selector and required affinity ask for."""
    labels = get(node, "metadata.labels", {})
    selector: Mapping[str, str] = get(pod, "spec.nodeSelector", {})
    if not selector.items() <= labels.items():
        return False
    required = get(pod, f"spec.affinity.nodeAffinity.{_REQUIRED}")
    if required is None:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        _matches(term.get("matchExpressions"), labels) and _matches(term.get("matchFields"), fields)
        for term in required.get("nodeSelectorTerms") or ()
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _matches(expressions: Iterable[Doc] | None, values: Mapping[str, str]) -> bool:
    return all(
        Requirement(
            expression["key"],
            _OPERATORS[expression["operator"]],
            tuple(expression.get("values") or ()),
        ).matches(values)
        for expression in expressions or ()
    )


def conflict(
    pod: Doc,
    node: Doc,
    others: Collection[Placed],
    rejecting: Collection[Placed],
    namespaces: NamespaceLabels,
) -> Conflict | None:
    """What of the Pod's spread and (anti-)affinity, or of the others', the node cannot give;
    ``rejecting`` are those of ``others`` that have any anti-affinity."""
    labels = get(node, "metadata.labels", {})
    if (found := _spread_conflict(pod, labels, others)) is not None:
        return found
    me = Placed.of(pod)
    for term in me.rejects:
        if term.get("topologyKey") in labels and any(
            _selects(term, me, other, namespaces) for other in others
        ):
            return Conflict("node(s) didn't match pod anti-affinity rules", True)
    for other in rejecting:
        for term in other.rejects:
            if term.get("topologyKey") in labels and _selects(term, other, me, namespaces):
                text = "node(s) didn't satisfy existing pods anti-affinity rules"
                return Conflict(text, True)
    wanted = _terms(pod, "podAffinity")
    if not _attracted(wanted, me, labels, others, namespaces):
        return Conflict("node(s) didn't match pod affinity rules", False)
    return None


def _attracted(
    terms: list[Doc],
    me: Placed,
    labels: Mapping[str, str],
    others: Iterable[Placed],
    namespaces: NamespaceLabels,
) -> bool:
    if any(term.get("topologyKey") not in labels for term in terms):
        return False
    if all(any(_selects(term, me, other, namespaces) for other in others) for term in terms):
        return True
    # The first of a group that wants to be together has nobody yet to be near to.
    nobody = not any(_selects(term, me, other, namespaces) for term in terms for other in others)
    return nobody and all(_selects(term, me, me, namespaces) for term in terms)


def _spread_conflict(
    pod: Doc, labels: Mapping[str, str], others: Iterable[Placed]
) -> Conflict | None:
    text = "node(s) didn't match pod topology spread constraints"
    me = Placed.of(pod)
    for constraint in get(pod, "spec.topologySpreadConstraints", []):
        if constraint.get("whenUnsatisfiable") != "DoNotSchedule":
            continue
        if constraint.get("topologyKey") not in labels:
            return Conflict(f"{text} (missing required label)", False)
        # One part is always level with itself, unless more parts are asked for than there are.
        if constraint.get("minDomains", 1) > 1:
            there = sum(
                1
                for other in others
                if other.namespace == me.namespace
                and not other.terminating
                and _has_labels(constraint, me, other)
            )
            if there + _has_labels(constraint, me, me) > constraint.get("maxSkew", 1):
                return Conflict(text, True)
    return None


def _terms(pod: Doc, kind: str) -> list[Doc]:
    return list(get(pod, f"spec.affinity.{kind}.{_REQUIRED}", []))


def _selects(term: Doc, holder: Placed, other: Placed, namespaces: NamespaceLabels) -> bool:
    """Whether ``other`` is one that a term of ``holder`` speaks of."""
    named, selector = term.get("namespaces") or (), term.get("namespaceSelector")
    if selector is not None:
        chosen = other.namespace in named or label_selector_from_doc(selector).matches(
            namespaces(other.namespace)
        )
    else:
        chosen = other.namespace in (named or (holder.namespace,))
    return chosen and _has_labels(term, holder, other)


def _has_labels(term: Doc, holder: Placed, other: Placed) -> bool:
    selector = term.get("labelSelector")
    if selector is None or not label_selector_from_doc(selector).matches(other.labels):
        return False
    for field, same in (("matchLabelKeys", True), ("mismatchLabelKeys", False)):
        for key in term.get(field) or ():
            value = holder.labels.get(key)
            if value is not None and (other.labels.get(key) == value) is not same:
                return False
    return True
