"""The rules of a JobSpec, in Kubernetes' words."""

from __future__ import annotations

import re

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes, not_negative_causes
from tandem.api.kinds.pod_template import template_causes
from tandem.api.meta import get, qualified_name_causes
from tandem.errors import Cause

ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")

_NUMBERS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_MAX_INDEXED = 100_000
_MAX_RULES = 20
_INDEXES = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def job_spec_causes(spec: Doc, path: str, *, check_template: bool = True) -> list[Cause]:
    """What is wrong with a JobSpec that has its defaults."""
    found = not_negative_causes(spec, _NUMBERS, path)
    if check_template:
        found += template_causes(
            spec.get("template"), f"{path}.template", restart=("OnFailure", "Never")
        )
    found += choice_causes(spec, "completionMode", ("NonIndexed", "Indexed"), path)
    found += _index_causes(spec, path)
    if policy := spec.get("podFailurePolicy"):
        found += _failure_policy_causes(spec, policy, path)
    if policy := spec.get("successPolicy"):
        found += _success_policy_causes(spec, policy, f"{path}.successPolicy")
    replacements = (
        ("Failed",) if spec.get("podFailurePolicy") else ("Failed", "TerminatingOrFailed")
    )
    return found + choice_causes(spec, "podReplacementPolicy", replacements, path)


def _index_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    per_index, most = spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes")
    completions = spec.get("completions")
    if spec.get("completionMode") != "Indexed":
        message = "requires indexed completion mode"
        return [
            causes.invalid(f"{path}.{field}", spec[field], message)
            for field in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy")
            if spec.get(field) is not None
        ]
    if completions is None:
        message = "when completion mode is Indexed"
        found.append(causes.required(f"{path}.completions", message))
    if spec["parallelism"] > _MAX_INDEXED:
        message = f"must be less than or equal to {_MAX_INDEXED} when completion mode is Indexed"
        found.append(causes.invalid(f"{path}.parallelism", spec["parallelism"], message))
    if most is not None and per_index is None:
        message = "when maxFailedIndexes is specified"
        found.append(causes.required(f"{path}.backoffLimitPerIndex", message))
    if most is not None and completions is not None and most > completions:
        message = "must be less than or equal to completions"
        found.append(causes.invalid(f"{path}.maxFailedIndexes", most, message))
    return found


def _failure_policy_causes(spec: Doc, policy: Doc, path: str) -> list[Cause]:
    found = []
    if get(spec, "template.spec.restartPolicy") != "Never":
        field, message = (
            f"{path}.template.spec.restartPolicy",
            'only "Never" is supported when podFailurePolicy is specified',
        )
        found.append(causes.invalid(field, get(spec, "template.spec.restartPolicy"), message))
    rules = policy.get("rules") or []
    if len(rules) > _MAX_RULES:
        message = f"must have at most {_MAX_RULES} items"
        found.append(causes.invalid(f"{path}.podFailurePolicy.rules", len(rules), message))
    names = {
        container.get("name")
        for group in ("containers", "initContainers")
        for container in get(spec, f"template.spec.{group}", [])
    }
    per_index = spec.get("backoffLimitPerIndex") is not None
    for index, rule in enumerate(rules):
        at = f"{path}.podFailurePolicy.rules[{index}]"
        found += _rule_causes(rule, at, names, per_index=per_index)
    return found


def _rule_causes(rule: Doc, path: str, names: set[str | None], *, per_index: bool) -> list[Cause]:
    found = []
    action = rule.get("action")
    if not action:
        shown = " ".join(f'"{name}"' for name in ACTIONS)
        found.append(causes.required(f"{path}.action", f"valid values: [{shown}]"))
    elif action == "FailIndex" and not per_index:
        message = "requires the backoffLimitPerIndex to be set"
        found.append(causes.invalid(f"{path}.action", action, message))
    elif action not in ACTIONS:
        found.append(causes.not_supported(f"{path}.action", action, ACTIONS))
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if codes and conditions:
        message = "specifying both OnExitCodes and OnPodConditions is not supported"
        found.append(causes.invalid(path, "", message))
    if not codes and not conditions:
        message = "specifying one of OnExitCodes and OnPodConditions is required"
        found.append(causes.invalid(path, "", message))
    if codes:
        found += _exit_code_causes(codes, f"{path}.onExitCodes", names)
    for index, pattern in enumerate(conditions or ()):
        at = f"{path}.onPodConditions[{index}]"
        found += qualified_name_causes(pattern.get("type") or "", f"{at}.type")
        found += choice_causes(pattern, "status", ("False", "True", "Unknown"), at)
    return found


