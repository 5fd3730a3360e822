"""Where a Pod may run: selectors, affinity, tolerations, spread and gates; rules."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes
from tandem.api.meta import (
    label_causes,
    label_value_causes,
    name_causes,
    qualified_name_causes,
)
from tandem.errors import Cause

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_NO_OPERATOR = "not a valid selector operator"


def placement_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with all of it."""
    found = label_causes(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    found += _affinity_causes(spec.get("affinity") or {}, f"{path}.affinity")
    found += toleration_causes(spec.get("tolerations") or [], f"{path}.tolerations")
    constraints = spec.get("topologySpreadConstraints") or []
    found += _spread_causes(constraints, f"{path}.topologySpreadConstraints")
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        at = f"{path}.readinessGates[{index}].conditionType"
        found += qualified_name_causes(gate.get("conditionType") or "", at)
    names: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        at = f"{path}.schedulingGates[{index}]"
        name = gate.get("name") or ""
        found += qualified_name_causes(name, at)
        if name in names:
            found.append(causes.duplicate(at, name))
        names.add(name)
    return found


def toleration_causes(tolerations: list[Doc], path: str) -> list[Cause]:
    """What is wrong with tolerations, a Pod's or a RuntimeClass's."""
    found = []
    for index, toleration in enumerate(tolerations):
        at = f"{path}[{index}]"
        key, value = toleration.get("key") or "", toleration.get("value") or ""
        operator, effect = toleration.get("operator") or "", toleration.get("effect") or ""
        if key:
            found += qualified_name_causes(key, f"{at}.key")
        elif operator != "Exists":
            message = (
                "operator must be Exists when `key` is empty, which means "
                '"match all values and all keys"'
            )
            found.append(causes.invalid(f"{at}.operator", operator, message))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            message = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.append(causes.invalid(f"{at}.effect", effect, message))
        if operator in ("", "Equal"):
            found += label_value_causes(value, f"{at}.operator")
        elif operator == "Exists" and value:
            message = "value must be empty when `operator` is 'Exists'"
            found.append(causes.invalid(f"{at}.operator", value, message))
        found += choice_causes(toleration, "operator", ("Equal", "Exists"), at)
        found += choice_causes(toleration, "effect", EFFECTS, at)
    return found


def selector_causes(selector: Doc | None, path: str) -> list[Cause]:
    """What is wrong with a ``metav1`` LabelSelector."""
    if selector is None:
        return []
    found = label_causes(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        found += _expression_causes(expression, at, comparing=False)
    return found


def _expression_causes(expression: Doc, path: str, *, comparing: bool) -> list[Cause]:
    """``comparing``: whether ``Gt`` and ``Lt`` are there, as for nodes."""
    found = []
    operator, values = expression.get("operator"), expression.get("values") or []
    match operator:
        case "In" | "NotIn":
            if not values:
                message = "must be specified when `operator` is 'In' or 'NotIn'"
                found.append(causes.required(f"{path}.values", message))
        case "Exists" | "DoesNotExist":
            if values:
                message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                found.append(causes.forbidden(f"{path}.values", message))
        case "Gt" | "Lt" if comparing:
            if len(values) != 1:
                message = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                found.append(causes.required(f"{path}.values", message))
        case _:
            found.append(causes.invalid(f"{path}.operator", operator, _NO_OPERATOR))
    found += qualified_name_causes(expression.get("key") or "", f"{path}.key")
    for index, value in enumerate(values):
        found += label_value_causes(value, f"{path}.values[{index}]")
    return found


def _affinity_causes(affinity: Doc, path: str) -> list[Cause]:
    found = []
    if node := affinity.get("nodeAffinity"):
        at = f"{path}.nodeAffinity"
        if (required := node.get(_REQUIRED)) is not None:
            found += node_selector_causes(required, f"{at}.{_REQUIRED}")
        for index, term in enumerate(node.get(_PREFERRED) or ()):
            where = f"{at}.{_PREFERRED}[{index}]"
            found += _weight_causes(term, where)
            found += _node_term_causes(term.get("preference") or {}, f"{where}.preference")
    for name in ("podAffinity", "podAntiAffinity"):
        pods = affinity.get(name) or {}
        for index, term in enumerate(pods.get(_REQUIRED) or ()):
            found += _pod_term_causes(term, f"{path}.{name}.{_REQUIRED}[{index}]")
        for index, term in enumerate(pods.get(_PREFERRED) or ()):
            where = f"{path}.{name}.{_PREFERRED}[{index}]"
            found += _weight_causes(term, where)
            found += _pod_term_causes(term.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")
    return found


def _weight_causes(term: Doc, path: str) -> list[Cause]:
    weight = term.get("weight", 0)
    if 1 <= weight <= 100:
        return []
    return [causes.invalid(f"{path}.weight", weight, "must be in the range 1-100")]


def node_selector_causes(selector: Doc, path: str) -> list[Cause]:
    """What is wrong with a NodeSelector: a Pod's required affinity, or a volume's."""
    terms = selector.get("nodeSelectorTerms")
    if not terms:
        message = "must have at least one node selector term"
        return [causes.required(f"{path}.nodeSelectorTerms", message)]
    return [
        cause
        for index, term in enumerate(terms)
        for cause in _node_term_causes(term, f"{path}.nodeSelectorTerms[{index}]")
    ]


def _node_term_causes(term: Doc, path: str) -> list[Cause]:
    found = []
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        found += _expression_causes(expression, at, comparing=True)
    for index, expression in enumerate(term.get("matchFields") or ()):
        at = f"{path}.matchFields[{index}]"
        operator, values = expression.get("operator"), expression.get("values") or []
        if operator not in ("In", "NotIn"):
            found.append(causes.invalid(f"{at}.operator", operator, _NO_OPERATOR))
        elif len(values) != 1:
            message = (
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
            found.append(causes.required(f"{at}.values", message))
        if expression.get("key") != "metadata.name":
            message = "not a valid field selector key"
            found.append(causes.invalid(f"{at}.key", expression.get("key"), message))
        else:
            for place, value in enumerate(values):
                found += name_causes(value, f"{at}.values[{place}]")
    return found


def _pod_term_causes(term: Doc, path: str) -> list[Cause]:
    found = []
    for field in ("labelSelector", "namespaceSelector"):
        found += selector_causes(term.get(field), f"{path}.{field}")
    for name in term.get("namespaces") or ():
        found += name_causes(name, f"{path}.namespace", "dns1123label")
    if not (key := term.get("topologyKey")):
        found.append(causes.required(f"{path}.topologyKey", "can not be empty"))
    else:
        found += qualified_name_causes(key, f"{path}.topologyKey")
    match_keys, mismatch_keys = (
        term.get(name) or [] for name in ("matchLabelKeys", "mismatchLabelKeys")
    )
    for name, keys in (("matchLabelKeys", match_keys), ("mismatchLabelKeys", mismatch_keys)):
        found += _label_key_causes(keys, term.get("labelSelector"), f"{path}.{name}")
    for index, key in enumerate(match_keys):
        if key in mismatch_keys:
            message = "exists in both matchLabelKeys and mismatchLabelKeys"
            found.append(causes.invalid(f"{path}.matchLabelKeys[{index}]", key, message))
    return found


def _label_key_causes(keys: list[str], selector: Doc | None, path: str) -> list[Cause]:
    if not keys:
        return []
    if selector is None:
        message = "must not be specified when labelSelector is not set"
        return [causes.forbidden(path, message)]
    return [
        cause
        for index, key in enumerate(keys)
        for cause in qualified_name_causes(key, f"{path}[{index}]")
    ]


def _spread_causes(constraints: list[Doc], path: str) -> list[Cause]:
    found = []
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        at = f"{path}[{index}]"
        key, action = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if (skew := constraint.get("maxSkew", 0)) <= 0:
            found.append(causes.invalid(f"{at}.maxSkew", skew, "must be greater than zero"))
        if not key:
            found.append(causes.required(f"{at}.topologyKey", "can not be empty"))
        actions = ("DoNotSchedule", "ScheduleAnyway")
        if action not in actions:
            found.append(causes.not_supported(f"{at}.whenUnsatisfiable", action, actions))
        if (key, action) in seen:
            where = f"{at}.{{topologyKey, whenUnsatisfiable}}"
            found.append(causes.duplicate(where, f"{{{key}, {action}}}"))
        seen.add((key, action))
        if (domains := constraint.get("minDomains")) is not None:
            if domains <= 0:
                message = "must be greater than zero"
                found.append(causes.invalid(f"{at}.minDomains", domains, message))
            if action != "DoNotSchedule":
                message = (
                    f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                )
                found.append(causes.invalid(f"{at}.minDomains", domains, message))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            found += choice_causes(constraint, field, ("Honor", "Ignore"), at)
        selector = constraint.get("labelSelector")
        keys = constraint.get("matchLabelKeys") or []
        found += _label_key_causes(keys, selector, f"{at}.matchLabelKeys")
        found += selector_causes(selector, f"{at}.labelSelector")
    return found
