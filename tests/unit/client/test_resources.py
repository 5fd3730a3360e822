"""Kinds are known from discovery alone, in its new form and its old."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.client.request import Doc, Request
from tandem.client.resources import Resource, Resources, discover
from tandem.errors import NotFound

POD = Resource("", "v1", "Pod", "pods", "pod", True, ("po",), ("all",), frozenset({"get", "list"}))
VM = Resource(
    "kubevirt.io", "v1", "VirtualMachine", "virtualmachines", "virtualmachine", True,
    ("vm", "vms"), ("all",), frozenset({"get", "list"}),
)  # fmt: skip
NAMESPACE = Resource(
    "", "v1", "Namespace", "namespaces", "namespace", False, ("ns",), (), frozenset({"list"})
)


def answer(questions: Any, answers: dict[str, Doc]) -> tuple[Resources, list[Request]]:
    asked: list[Request] = []
    try:
        question = next(questions)
        while True:
            asked.append(question)
            question = questions.send(answers[question.path])
    except StopIteration as end:
        return end.value, asked


def aggregated(*resources: Resource) -> Doc:
    return {
        "kind": "APIGroupDiscoveryList",
        "items": [
            {
                "metadata": {"name": r.group} if r.group else {},
                "versions": [
                    {
                        "version": r.version,
                        "resources": [
                            {
                                "resource": r.plural,
                                "responseKind": {"group": r.group, "version": "v1", "kind": r.kind},
                                "scope": "Namespaced" if r.namespaced else "Cluster",
                                "singularResource": r.singular,
                                "shortNames": list(r.short_names),
                                "categories": list(r.categories),
                                "verbs": sorted(r.verbs),
                            }
                        ],
                    }
                ],
            }
            for r in resources
        ],
    }


def listed(*resources: Resource) -> Doc:
    entries: list[Doc] = [
        {
            "name": r.plural,
            "singularName": r.singular,
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": sorted(r.verbs),
            "shortNames": list(r.short_names),
            "categories": list(r.categories),
        }
        for r in resources
    ]
    return {
        "kind": "APIResourceList",
        "resources": [*entries, {"name": "pods/log", "kind": "Pod", "verbs": ["get"]}],
    }


def test_aggregated_discovery_takes_two_requests() -> None:
    found, asked = answer(discover(), {"/api": aggregated(POD, NAMESPACE), "/apis": aggregated(VM)})
    assert list(found) == [POD, NAMESPACE, VM]
    assert [question.path for question in asked] == ["/api", "/apis"]
    assert "apidiscovery.k8s.io" in asked[0].accept


def test_a_server_without_it_is_asked_group_by_group() -> None:
    found, _ = answer(
        discover(),
        {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/api/v1": listed(POD, NAMESPACE),
            "/apis": {
                "kind": "APIGroupList",
                "groups": [
                    {
                        "name": "kubevirt.io",
                        "preferredVersion": {"groupVersion": "kubevirt.io/v1", "version": "v1"},
                    }
                ],
            },
            "/apis/kubevirt.io/v1": listed(VM),
        },
    )
    assert list(found) == [POD, NAMESPACE, VM]


@pytest.mark.parametrize(
    "name", ["vm", "vms", "VirtualMachine", "virtualmachines", "vm.kubevirt.io", "virtualmachines.v1.kubevirt.io"]
)  # fmt: skip
def test_a_kind_is_found_by_any_of_its_names(name: str) -> None:
    assert Resources([POD, VM]).find(name) is VM


def test_several_kinds_and_categories_may_be_named_at_once() -> None:
    resources = Resources([POD, VM, NAMESPACE])
    assert resources.find_all("ns,pods,po") == [NAMESPACE, POD]
    assert resources.find_all("all") == [POD, VM]


def test_the_first_offered_wins_a_name_that_two_have() -> None:
    other = Resource("metrics.k8s.io", "v1", "PodMetrics", "pods")
    assert Resources([POD, other]).find("pods") is POD
    assert Resources([POD, other]).find("pods.metrics.k8s.io") is other


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFound, match="doesn't have a resource type 'podz'") as caught:
        Resources([POD]).find("podz")
    assert caught.value.hint == "did you mean 'pods'?"


def test_a_manifest_of_another_version_is_told_the_one_there_is() -> None:
    with pytest.raises(NotFound, match='no matches for kind "Pod" in version "v2"') as caught:
        Resources([POD]).by_kind("v2", "Pod")
    assert caught.value.hint == "Pod is served as v1"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (POD.path(), "/api/v1/pods"),
        (POD.path("web"), "/api/v1/namespaces/web/pods"),
        (POD.path("web", "a", "log"), "/api/v1/namespaces/web/pods/a/log"),
        (VM.path("web", "a"), "/apis/kubevirt.io/v1/namespaces/web/virtualmachines/a"),
        (NAMESPACE.path("web", "x"), "/api/v1/namespaces/x"),
        (POD.path("web", "../../x?y"), "/api/v1/namespaces/web/pods/..%2F..%2Fx%3Fy"),
    ],
)
def test_paths_are_kubernetes_own_and_names_cannot_leave_them(path: str, expected: str) -> None:
    assert path == expected
