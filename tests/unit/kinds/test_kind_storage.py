"""Claims, persistent volumes, classes and service accounts: defaults, rules and Tables."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import (
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
)
from tandem.api.kinds.serviceaccount import TOKEN_REQUEST
from tandem.api.kinds.storage import DEFAULT_CLASS, default_class
from tandem.api.rest import prepare_create, prepare_update
from tandem.api.table import columns_of
from tandem.errors import InvalidSpec


def claim(**spec: Any) -> Doc:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        **spec,
    }
    return {"metadata": {"name": "data"}, "spec": spec}


def volume(**spec: Any) -> Doc:
    spec = {
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/mnt"},
        **spec,
    }
    spec = {name: value for name, value in spec.items() if value is not None}
    return {"metadata": {"name": "disk"}, "spec": spec}


def made_claim(**spec: Any) -> Doc:
    return prepare_create(PERSISTENT_VOLUME_CLAIM, claim(**spec), namespace="lab").doc


def made_volume(**spec: Any) -> Doc:
    return prepare_create(PERSISTENT_VOLUME, volume(**spec), namespace="").doc


def cells(kind: Any, doc: Doc) -> dict[str, Any]:
    return {column.name: column.value(doc) for column in columns_of(kind)}


def test_a_new_claim_is_pending_and_protected() -> None:
    doc = made_claim()
    assert doc["status"] == {"phase": "Pending"}
    assert doc["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert doc["spec"]["volumeMode"] == "Filesystem"
    del doc["metadata"]["finalizers"]
    again = prepare_update(PERSISTENT_VOLUME_CLAIM, copy.deepcopy(doc), doc).doc
    assert "finalizers" not in again["metadata"]  # taken off, they stay off


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"accessModes": []}, "spec.accessModes: Required value: at least 1 access mode"),
        ({"accessModes": ["x"]}, 'spec.accessModes: Unsupported value: "x"'),
        (
            {"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]},
            "may not use ReadWriteOncePod with other access modes",
        ),
        ({"resources": {}}, r"spec.resources\[storage\]: Required value"),
        ({"resources": {"requests": {"storage": "0"}}}, "must be greater than zero"),
        ({"volumeMode": "Block"}, "spec.volumeMode: Forbidden: block devices"),
        ({"dataSource": {"kind": "x", "name": "y"}}, "spec.dataSource: Forbidden"),
        ({"storageClassName": "A_b"}, "spec.storageClassName: Invalid value"),
    ],
)
def test_rules_of_a_claim(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        made_claim(**spec)


def test_a_claim_may_grow_once_it_is_bound_and_never_shrink() -> None:
    old = made_claim()
    new = copy.deepcopy(old)
    new["spec"]["resources"]["requests"]["storage"] = "2Gi"
    with pytest.raises(InvalidSpec, match="spec is immutable after creation"):
        prepare_update(PERSISTENT_VOLUME_CLAIM, copy.deepcopy(new), old)
    old["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    prepare_update(PERSISTENT_VOLUME_CLAIM, copy.deepcopy(new), old)
    new["spec"]["resources"]["requests"]["storage"] = "1Mi"
    with pytest.raises(InvalidSpec, match=r"field can not be less than status.capacity"):
        prepare_update(PERSISTENT_VOLUME_CLAIM, new, old)


def test_what_is_shown_of_a_claim() -> None:
    doc = made_claim(storageClassName="fast")
    row = cells(PERSISTENT_VOLUME_CLAIM, doc)
    assert (row["Status"], row["Volume"], row["Capacity"]) == ("Pending", "", "")
    doc["spec"]["volumeName"] = "disk"
    doc["status"] = {
        "phase": "Bound",
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
    }
    row = cells(PERSISTENT_VOLUME_CLAIM, doc)
    shown = [row[name] for name in ("Status", "Volume", "Capacity", "Access Modes", "StorageClass")]
    assert shown == ["Bound", "disk", "1Gi", "RWO,RWX", "fast"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"capacity": {}}, "spec.capacity: Required value"),
        ({"capacity": {"storage": "1Gi", "x": "1"}}, 'spec.capacity: Unsupported value: "x"'),
        ({"hostPath": None}, "spec: Required value: must specify a volume type"),
        ({"hostPath": {"path": "/a/../b"}}, r"spec.hostPath.path: .*must not contain '..'"),
        ({"hostPath": {"path": "/a", "type": "x"}}, "spec.hostPath.type: Unsupported value"),
        ({"hostPath": None, "nfs": {"server": "a", "path": "/"}}, "spec.nfs: Forbidden"),
        (
            {"hostPath": None, "local": {"path": "/a"}},
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ),
        (
            {"nfs": {"server": "a", "path": "/"}},
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
        ),
        ({"persistentVolumeReclaimPolicy": "Recycle"}, 'Unsupported value: "Recycle"'),
        ({"mountOptions": ["ro"]}, "spec.mountOptions: Forbidden"),
    ],
)
def test_rules_of_a_volume(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        made_volume(**spec)


def test_a_volume_is_where_it_is() -> None:
    old = made_volume()
    assert old["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    new = copy.deepcopy(old)
    new["spec"]["hostPath"]["path"] = "/other"
    with pytest.raises(InvalidSpec, match=r"spec.persistentvolumesource is immutable"):
        prepare_update(PERSISTENT_VOLUME, new, old)
    new = copy.deepcopy(old)
    new["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    new["spec"]["claimRef"] = {"namespace": "lab", "name": "data"}
    prepare_update(PERSISTENT_VOLUME, new, old)
    row = cells(PERSISTENT_VOLUME, new)
    shown = [row[name] for name in ("Capacity", "Access Modes", "Reclaim Policy", "Claim")]
    assert shown == ["1Gi", "RWO,ROX", "Delete", "lab/data"]


def test_a_class_and_what_of_it_stays() -> None:
    doc = {"metadata": {"name": "fast"}, "provisioner": "x.io/y"}
    old = prepare_create(STORAGE_CLASS, doc, namespace="").doc
    assert (old["reclaimPolicy"], old["volumeBindingMode"]) == ("Delete", "Immediate")
    for change in ({"provisioner": "z"}, {"reclaimPolicy": "Retain"}, {"parameters": {"a": "b"}}):
        with pytest.raises(InvalidSpec, match=r"updates to .* are forbidden"):
            prepare_update(STORAGE_CLASS, copy.deepcopy(old) | change, old)
    late = {"volumeBindingMode": "WaitForFirstConsumer"}
    with pytest.raises(InvalidSpec, match="field is immutable"):
        prepare_update(STORAGE_CLASS, copy.deepcopy(old) | late, old)
    for wrong in ({"provisioner": ""}, {"reclaimPolicy": "x"}, {"volumeBindingMode": "x"}):
        with pytest.raises(InvalidSpec):
            prepare_create(STORAGE_CLASS, copy.deepcopy(doc) | wrong, namespace="")


def test_the_newest_of_several_defaults_counts() -> None:
    def named(name: str, made: str, default: str) -> Doc:
        annotations = {DEFAULT_CLASS: default}
        return {"metadata": {"name": name, "creationTimestamp": made, "annotations": annotations}}

    classes = [
        named("a", "2026-01-01T00:00:00Z", "true"),
        named("b", "2026-01-02T00:00:00Z", "true"),
    ]
    found = default_class([*classes, named("c", "2026-01-03T00:00:00Z", "false")])
    assert found is classes[1]
    assert cells(STORAGE_CLASS, classes[0])["Name"] == "a (default)"
    assert default_class([]) is None


def test_a_service_account_and_a_request_for_its_token() -> None:
    doc = {"metadata": {"name": "robot"}, "secrets": [{"name": "a"}]}
    assert cells(SERVICE_ACCOUNT, prepare_create(SERVICE_ACCOUNT, doc, namespace="lab").doc) == {
        "Name": "robot",
        "Secrets": 1,
        "Age": "0s",
    }
    request = {"metadata": {"name": "robot"}, "spec": {"audiences": ["a"]}}
    made = prepare_create(TOKEN_REQUEST, copy.deepcopy(request), namespace="lab").doc
    assert made["spec"]["expirationSeconds"] == 3600
    for seconds, words in ((10, "less than 10 minutes"), (1 << 33, r"larger than 2\^32 seconds")):
        request["spec"] = {"audiences": ["a"], "expirationSeconds": seconds}
        with pytest.raises(InvalidSpec, match=words):
            prepare_create(TOKEN_REQUEST, copy.deepcopy(request), namespace="lab")
