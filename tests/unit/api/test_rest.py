"""The write pipeline: who owns which field, what is refused in which words, how objects go."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest

from tandem.api import causes
from tandem.api.kind import Doc, Kind
from tandem.api.meta import parse_time
from tandem.api.rest import (
    FieldValidation,
    prepare_create,
    prepare_delete,
    prepare_update,
)
from tandem.errors import BadRequest, Conflict, InvalidSpec


def default(doc: Doc) -> None:
    doc.setdefault("spec", {}).setdefault("restartPolicy", "Always")


def validate(new: Doc, old: Doc | None) -> list[Any]:
    if old and new["spec"].get("nodeName") != old["spec"].get("nodeName"):
        return [causes.immutable("spec.nodeName", new["spec"].get("nodeName"))]
    return []


def warn(new: Doc, old: Doc | None) -> list[str]:
    return ["spec.hostname is odd"] if new["spec"].get("hostname") == "odd" else []


POD = Kind(
    "",
    "v1",
    "Pod",
    "pods",
    "pod",
    "io.k8s.api.core.v1.Pod",
    default=default,
    validate=validate,
    warn=warn,
    grace=lambda doc: int(doc["spec"].get("terminationGracePeriodSeconds", 30)),
)
CONFIG_MAP = Kind(
    "", "v1", "ConfigMap", "configmaps", "configmap", "io.k8s.api.core.v1.ConfigMap",
    status=False, spec_fields=(),
)  # fmt: skip
NAMESPACE = Kind(
    "", "v1", "Namespace", "namespaces", "namespace", "io.k8s.api.core.v1.Namespace",
    namespaced=False,
)  # fmt: skip
VM = Kind(
    "kubevirt.io", "v1", "VirtualMachine", "virtualmachines", "virtualmachine",
    "io.kubevirt.v1.VirtualMachine", merge_only=True,
)  # fmt: skip


def pod(**metadata: Any) -> Doc:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", **metadata},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


def create(doc: Doc, kind: Kind = POD, validation: FieldValidation = "Warn") -> Doc:
    namespace = "ns" if kind.namespaced else ""
    return prepare_create(kind, doc, namespace=namespace, field_validation=validation).doc


def stored(**metadata: Any) -> Doc:
    doc = create(pod())
    doc["metadata"] |= {"resourceVersion": "5", **metadata}
    doc["status"] = {"phase": "Running"}
    return doc


class TestCreate:
    def test_an_object_gets_its_identity_from_the_system(self) -> None:
        doc = create(
            pod(
                uid="mine",
                creationTimestamp="2001-01-01T00:00:00Z",
                generation=9,
                deletionTimestamp="2001-01-01T00:00:00Z",
                deletionGracePeriodSeconds=3,
                selfLink="/x",
                managedFields=[{"manager": "m"}],
            )
        )
        metadata = doc["metadata"]
        assert set(metadata) == {"name", "namespace", "uid", "creationTimestamp", "generation"}
        assert metadata["uid"] != "mine"
        assert metadata["generation"] == 1
        assert metadata["creationTimestamp"] > "2025"

    def test_kinds_without_a_spec_have_no_generation(self) -> None:
        doc = create({"metadata": {"name": "c"}}, CONFIG_MAP)
        assert "generation" not in doc["metadata"]

    def test_type_and_namespace_come_from_the_request_where_the_document_has_none(self) -> None:
        doc = create({"metadata": {"name": "c"}}, CONFIG_MAP)
        assert (doc["apiVersion"], doc["kind"]) == ("v1", "ConfigMap")
        assert doc["metadata"]["namespace"] == "ns"

    def test_objects_of_no_namespace_keep_none(self) -> None:
        doc = create({"metadata": {"name": "n", "namespace": "x"}}, NAMESPACE)
        assert "namespace" not in doc["metadata"]

    @pytest.mark.parametrize(("field", "value"), [("apiVersion", "v2"), ("kind", "Service")])
    def test_another_type_than_the_request_s_is_refused(self, field: str, value: str) -> None:
        with pytest.raises(BadRequest, match=f"{value}.* does not match the expected"):
            create(pod() | {field: value})

    def test_another_namespace_than_the_request_s_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="does not match the namespace sent on the request"):
            create(pod(namespace="other"))

    def test_a_resource_version_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="should not be set on objects to be created"):
            create(pod(resourceVersion="1"))

    def test_a_name_can_be_generated(self) -> None:
        doc = pod(generateName="web-")
        del doc["metadata"]["name"]
        name = create(doc)["metadata"]["name"]
        assert name.startswith("web-")
        assert len(name) == len("web-") + 5

    def test_no_name_at_all_is_refused(self) -> None:
        with pytest.raises(InvalidSpec) as caught:
            create({"spec": {"containers": [{"name": "c"}]}})
        assert caught.value.message == (
            'Pod "" is invalid: metadata.name: Required value: name or generateName is required'
        )

    def test_status_is_not_the_client_s_to_set(self) -> None:
        assert "status" not in create(pod() | {"status": {"phase": "Running"}})

    def test_defaults_are_filled_before_rules_are_checked(self) -> None:
        assert create(pod())["spec"]["restartPolicy"] == "Always"

    def test_empty_collections_of_metadata_are_none(self) -> None:
        metadata = create(pod(labels={}, annotations={}, finalizers=[]))["metadata"]
        assert not {"labels", "annotations", "finalizers"} & set(metadata)

    def test_one_fault_is_told_in_kubernetes_words(self) -> None:
        doc = pod()
        del doc["spec"]["containers"][0]["name"]
        with pytest.raises(InvalidSpec) as caught:
            create(doc)
        error = caught.value
        assert error.message == 'Pod "p" is invalid: spec.containers[0].name: Required value'
        assert error.details == {"name": "p", "group": "", "kind": "Pod"}
        assert [cause.reason for cause in error.causes] == ["FieldValueRequired"]

    def test_several_faults_are_told_together(self) -> None:
        doc = pod(labels={"a b": "c"})
        del doc["spec"]["containers"]
        with pytest.raises(InvalidSpec) as caught:
            create(doc)
        assert caught.value.message.startswith(
            'Pod "p" is invalid: [spec.containers: Required value, metadata.labels: Invalid value'
        )

    def test_a_custom_resource_is_named_with_its_group(self) -> None:
        with pytest.raises(
            InvalidSpec, match=r'VirtualMachine\.kubevirt\.io "a" is invalid: spec:'
        ):
            create({"metadata": {"name": "a"}}, VM)

    def test_a_wrong_shape_is_a_bad_request_before_any_rule(self) -> None:
        doc = pod()
        doc["spec"]["containers"][0]["image"] = 5
        with pytest.raises(BadRequest) as caught:
            create(doc)
        assert caught.value.message == (
            'Pod in version "v1" cannot be handled as a Pod: '
            "spec.containers[0].image: Invalid value: 5: must be a string"
        )

    @pytest.mark.parametrize("metadata", [[], "x", 5, {"labels": []}, {"name": 5}])
    def test_metadata_of_a_wrong_shape_is_a_bad_request(self, metadata: Any) -> None:
        with pytest.raises(BadRequest, match="metadata"):
            create(pod() | {"metadata": metadata})

    @pytest.mark.parametrize(
        "metadata",
        [
            {"name": "../etc"},
            {"name": "<script>"},
            {"labels": {"a": "<x>"}},
            {"annotations": {"a b": "x"}},
            {"annotations": {"a": "x" * 300_000}},
            {"finalizers": ["a b"]},
            {"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "", "uid": "u"}]},
            {
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "X", "name": n, "uid": n, "controller": True}
                    for n in ("a", "b")
                ]
            },
        ],
    )
    def test_metadata_that_breaks_a_rule_is_invalid(self, metadata: Doc) -> None:
        with pytest.raises(InvalidSpec, match="metadata"):
            create(pod(**metadata))

    def test_unknown_fields_warn_and_are_dropped(self) -> None:
        doc = pod()
        doc["spec"]["foo"] = 1
        prepared = prepare_create(POD, doc, namespace="ns")
        assert prepared.warnings == ('unknown field "spec.foo"',)
        assert "foo" not in prepared.doc["spec"]

    def test_unknown_fields_can_be_refused(self) -> None:
        doc = pod()
        doc["spec"] |= {"foo": 1, "bar": 2}
        with pytest.raises(BadRequest) as caught:
            create(doc, validation="Strict")
        assert caught.value.message.endswith(
            'strict decoding error: unknown field "spec.foo", unknown field "spec.bar"'
        )

    def test_unknown_fields_can_be_ignored(self) -> None:
        doc = pod()
        doc["spec"]["foo"] = 1
        prepared = prepare_create(POD, doc, namespace="ns", field_validation="Ignore")
        assert prepared.warnings == ()
        assert "foo" not in prepared.doc["spec"]

    def test_the_kind_s_own_warnings_are_passed_on(self) -> None:
        doc = pod()
        doc["spec"]["hostname"] = "odd"
        assert prepare_create(POD, doc, namespace="ns").warnings == ("spec.hostname is odd",)


class TestUpdate:
    def test_what_the_system_owns_is_carried_over(self) -> None:
        old = stored()
        new = pod()
        doc = prepare_update(POD, new, old).doc
        assert doc["metadata"]["uid"] == old["metadata"]["uid"]
        assert doc["metadata"]["creationTimestamp"] == old["metadata"]["creationTimestamp"]
        assert doc["status"] == {"phase": "Running"}

    def test_the_generation_counts_changes_of_the_spec_alone(self) -> None:
        old = stored()
        same = prepare_update(POD, pod(labels={"a": "b"}, generation=7), old).doc
        assert same["metadata"]["generation"] == 1
        new = pod()
        new["spec"]["containers"][0]["image"] = "other"
        assert prepare_update(POD, new, old).doc["metadata"]["generation"] == 2

    def test_the_resource_version_is_passed_on_for_the_store_to_check(self) -> None:
        doc = prepare_update(POD, pod(resourceVersion="3"), stored()).doc
        assert doc["metadata"]["resourceVersion"] == "3"
        assert "resourceVersion" not in prepare_update(POD, pod(), stored()).doc["metadata"]

    def test_a_custom_resource_must_be_updated_from_a_version(self) -> None:
        vm = {"metadata": {"name": "a"}, "spec": {"template": {"spec": {"domain": {}}}}}
        old = create(copy.deepcopy(vm), VM)
        with pytest.raises(InvalidSpec, match=r"resourceVersion.*must be specified for an update"):
            prepare_update(VM, vm, old)

    def test_another_name_or_namespace_is_refused(self) -> None:
        with pytest.raises(BadRequest, match=r"the name of the object \(q\) does not match"):
            prepare_update(POD, pod(name="q"), stored())
        with pytest.raises(BadRequest, match="namespace"):
            prepare_update(POD, pod(namespace="other"), stored())

    def test_another_identity_is_a_conflict(self) -> None:
        with pytest.raises(Conflict, match="UID in precondition: other"):
            prepare_update(POD, pod(uid="other"), stored())

    @pytest.mark.parametrize(
        "metadata",
        [
            {"creationTimestamp": "2001-01-01T00:00:00Z"},
            {"deletionTimestamp": "2001-01-01T00:00:00Z"},
            {"deletionGracePeriodSeconds": 1},
        ],
    )
    def test_the_system_s_times_cannot_be_changed(self, metadata: Doc) -> None:
        with pytest.raises(InvalidSpec, match="field is immutable"):
            prepare_update(POD, pod(**metadata), stored())

    def test_the_kind_s_rules_see_the_old_object(self) -> None:
        new = pod()
        new["spec"]["nodeName"] = "elsewhere"
        with pytest.raises(InvalidSpec, match=r"spec\.nodeName.*field is immutable"):
            prepare_update(POD, new, stored())

    def test_an_update_of_the_status_changes_nothing_else(self) -> None:
        old = stored()
        new = pod(labels={"a": "b"}, resourceVersion="5") | {"status": {"phase": "Failed"}}
        new["spec"]["nodeName"] = "elsewhere"
        doc = prepare_update(POD, new, old, subresource="status").doc
        assert doc == old | {"status": {"phase": "Failed"}}

    def test_an_update_of_the_object_does_not_change_its_status(self) -> None:
        new = pod() | {"status": {"phase": "Failed"}}
        assert prepare_update(POD, new, stored()).doc["status"] == {"phase": "Running"}

    def test_kinds_that_keep_no_status_apart_take_it_along(self) -> None:
        kind = Kind("", "v1", "Pod", "pods", "pod", POD.schema, status=False)
        new = pod() | {"status": {"phase": "Failed"}}
        assert prepare_update(kind, new, stored()).doc["status"] == {"phase": "Failed"}

    def test_an_object_on_its_way_out_takes_no_new_finalizers(self) -> None:
        old = stored(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["a/b"])
        with pytest.raises(InvalidSpec, match="no new finalizers can be added"):
            prepare_update(POD, pod(finalizers=["a/b", "c/d"]), old)

    def test_taking_the_last_finalizer_lets_the_object_go(self) -> None:
        old = create({"metadata": {"name": "c", "finalizers": ["a/b"]}}, CONFIG_MAP)
        marked = prepare_delete(CONFIG_MAP, old).doc
        kept = {"metadata": {"name": "c", "finalizers": ["a/b"], "labels": {"x": "y"}}}
        assert not prepare_update(CONFIG_MAP, kept, marked).remove
        assert prepare_update(CONFIG_MAP, {"metadata": {"name": "c"}}, marked).remove

    def test_an_object_with_a_controller_is_left_for_it(self) -> None:
        old = prepare_delete(POD, stored(finalizers=["a/b"]), {"gracePeriodSeconds": 0}).doc
        assert not prepare_update(POD, pod(), old).remove


class TestDelete:
    def test_an_object_without_grace_or_finalizers_goes_at_once(self) -> None:
        old = create({"metadata": {"name": "c"}}, CONFIG_MAP)
        assert prepare_delete(CONFIG_MAP, old).remove_now

    def test_an_object_with_grace_is_marked(self) -> None:
        decision = prepare_delete(POD, stored())
        metadata = decision.doc["metadata"]
        assert not decision.remove_now
        assert metadata["deletionGracePeriodSeconds"] == 30
        assert metadata["generation"] == 2
        assert seconds_until(metadata["deletionTimestamp"]) == pytest.approx(30, abs=2)

    def test_the_old_document_is_left_alone(self) -> None:
        old = stored()
        before = copy.deepcopy(old)
        prepare_delete(POD, old)
        assert old == before

    def test_the_request_s_grace_wins_over_the_object_s(self) -> None:
        metadata = prepare_delete(POD, stored(), {"gracePeriodSeconds": 5}).doc["metadata"]
        assert metadata["deletionGracePeriodSeconds"] == 5

    def test_a_negative_grace_is_one_second(self) -> None:
        metadata = prepare_delete(POD, stored(), {"gracePeriodSeconds": -1}).doc["metadata"]
        assert metadata["deletionGracePeriodSeconds"] == 1

    def test_a_second_delete_may_shorten_the_grace_and_not_lengthen_it(self) -> None:
        marked = stored(
            deletionTimestamp="2026-01-01T00:00:30Z", deletionGracePeriodSeconds=30, generation=2
        )
        assert prepare_delete(POD, marked, {"gracePeriodSeconds": 60}).doc is marked
        assert prepare_delete(POD, marked).doc is marked
        sooner = prepare_delete(POD, marked, {"gracePeriodSeconds": 10}).doc["metadata"]
        assert sooner["deletionGracePeriodSeconds"] == 10
        assert sooner["deletionTimestamp"] == "2026-01-01T00:00:10Z", "what has passed counts"
        assert sooner["generation"] == 2

    def test_insisting_on_no_grace_removes_at_once(self) -> None:
        marked = prepare_delete(POD, stored(), {"gracePeriodSeconds": 0})
        assert not marked.remove_now, "the controller stops what runs first"
        assert prepare_delete(POD, marked.doc, {"gracePeriodSeconds": 0}).remove_now
        assert not prepare_delete(POD, marked.doc).remove_now

    def test_finalizers_keep_an_object(self) -> None:
        old = create({"metadata": {"name": "c", "finalizers": ["a/b"]}}, CONFIG_MAP)
        decision = prepare_delete(CONFIG_MAP, old)
        assert not decision.remove_now
        assert decision.doc["metadata"]["deletionGracePeriodSeconds"] == 0
        assert prepare_delete(CONFIG_MAP, decision.doc).doc is decision.doc

    def test_preconditions_must_hold(self) -> None:
        with pytest.raises(Conflict, match="UID in precondition: other"):
            prepare_delete(POD, stored(), {"preconditions": {"uid": "other"}})
        with pytest.raises(Conflict, match="ResourceVersion in precondition: 4"):
            prepare_delete(POD, stored(), {"preconditions": {"resourceVersion": "4"}})
        assert prepare_delete(POD, stored(), {"preconditions": {"resourceVersion": "5"}})

    @pytest.mark.parametrize(
        ("options", "finalizers"),
        [
            ({"propagationPolicy": "Foreground"}, ["foregroundDeletion"]),
            ({"propagationPolicy": "Orphan"}, ["orphan"]),
            ({"orphanDependents": True}, ["orphan"]),
        ],
    )
    def test_what_becomes_of_dependents_is_recorded(
        self, options: Doc, finalizers: list[str]
    ) -> None:
        old = create({"metadata": {"name": "c"}}, CONFIG_MAP)
        decision = prepare_delete(CONFIG_MAP, old, options)
        assert not decision.remove_now
        assert decision.doc["metadata"]["finalizers"] == finalizers
        background = {"propagationPolicy": "Background"}
        assert prepare_delete(CONFIG_MAP, decision.doc, background).remove_now

    @pytest.mark.parametrize(
        "options",
        [
            {"propagationPolicy": "Sideways"},
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            {"gracePeriodSeconds": "5"},
        ],
    )
    def test_options_that_make_no_sense_are_invalid(self, options: Doc) -> None:
        with pytest.raises(InvalidSpec):
            prepare_delete(POD, stored(), options)


def seconds_until(timestamp: str) -> float:
    moment = parse_time(timestamp)
    return (moment - datetime.now(moment.tzinfo)) / timedelta(seconds=1)