def _exit_code_causes(codes: Doc, path: str, names: set[str | None]) -> list[Cause]:
    found = []
    operator, values = codes.get("operator"), codes.get("values") or []
    if not operator:
        found.append(causes.required(f"{path}.operator", 'valid values: ["In" "NotIn"]'))
    else:
        found += choice_causes(codes, "operator", ("In", "NotIn"), path)
    if codes.get("containerName") is not None and codes["containerName"] not in names:
        message = "must be one of the container or initContainer names in the pod template"
        found.append(causes.invalid(f"{path}.containerName", codes["containerName"], message))
    if not values:
        found.append(causes.invalid(f"{path}.values", values, "at least one value is required"))
    elif len(values) > 255:
        message = "must have at most 255 items"
        found.append(causes.invalid(f"{path}.values", len(values), message))
    if operator == "In" and 0 in values:
        at = f"{path}.values[{values.index(0)}]"
        found.append(causes.invalid(at, 0, "must not be 0 for the In operator"))
    found += [
        causes.duplicate(f"{path}.values[{index}]", value)
        for index, value in enumerate(values)
        if value in values[:index]
    ]
    if values != sorted(values):
        found.append(causes.invalid(f"{path}.values", values, "must be ordered"))
    return found


def _success_policy_causes(spec: Doc, policy: Doc, path: str) -> list[Cause]:
    if spec.get("completionMode") != "Indexed" or spec.get("completions") is None:
        return []  # that is told elsewhere
    rules = policy.get("rules") or []
    if not rules:
        message = "at least one rules must be specified when the successPolicy is specified"
        return [causes.required(f"{path}.rules", message)]
    found = []
    if len(rules) > _MAX_RULES:
        message = f"must have at most {_MAX_RULES} items"
        found.append(causes.invalid(f"{path}.rules", len(rules), message))
    for index, rule in enumerate(rules):
        found += _success_rule_causes(rule, spec["completions"], f"{path}.rules[{index}]")
    return found


def _success_rule_causes(rule: Doc, completions: int, path: str) -> list[Cause]:
    count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
    if count is None and indexes is None:
        message = "at least one of succeededCount or succeededIndexes must be specified"
        return [causes.required(path, message)]
    found = not_negative_causes(rule, ("succeededCount",), path)
    total = completions
    what = f"{completions} (the number of specified completions)"
    if indexes is not None:
        if problem := _indexes_problem(indexes, completions):
            return [*found, causes.invalid(f"{path}.succeededIndexes", indexes, problem)]
        total = sum(last - first + 1 for first, last in _intervals(indexes))
        what = f"{total} (the number of indexes in the specified succeededIndexes field)"
    if count is not None and count > total:
        message = f"must be less than or equal to {what}"
        found.append(causes.invalid(f"{path}.succeededCount", count, message))
    return found


def _indexes_problem(text: str, completions: int) -> str:
    if not _INDEXES.fullmatch(text):
        return "error parsing succeededIndexes: must be of the form 0,2-5,7"
    last = -1
    for first, end in _intervals(text):
        if first <= last:
            return "error parsing succeededIndexes: non-increasing order"
        if end < first:
            return "error parsing succeededIndexes: non-increasing order"
        if end >= completions:
            return "error parsing succeededIndexes: too large index for completions"
        last = end
    return ""


def _intervals(text: str) -> list[tuple[int, int]]:
    pairs = (part.partition("-") for part in text.split(","))
    return [(int(first), int(last or first)) for first, _, last in pairs]
