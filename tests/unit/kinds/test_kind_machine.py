"""VirtualMachines and their instances: defaults, KubeVirt's rules, what is supported."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from tandem.api.kind import Doc
from tandem.api.kinds import VIRTUAL_MACHINE, VIRTUAL_MACHINE_INSTANCE
from tandem.api.kinds.machine import RUNNING_IS_DEPRECATED, run_strategy
from tandem.api.rest import Prepared, prepare_create, prepare_update
from tandem.errors import InvalidSpec

ISSUE_MANIFEST = """
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: test-vm
spec:
  running: true
  template:
    spec:
      domain:
        resources:
          requests:
            memory: "2Gi"
            cpu: "2"
"""


def vm(spec: Doc) -> Prepared:
    doc = {"metadata": {"name": "db"}, "spec": copy.deepcopy(spec)}
    return prepare_create(VIRTUAL_MACHINE, doc, namespace="default")


def vmi(**spec: Any) -> Doc:
    spec.setdefault("domain", {})
    if "memory" not in spec["domain"].get("resources", {}).get("requests", {}):
        spec["domain"].setdefault("memory", {"guest": "64Mi"})
    doc = {"metadata": {"name": "db"}, "spec": copy.deepcopy(spec)}
    return prepare_create(VIRTUAL_MACHINE_INSTANCE, doc, namespace="default").doc


def vmi_causes(**spec: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        vmi(**spec)
    return {cause.field: cause.message for cause in caught.value.causes}


def test_the_smallest_manifest_is_admitted() -> None:
    manifest = yaml.safe_load(ISSUE_MANIFEST)
    prepared = prepare_create(VIRTUAL_MACHINE, manifest, namespace="default")
    assert prepared.warnings == (RUNNING_IS_DEPRECATED,)
    assert run_strategy(prepared.doc) == "Always"
    instance = vmi(**prepared.doc["spec"]["template"]["spec"])
    domain = instance["spec"]["domain"]
    assert domain["memory"]["guest"] == "2Gi"
    topology = [domain["cpu"][part] for part in ("sockets", "cores", "threads")]
    assert topology == [2, 1, 1]
    assert domain["machine"]["type"] == "q35"
    assert domain["devices"]["interfaces"] == [{"name": "default", "bridge": {}}]
    assert instance["spec"]["networks"] == [{"name": "default", "pod": {}}]


def test_an_identity_is_kept_through_every_write() -> None:
    old = vm(
        {"runStrategy": "Halted", "template": {"spec": {"domain": {"memory": {"guest": "1Gi"}}}}}
    )
    firmware = old.doc["spec"]["template"]["spec"]["domain"]["firmware"]
    new = copy.deepcopy(old.doc)
    new["metadata"]["resourceVersion"] = "1"
    del new["spec"]["template"]["spec"]["domain"]["firmware"]
    updated = prepare_update(VIRTUAL_MACHINE, new, old.doc).doc
    assert updated["spec"]["template"]["spec"]["domain"]["firmware"] == firmware
    assert updated["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("resources", "vcpus"),
    [
        ({"requests": {"cpu": "1500m"}}, 2),
        ({"limits": {"cpu": "3"}}, 3),
        ({"requests": {"cpu": "100m"}}, 1),
        ({}, 1),
    ],
)
def test_processors_come_from_what_is_asked_for(resources: Doc, vcpus: int) -> None:
    domain = vmi(domain={"resources": resources})["spec"]["domain"]
    assert domain["cpu"]["sockets"] == vcpus


def test_every_volume_gets_a_disk_on_a_bus() -> None:
    volumes = [
        {"name": "root", "containerDisk": {"image": "disk"}},
        {"name": "data", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "cd", "containerDisk": {"image": "cd:1"}},
    ]
    disks = [{"name": "root", "disk": {"bus": "virtio"}}, {"name": "cd", "cdrom": {}}]
    spec = vmi(volumes=volumes, domain={"devices": {"disks": disks}})["spec"]
    assert spec["domain"]["devices"]["disks"] == [
        {"name": "root", "disk": {"bus": "virtio"}},
        {"name": "cd", "cdrom": {"bus": "sata", "readonly": True, "tray": "closed"}},
        {"name": "data", "disk": {"bus": "sata"}},
    ]
    policies = [v["containerDisk"]["imagePullPolicy"] for v in spec["volumes"][::2]]
    assert policies == ["Always", "IfNotPresent"]


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({}, "spec", "Required value"),
        ({"template": {"spec": {}}}, "spec.runStrategy", "RunStrategy must be specified"),
        (
            {"running": True, "runStrategy": "Always", "template": {}},
            "spec.running",
            "mutually exclusive",
        ),
        ({"runStrategy": "Often", "template": {}}, "spec.runStrategy", "Often"),
        ({"runStrategy": "Always"}, "spec.template", "Required value"),
        (
            {"runStrategy": "Always", "template": {"spec": {"domain": {}}}},
            "spec.template.spec.domain.memory.guest",
            "no memory requested",
        ),
    ],
)
def test_rules_of_a_machine(spec: Doc, field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        vm(spec)
    found = {cause.field: cause.message for cause in caught.value.causes}
    assert field in found, found
    assert words in found[field]


DISK = {"name": "root", "containerDisk": {"image": "disk:1"}}
DISKS = "spec.domain.devices.disks"
INTERFACES = "spec.domain.devices.interfaces"


def with_disk(**fields: Any) -> Doc:
    return {"volumes": [DISK], "domain": {"devices": {"disks": [{"name": "root", **fields}]}}}


def with_interface(interface: Doc, network: Doc | None = None) -> Doc:
    networks = [network or {"name": "net", "pod": {}}]
    devices = {"interfaces": [{"name": "net", **interface}]}
    return {"networks": networks, "domain": {"devices": devices}}


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"domain": {"memory": {"guest": "1k"}}}, "spec.domain.memory.guest", "equal to 1M."),
        (
            {"domain": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
            "spec.domain.resources.requests.cpu",
            "is greater than",
        ),
        (
            {"domain": {"devices": {"disks": [{"name": "no"}]}}},
            f"{DISKS}[0].name",
            "'no' not found.",
        ),
        ({"volumes": [DISK, DISK]}, "spec.volumes[1].name", "must not have the same Name."),
        ({"volumes": [{"name": "a"}]}, "spec.volumes[0]", "exactly one source type"),
        (with_disk(disk={}, cdrom={}), f"{DISKS}[0]", "only have a single target type"),
        (with_disk(disk={"bus": "ide"}), f"{DISKS}[0].disk.bus", "IDE bus is not supported"),
        (with_disk(cdrom={"bus": "virtio"}), f"{DISKS}[0].cdrom.bus", "invalid for CD-ROM"),
        (with_disk(disk={"readonly": True}), f"{DISKS}[0].disk.bus", "do not support read-only."),
        (with_disk(disk={"bus": "floppy"}), f"{DISKS}[0].disk.bus", "unrecognized bus floppy"),
        (with_disk(bootOrder=0), f"{DISKS}[0].bootOrder", "boot order > 0"),
        (with_interface({}), f"{INTERFACES}[0]", "exactly one binding method"),
        (
            with_interface({"masquerade": {}, "model": "odd"}),
            f"{INTERFACES}[0].model",
            "not supported",
        ),
        (
            with_interface({"masquerade": {}, "macAddress": "x"}),
            f"{INTERFACES}[0].macAddress",
            "malformed MAC address",
        ),
        (
            with_interface({"masquerade": {}, "ports": [{"port": 0}]}),
            f"{INTERFACES}[0].ports[0].port",
            "Port field is mandatory.",
        ),
        (
            with_interface({"masquerade": {}}, {"name": "other", "pod": {}}),
            f"{INTERFACES}[0].name",
            "'net' not found.",
        ),
        (
            with_interface({"masquerade": {}}, {"name": "other", "pod": {}}),
            "spec.networks[0].name",
            "'other' not found.",
        ),
        (
            {"volumes": [{"name": "seed", "cloudInitNoCloud": {}}]},
            "spec.volumes[0].cloudInitNoCloud",
            "at least one userdatasource",
        ),
        (
            {"volumes": [{"name": "seed", "cloudInitNoCloud": {"userData": "x" * 2049}}]},
            "spec.volumes[0].cloudInitNoCloud.userData",
            "exceeds 2048 byte limit",
        ),
        (
            {"domain": {"machine": {"type": "pc"}}},
            "spec.domain.machine.type",
            "allowed values: [q35* pc-q35*]",
        ),
        (
            {"domain": {"firmware": {"kernelBoot": {"container": {"kernelPath": "/k"}}}}},
            "spec.domain.firmware.kernelBoot.container.image",
            "Required value",
        ),
        (
            {
                "domain": {
                    "firmware": {
                        "kernelBoot": {"container": {"image": "i", "kernelPath": "/a/../k"}}
                    }
                }
            },
            "spec.domain.firmware.kernelBoot.container.kernelPath",
            "without relative components",
        ),
        ({"hostname": "a.b"}, "spec.hostname", "RFC 1123 label"),
        ({"architecture": "arm64"}, "spec.architecture", "arm64"),
    ],
)
def test_rules_of_an_instance(spec: Doc, field: str, words: str) -> None:
    found = vmi_causes(**spec)
    assert field in found, found
    assert words in found[field]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            {"volumes": [{"name": "a", "memoryDump": {"claimName": "b"}}]},
            "spec.volumes[0].memoryDump",
        ),
        ({"domain": {"launchSecurity": {"sev": {}}}}, "spec.domain.launchSecurity"),
        ({"domain": {"devices": {"downwardMetrics": {}}}}, "spec.domain.devices.downwardMetrics"),
        ({"domain": {"devices": {"autoattachVSOCK": True}}}, "spec.domain.devices.autoattachVSOCK"),
        ({"livenessProbe": {"guestAgentPing": {}, "periodSeconds": 5}}, "spec.livenessProbe"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_path(spec: Doc, field: str) -> None:
    assert "not supported by Tandem" in vmi_causes(**spec)[field]


def test_the_same_faults_are_found_in_a_template() -> None:
    template = {"spec": {"domain": {"devices": {"disks": [{"name": "no"}]}}}}
    with pytest.raises(InvalidSpec) as caught:
        vm({"runStrategy": "Always", "template": template})
    fields = [cause.field for cause in caught.value.causes]
    assert "spec.template.spec.domain.devices.disks[0].name" in fields


def test_an_instance_does_not_change() -> None:
    old = vmi()
    new = copy.deepcopy(old)
    new["spec"]["hostname"] = "other"
    new["metadata"]["resourceVersion"] = "1"
    with pytest.raises(InvalidSpec, match="update of VMI object is restricted"):
        prepare_update(VIRTUAL_MACHINE_INSTANCE, new, old)
    same = copy.deepcopy(old)
    same["metadata"] |= {"labels": {"a": "b"}, "resourceVersion": "1"}
    prepare_update(VIRTUAL_MACHINE_INSTANCE, same, old)


def test_who_names_an_interface_is_told_what_it_can_do() -> None:
    doc = {"metadata": {"name": "db"}, "spec": with_interface({"masquerade": {}})}
    doc["spec"]["domain"]["memory"] = {"guest": "64Mi"}
    prepared = prepare_create(VIRTUAL_MACHINE_INSTANCE, doc, namespace="default")
    assert any("address translation" in warning for warning in prepared.warnings)
