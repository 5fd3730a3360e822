"""Claims, persistent volumes and classes; and what every namespace has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.pods.volumes import unbound
from tandem.errors import NotFound
from tandem.store import Key
from tests.unit.control.plant import Plant

NO_CLASS = {"storageClassName": ""}


async def make_claim(plant: Plant, name: str, size: str = "1Gi", **spec: Any) -> Doc:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        **spec,
    }
    doc = await plant.create("persistentvolumeclaims", {"metadata": {"name": name}, "spec": spec})
    await plant.settle()
    return doc


async def make_volume(plant: Plant, name: str, size: str = "5Gi", **spec: Any) -> Doc:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "hostPath": {"path": f"/mnt/{name}"},
        **spec,
    }
    labels = {"name": name}
    doc = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    made = await plant.create("persistentvolumes", doc)
    await plant.settle()
    return made


async def delete(plant: Plant, plural: str, name: str) -> None:
    await plant.delete(plural, name)
    await plant.settle()


def claim_phase(plant: Plant, name: str) -> str:
    return plant.phase("persistentvolumeclaims", name)


def volume(plant: Plant, name: str) -> Doc:
    return plant.store.get(Key("persistentvolumes", "", name))


def volume_phase(plant: Plant, name: str) -> str:
    return str(get(volume(plant, name), "status.phase"))


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777 if path.exists() else 0


def using(claim: str) -> dict[str, Any]:
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}


async def test_a_claim_gets_a_directory(plant: Plant) -> None:
    await make_claim(plant, "data")
    claim = plant.get("persistentvolumeclaims", "data")
    assert claim["spec"]["storageClassName"] == "directory"
    assert claim["status"] == {
        "phase": "Bound",
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
    }
    name = claim["spec"]["volumeName"]
    assert name == f"pvc-{claim['metadata']['uid']}"
    found = volume(plant, name)
    assert found["status"]["phase"] == "Bound"
    assert found["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    path = plant.folder / "volumes" / name
    assert found["spec"]["local"]["path"] == str(path)
    assert mode_of(path) == 0o777
    assert "ProvisioningSucceeded" in plant.reasons("data")

    (path / "file").write_text("x")
    await delete(plant, "persistentvolumeclaims", "data")
    assert mode_of(path) == 0
    with pytest.raises(NotFound):
        volume(plant, name)


async def test_a_claim_in_use_goes_with_its_last_pod(plant: Plant) -> None:
    await make_claim(plant, "data")
    await plant.pod("web", **using("data"))
    await plant.settle()
    await delete(plant, "persistentvolumeclaims", "data")
    assert plant.get("persistentvolumeclaims", "data")["metadata"]["deletionTimestamp"]
    await plant.delete("pods", "web", gracePeriodSeconds=0)
    await plant.settle()
    assert not plant.exists("persistentvolumeclaims", "data")


@pytest.mark.parametrize(
    "source",
    [
        {"persistentVolumeClaim": {"claimName": "data"}},
        {"dataVolume": {"name": "data"}},
        {"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}},
    ],
)
async def test_a_claim_in_use_goes_with_its_last_machine(plant: Plant, source: Doc) -> None:
    await make_claim(plant, "data")
    spec = {"domain": {"memory": {"guest": "64Mi"}}, "volumes": [{"name": "disk", **source}]}
    machine = {"metadata": {"name": "vm"}, "spec": spec}
    await plant.create("virtualmachineinstances", machine)
    await plant.settle()
    await delete(plant, "persistentvolumeclaims", "data")
    assert plant.get("persistentvolumeclaims", "data")["metadata"]["deletionTimestamp"]
    await plant.delete("virtualmachineinstances", "vm", gracePeriodSeconds=0)
    await plant.settle()
    assert not plant.exists("persistentvolumeclaims", "data")


async def test_a_claim_gets_the_smallest_volume_that_will_do(plant: Plant) -> None:
    for name, size in (("big", "9Gi"), ("small", "1Gi"), ("right", "4Gi")):
        await make_volume(plant, name, size)
    await make_volume(plant, "shared", "3Gi", accessModes=["ReadOnlyMany"])
    await make_volume(plant, "classy", "3Gi", storageClassName="fast")
    await make_claim(plant, "data", "2Gi", **NO_CLASS)
    assert plant.get("persistentvolumeclaims", "data")["spec"]["volumeName"] == "right"
    assert volume(plant, "right")["spec"]["claimRef"]["name"] == "data"
    assert {volume_phase(plant, name) for name in ("big", "small", "shared")} == {"Available"}


async def test_a_claim_waits_for_a_volume(plant: Plant) -> None:
    await make_claim(plant, "data", **NO_CLASS, selector={"matchLabels": {"name": "b"}})
    assert claim_phase(plant, "data") == "Pending"
    assert plant.events("data")[-1][1:] == (
        "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
    )
    await make_volume(plant, "a")
    assert claim_phase(plant, "data") == "Pending"
    await make_volume(plant, "b")
    assert claim_phase(plant, "data") == "Bound"


async def test_a_volume_is_kept_for_a_claim_by_name(plant: Plant) -> None:
    reference = {"namespace": "default", "name": "data"}
    await make_volume(plant, "kept", claimRef=reference)
    await make_volume(plant, "other", "1Gi")
    assert volume_phase(plant, "kept") == "Available"
    await make_claim(plant, "wrong", **NO_CLASS)
    await make_claim(plant, "data", **NO_CLASS)
    assert plant.get("persistentvolumeclaims", "data")["spec"]["volumeName"] == "kept"
    assert plant.get("persistentvolumeclaims", "wrong")["spec"]["volumeName"] == "other"


async def test_a_claim_for_a_volume_by_name(plant: Plant) -> None:
    await make_volume(plant, "tiny", "1Mi")
    await make_claim(plant, "data", **NO_CLASS, volumeName="tiny")
    assert plant.events("data")[-1][1:] == (
        "VolumeMismatch",
        'Cannot bind to requested volume "tiny": requested PV is too small',
    )
    await make_claim(plant, "late", "1Mi", **NO_CLASS, volumeName="to-come")
    await make_volume(plant, "to-come", "1Mi")
    assert claim_phase(plant, "late") == "Bound"
    await make_claim(plant, "second", "1Mi", **NO_CLASS, volumeName="to-come")
    assert plant.events("second")[-1][2] == ('volume "to-come" already bound to a different claim.')


async def test_what_becomes_of_a_volume_whose_claim_goes(plant: Plant) -> None:
    await make_volume(plant, "kept", "1Gi")
    await make_volume(plant, "foreign", "2Gi", persistentVolumeReclaimPolicy="Delete")
    await make_claim(plant, "a", "1Gi", **NO_CLASS)
    await make_claim(plant, "b", "2Gi", **NO_CLASS)
    await delete(plant, "persistentvolumes", "kept")  # its claim still has it
    assert volume_phase(plant, "kept") == "Bound"
    await delete(plant, "persistentvolumeclaims", "a")
    await delete(plant, "persistentvolumeclaims", "b")
    with pytest.raises(NotFound):
        volume(plant, "kept")
    assert volume_phase(plant, "foreign") == "Failed"  # whatever lies there is not ours
    assert "no deletable volume plugin matched" in volume(plant, "foreign")["status"]["message"]


async def test_a_retained_volume_is_released_with_its_data(plant: Plant) -> None:
    storage_class = {
        "metadata": {"name": "keep"},
        "provisioner": "tandem.dev/directory",
        "reclaimPolicy": "Retain",
    }
    await plant.create("storageclasses", storage_class)
    await make_claim(plant, "data", storageClassName="keep")
    name = plant.get("persistentvolumeclaims", "data")["spec"]["volumeName"]
    await delete(plant, "persistentvolumeclaims", "data")
    assert volume_phase(plant, name) == "Released"
    path = plant.folder / "volumes" / name
    assert mode_of(path) == 0o777
    await delete(plant, "persistentvolumes", name)
    assert mode_of(path) == 0o777


async def test_a_claim_that_waits_for_its_first_consumer(plant: Plant) -> None:
    storage_class = {
        "metadata": {"name": "lazy"},
        "provisioner": "tandem.dev/directory",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await plant.create("storageclasses", storage_class)
    await make_claim(plant, "data", storageClassName="lazy")
    assert claim_phase(plant, "data") == "Pending"
    assert plant.events("data")[-1][1:] == (
        "WaitForFirstConsumer",
        "waiting for first consumer to be created before binding",
    )
    await plant.pod("web", **using("data"))
    await plant.settle()
    assert claim_phase(plant, "data") == "Bound"


async def test_a_claim_of_a_class_that_is_not_there_or_not_ours(plant: Plant) -> None:
    await make_claim(plant, "data", storageClassName="no")
    assert plant.events("data")[-1][1:] == (
        "ProvisioningFailed",
        'storageclass.storage.k8s.io "no" not found',
    )
    await plant.create("storageclasses", {"metadata": {"name": "no"}, "provisioner": "x.io/y"})
    await plant.settle()
    assert plant.events("data")[-1][1] == "ExternalProvisioning"
    assert claim_phase(plant, "data") == "Pending"


async def test_a_claim_grows(plant: Plant) -> None:
    await make_claim(plant, "data")

    def grow(doc: Doc) -> None:
        doc["spec"]["resources"]["requests"]["storage"] = "2Gi"

    await plant.update("persistentvolumeclaims", "data", grow)
    await plant.settle()
    claim = plant.get("persistentvolumeclaims", "data")
    assert claim["status"]["capacity"] == {"storage": "2Gi"}
    assert volume(plant, claim["spec"]["volumeName"])["spec"]["capacity"] == {"storage": "2Gi"}
    assert plant.reasons("data")[-1] == "VolumeResizeSuccessful"


async def test_a_claim_whose_volume_is_gone_is_lost(plant: Plant) -> None:
    await make_claim(plant, "data")
    name = plant.get("persistentvolumeclaims", "data")["spec"]["volumeName"]
    await plant.store.delete(Key("persistentvolumes", "", name))
    await plant.settle()
    assert claim_phase(plant, "data") == "Lost"
    assert plant.reasons("data")[-1] == "ClaimLost"


async def test_a_binding_that_was_cut_short_is_finished(plant: Plant) -> None:
    await plant.stop()
    doc = await make_volume(plant, "a")
    claim = await make_claim(plant, "data", **NO_CLASS)
    reference = {"namespace": "default", "name": "data", "uid": claim["metadata"]["uid"]}
    doc["spec"]["claimRef"] = reference
    await plant.store.update(Key("persistentvolumes", "", "a"), doc)
    await plant.restart()
    assert claim_phase(plant, "data") == "Bound"


async def test_a_pod_makes_claims_of_its_own(plant: Plant) -> None:
    template = {
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
    }
    volumes = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
    await plant.pod("web", volumes=volumes)
    await plant.settle()
    assert claim_phase(plant, "web-scratch") == "Bound"
    await plant.delete("pods", "web", gracePeriodSeconds=0)
    await plant.settle()
    assert not plant.exists("persistentvolumeclaims", "web-scratch")


async def test_a_claim_that_somebody_else_made_is_no_pod_s_own(plant: Plant) -> None:
    await make_claim(plant, "web-scratch")
    template = {"spec": plant.get("persistentvolumeclaims", "web-scratch")["spec"]}
    volumes = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
    doc = {"metadata": {"name": "web", "namespace": "default", "uid": "u"}}
    found = unbound(
        {**doc, "spec": {"volumes": volumes}},
        lambda key: plant.get("persistentvolumeclaims", key.name),
    )
    assert found is not None
    assert found.message == (
        "PVC default/web-scratch was not created for pod default/web (pod is not owner)"
    )


def test_what_keeps_a_pod_from_being_scheduled() -> None:
    key = Key("persistentvolumeclaims", "lab", "data")
    pod = {"metadata": {"name": "p", "namespace": "lab"}, "spec": using("data")}
    found: dict[Key, Doc] = {}
    assert unbound(pod, found.get) == ('persistentvolumeclaim "data" not found', key)
    found[key] = {"metadata": {}, "status": {"phase": "Pending"}}
    assert unbound(pod, found.get) == ("pod has unbound immediate PersistentVolumeClaims", key)
    found[key]["status"]["phase"] = "Bound"
    assert unbound(pod, found.get) is None
    found[key]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert unbound(pod, found.get) == ('persistentvolumeclaim "data" is being deleted', key)


async def test_every_namespace_has_an_account_and_a_certificate(plant: Plant) -> None:
    (plant.folder / "pki").mkdir()
    (plant.folder / "pki" / "ca.crt").write_text("CA")
    await plant.create("namespaces", {"metadata": {"name": "lab"}})
    await plant.settle()
    assert plant.exists("serviceaccounts", "default", "lab")
    assert plant.get("configmaps", "kube-root-ca.crt", "lab")["data"] == {"ca.crt": "CA"}

    await plant.delete("serviceaccounts", "default", "lab")
    await plant.delete("configmaps", "kube-root-ca.crt", "lab")
    await plant.settle()
    assert plant.exists("serviceaccounts", "default", "lab")

    def spoil(doc: Doc) -> None:
        doc["data"] = {}

    await plant.update("configmaps", "kube-root-ca.crt", spoil, namespace="lab")
    await plant.settle()
    assert plant.get("configmaps", "kube-root-ca.crt", "lab")["data"] == {"ca.crt": "CA"}
