"""Deployments, ReplicaSets, ReplicationControllers and Jobs: defaults, rules and columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tandem.api import causes
from tandem.api.kind import Doc, Kind
from tandem.api.kinds import DEPLOYMENT, JOB, REPLICA_SET, REPLICATION_CONTROLLER
from tandem.api.rest import prepare_create, prepare_delete, prepare_update
from tandem.api.table import columns_of, table
from tandem.errors import InvalidSpec

LABELS = {"app": "web"}


def template(restart: str = "Always", **spec: Any) -> Doc:
    container = {"name": "main", "image": "demo:1"}
    return {
        "metadata": {"labels": dict(LABELS)},
        "spec": {"containers": [container], "restartPolicy": restart, **spec},
    }


def made(kind: Kind, **spec: Any) -> Doc:
    spec.setdefault("template", template("Never" if kind is JOB else "Always"))
    if kind in (DEPLOYMENT, REPLICA_SET):
        spec.setdefault("selector", {"matchLabels": dict(LABELS)})
    doc = {"metadata": {"name": "web"}, "spec": copy.deepcopy(spec)}
    return prepare_create(kind, doc, namespace="default").doc


def refused(kind: Kind, **spec: Any) -> str:
    with pytest.raises(InvalidSpec) as caught:
        made(kind, **spec)
    return causes.describe(caught.value.causes)


def changed(kind: Kind, old: Doc, **spec: Any) -> Doc:
    new = copy.deepcopy(old)
    new["spec"].update(copy.deepcopy(spec))
    return prepare_update(kind, new, old).doc


def cells(kind: Kind, doc: Doc) -> dict[str, Any]:
    row = table(kind, [doc])["rows"][0]["cells"]
    return dict(zip((column.name for column in columns_of(kind)), row, strict=True))


def test_a_deployment_has_the_defaults_of_kubernetes() -> None:
    spec = made(DEPLOYMENT)["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert made(DEPLOYMENT, strategy={"type": "Recreate"})["spec"]["strategy"] == {
        "type": "Recreate"
    }


def test_a_replication_controller_selects_what_its_template_is_labelled() -> None:
    doc = made(REPLICATION_CONTROLLER)
    assert doc["spec"]["selector"] == LABELS
    assert doc["metadata"]["labels"] == LABELS


def test_a_job_has_the_defaults_of_kubernetes() -> None:
    doc = made(JOB)
    spec, uid = doc["spec"], doc["metadata"]["uid"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert (spec["completionMode"], spec["suspend"]) == ("NonIndexed", False)
    assert spec["podReplacementPolicy"] == "TerminatingOrFailed"
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert spec["template"]["metadata"]["labels"] == {
        **LABELS,
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "web",
        "controller-uid": uid,
        "job-name": "web",
    }
    assert "completions" not in made(JOB, parallelism=3)["spec"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"selector": None}, "spec.selector: Required value"),
        (
            {"selector": {}},
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            {"selector": {"matchLabels": {"app": "other"}}},
            'spec.template.metadata.labels: Invalid value: {"app": "web"}: `selector` does not match '
            "template `labels`",
        ),
        (
            {"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
            "spec.selector.matchExpressions[0].values: Required value: must be specified when "
            "`operator` is 'In' or 'NotIn'",
        ),
        (
            {"template": template("OnFailure")},
            'spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: '
            '"Always"',
        ),
        (
            {"template": template(activeDeadlineSeconds=5)},
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in "
            "ReplicaSet is not Supported",
        ),
        ({"template": template(containers=[])}, "spec.template.spec.containers: Required value"),
    ],
)
@pytest.mark.parametrize("kind", [DEPLOYMENT, REPLICA_SET])
def test_what_both_refuse(kind: Kind, spec: Doc, expected: str) -> None:
    assert refused(kind, **spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"strategy": {"type": "Blue"}},
            'spec.strategy.type: Unsupported value: "Blue": supported values: "Recreate", '
            '"RollingUpdate"',
        ),
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is "
            "'Recreate'",
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when '
            "`maxSurge` is 0",
        ),
        (
            {"strategy": {"rollingUpdate": {"maxUnavailable": "120%"}}},
            'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "120%": must not be greater '
            "than 100%",
        ),
        (
            {"minReadySeconds": 60, "progressDeadlineSeconds": 60},
            "spec.progressDeadlineSeconds: Invalid value: 60: must be greater than minReadySeconds",
        ),
    ],
)
def test_what_a_deployment_refuses(spec: Doc, expected: str) -> None:
    assert refused(DEPLOYMENT, **spec) == expected


def test_a_percentage_is_a_number_and_a_sign() -> None:
    found = refused(DEPLOYMENT, strategy={"rollingUpdate": {"maxSurge": "a lot"}})
    assert "a valid percent string must be a numeric string" in found


@pytest.mark.parametrize("kind", [DEPLOYMENT, REPLICA_SET])
def test_a_selector_stays(kind: Kind) -> None:
    old = made(kind)
    other = {"app": "other"}
    with pytest.raises(InvalidSpec, match=r"spec\.selector: Invalid value.*field is immutable"):
        changed(
            kind,
            old,
            selector={"matchLabels": other},
            template=template() | {"metadata": {"labels": other}},
        )


def codes(**more: Any) -> Doc:
    return {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1], **more}}


INDEXED = {"completionMode": "Indexed", "completions": 5}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"template": template("Always")},
            'spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: '
            '"Never", "OnFailure"',
        ),
        ({"backoffLimit": -1}, "spec.backoffLimit: Invalid value: -1: must be greater than"),
        ({"completionMode": "Ordered"}, 'spec.completionMode: Unsupported value: "Ordered"'),
        (
            {"completionMode": "Indexed", "parallelism": 2},
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            {"backoffLimitPerIndex": 1},
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            {**INDEXED, "maxFailedIndexes": 1},
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        ),
        (
            {**INDEXED, "backoffLimitPerIndex": 1, "maxFailedIndexes": 6},
            "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
        ),
        (
            {"template": template("OnFailure"), "podFailurePolicy": {"rules": [codes()]}},
            'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported',
        ),
        (
            {"podFailurePolicy": {"rules": [codes(values=[0])]}},
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0",
        ),
        (
            {"podFailurePolicy": {"rules": [codes(containerName="other")]}},
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value",
        ),
        (
            {"podFailurePolicy": {"rules": [codes(values=[2, 1])]}},
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2, 1]: must be ordered",
        ),
        (
            {"podFailurePolicy": {"rules": [{"action": "Count"}]}},
            'spec.podFailurePolicy.rules[0]: Invalid value: "": specifying one of OnExitCodes and',
        ),
        (
            {"podFailurePolicy": {"rules": [codes() | {"action": "FailIndex"}]}},
            'spec.podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the',
        ),
        (
            {**INDEXED, "successPolicy": {"rules": []}},
            "spec.successPolicy.rules: Required value: at least one rules must be specified",
        ),
        (
            {**INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "0-7"}]}},
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value",
        ),
        (
            {**INDEXED, "successPolicy": {"rules": [{"succeededCount": 6}]}},
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or "
            "equal to 5 (the number of specified completions)",
        ),
    ],
)
def test_what_a_job_refuses(spec: Doc, expected: str) -> None:
    assert refused(JOB, **spec).startswith(expected)


def test_the_selector_of_a_job_is_made_for_it_unless_it_is_said() -> None:
    assert "`selector` not auto-generated" in refused(JOB, selector={"matchLabels": LABELS})
    manual = made(JOB, manualSelector=True, selector={"matchLabels": LABELS})
    assert manual["spec"]["selector"] == {"matchLabels": LABELS}


def test_what_a_job_is_made_of_stays() -> None:
    old = made(JOB)
    for spec, field in (
        ({"completions": 2}, "spec.completions"),
        ({"template": template("OnFailure")}, "spec.template"),
        ({"completionMode": "Indexed"}, "spec.completionMode"),
    ):
        with pytest.raises(InvalidSpec, match=rf"{field}: Invalid value.*field is immutable"):
            changed(JOB, old, **spec)
    assert changed(JOB, old, parallelism=3)["spec"]["parallelism"] == 3


def test_where_a_suspended_job_runs_can_be_changed_before_it_does() -> None:
    old = made(JOB, suspend=True)
    moved = copy.deepcopy(old["spec"]["template"])
    moved["spec"]["nodeSelector"] = {"disk": "fast"}
    assert changed(JOB, old, template=moved)["metadata"]["generation"] == 2
    with pytest.raises(InvalidSpec, match="field is immutable"):
        changed(JOB, old | {"status": {"startTime": "2026-01-01T00:00:00Z"}}, template=moved)


def test_an_indexed_job_grows_with_its_parallelism() -> None:
    old = made(JOB, completionMode="Indexed", completions=3, parallelism=3)
    assert changed(JOB, old, completions=5, parallelism=5)["spec"]["completions"] == 5
    with pytest.raises(InvalidSpec, match="can only be modified in tandem with"):
        changed(JOB, old, completions=5)


@pytest.mark.parametrize("kind", [DEPLOYMENT, REPLICA_SET, REPLICATION_CONTROLLER, JOB])
def test_an_update_that_says_nothing_new_changes_nothing(kind: Kind) -> None:
    old = made(kind)
    assert prepare_update(kind, copy.deepcopy(old), old).doc == old


def test_a_delete_without_a_word_is_taken_as_ever() -> None:
    assert prepare_delete(DEPLOYMENT, made(DEPLOYMENT)).remove_now
    for kind in (JOB, REPLICATION_CONTROLLER):
        decision = prepare_delete(kind, made(kind))
        assert decision.doc["metadata"]["finalizers"] == ["orphan"]
        options = {"propagationPolicy": "Background"}
        assert prepare_delete(kind, made(kind), options).remove_now


def test_columns_are_those_that_kubernetes_prints() -> None:
    deployment = made(DEPLOYMENT, replicas=3)
    deployment["status"] = {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}
    found = cells(DEPLOYMENT, deployment)
    assert [*found] == [
        "Name",
        "Ready",
        "Up-to-date",
        "Available",
        "Age",
        "Containers",
        "Images",
        "Selector",
    ]
    assert [*found.values()][1:4] == ["2/3", 3, 2]
    assert [*found.values()][5:] == ["main", "demo:1", "app=web"]
    assert [*cells(REPLICA_SET, made(REPLICA_SET, replicas=3)).values()][1:4] == [3, 0, 0]
    job = made(JOB, completions=4)
    assert [*cells(JOB, job).values()][1:4] == ["Running", "0/4", ""]
    job["status"] = {
        "succeeded": 4,
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:02:05Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    }
    assert [*cells(JOB, job).values()][1:4] == ["Complete", "4/4", "2m5s"]
    assert cells(JOB, made(JOB, parallelism=3))["Completions"] == "0/1 of 3"


def test_selectors_are_written_as_in_a_query() -> None:
    expressions = [
        {"key": "tier", "operator": "NotIn", "values": ["b", "a"]},
        {"key": "app", "operator": "Exists"},
        {"key": "old", "operator": "DoesNotExist"},
    ]
    doc = made(REPLICA_SET, selector={"matchLabels": LABELS, "matchExpressions": expressions})
    assert cells(REPLICA_SET, doc)["Selector"] == "app=web,tier notin (a,b),app,!old"
