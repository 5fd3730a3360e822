"""KubeVirt's admission of an instance, rule by rule: the field it names and the sentence it says."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import VIRTUAL_MACHINE, VIRTUAL_MACHINE_INSTANCE
from tandem.api.rest import prepare_create, prepare_update
from tandem.errors import InvalidSpec

DOMAIN = "spec.domain"
DISK = f"{DOMAIN}.devices.disks[0]"
NIC = f"{DOMAIN}.devices.interfaces[0]"
VOLUME = "spec.volumes[0]"


def create(spec: Doc, **metadata: Any) -> Doc:
    spec = copy.deepcopy(spec)
    domain = spec.setdefault("domain", {})
    if not domain.get("resources") and "memory" not in domain:
        domain["memory"] = {"guest": "64Mi"}
    doc = {"metadata": {"name": "vm", **metadata}, "spec": spec}
    return prepare_create(VIRTUAL_MACHINE_INSTANCE, doc, namespace="default").doc


def refused(spec: Doc, **metadata: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as caught:
        create(spec, **metadata)
    return [(cause.field, cause.message) for cause in caught.value.causes]


def domain(**fields: Any) -> Doc:
    return {"domain": fields}


def cpu(**fields: Any) -> Doc:
    return domain(cpu=fields, memory={"guest": "64Mi"})


def devices(**fields: Any) -> Doc:
    return domain(devices=fields)


def disk(**fields: Any) -> Doc:
    volumes = [{"name": "root", "containerDisk": {"image": "disk:1"}}]
    return {"volumes": volumes, **devices(disks=[{"name": "root", **fields}])}


def volume(**source: Any) -> Doc:
    return {"volumes": [{"name": "data", **source}]}


def nic(**fields: Any) -> Doc:
    interfaces = [{"name": "net", "masquerade": {}, **fields}]
    return {"networks": [{"name": "net", "pod": {}}], **devices(interfaces=interfaces)}


def firmware(**fields: Any) -> Doc:
    return domain(firmware=fields)


RULES: list[tuple[Doc, str, str]] = [
    # memory and resources
    (domain(memory={}), f"{DOMAIN}.memory.guest", f"no memory requested, at least one of '{DOMAIN}.memory.guest', '{DOMAIN}.memory.hugepages.pageSize' or '{DOMAIN}.resources.requests.memory' must be set"),
    (domain(resources={"requests": {"memory": "64k"}}), f"{DOMAIN}.resources.requests.memory", f"{DOMAIN}.resources.requests.memory '64k': must be greater than or equal to 1M."),
    (domain(resources={"requests": {"memory": "-64Mi"}}), f"{DOMAIN}.resources.requests.memory", f"{DOMAIN}.resources.requests.memory '-64Mi': must be greater than or equal to 0."),
    (domain(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}), f"{DOMAIN}.resources.requests.memory", f"{DOMAIN}.resources.requests.memory '2Gi' is greater than {DOMAIN}.resources.limits.memory '1Gi'"),
    (domain(resources={"requests": {"memory": "1Gi", "cpu": "-1"}}), f"{DOMAIN}.resources.requests.cpu", f"{DOMAIN}.resources.requests.cpu '-1': must be greater than or equal to 0."),
    (domain(memory={"guest": "3Mi", "hugepages": {"pageSize": "2Mi"}}), f"{DOMAIN}.memory.hugepages.pageSize", f"{DOMAIN}.memory.guest '3145728' is not a multiple of the page size {DOMAIN}.memory.hugepages.pageSize '2Mi'"),
    (domain(memory={"guest": "2Gi", "maxGuest": "1Gi"}), f"{DOMAIN}.memory.guest", "Guest memory is greater than the configured maxGuest memory"),
    # processor
    (cpu(sockets=4, maxSockets=2), f"{DOMAIN}.cpu.sockets", "Number of sockets in CPU topology is greater than the maximum sockets allowed"),
    (cpu(features=[{"name": "aes", "policy": "want"}]), f"{DOMAIN}.cpu.features[0].policy", "CPU feature aes uses policy want that is not supported."),
    (cpu(isolateEmulatorThread=True), f"{DOMAIN}.cpu.isolateEmulatorThread", "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement"),
    (cpu(dedicatedCpuPlacement=True, cores=1, threads=3), f"{DOMAIN}.cpu.dedicatedCpuPlacement", f"Not more than two threads must be provided at {DOMAIN}.cpu.threads (got 3) when DedicatedCPUPlacement is true"),
    (domain(cpu={"dedicatedCpuPlacement": True}, resources={"limits": {"cpu": "1500m", "memory": "64Mi"}}), f"{DOMAIN}.resources.limits.cpu", "provided resources CPU limits must be an interger"),
    (domain(cpu={"dedicatedCpuPlacement": True, "cores": 3}, resources={"limits": {"cpu": "2", "memory": "64Mi"}}), f"{DOMAIN}.cpu.dedicatedCpuPlacement", f"{DOMAIN}.resources.requests.cpu or {DOMAIN}.resources.limits.cpu must not be provided at the same time with {DOMAIN}.cpu.cores when DedicatedCPUPlacement is true "),
    (domain(cpu={"dedicatedCpuPlacement": True, "cores": 1}, resources={"requests": {"memory": "64Mi"}, "limits": {"memory": "65Mi"}}), f"{DOMAIN}.resources.requests.memory", f"{DOMAIN}.resources.requests.memory must be equal to {DOMAIN}.resources.limits.memory"),
    (cpu(cores=1, dedicatedCpuPlacement=True, numa={"guestMappingPassthrough": {}}), f"{DOMAIN}.cpu.numa.guestMappingPassthrough", f"{DOMAIN}.memory.hugepages must be requested when NUMA topology strategy is set in {DOMAIN}.cpu.numa.guestMappingPassthrough"),
    # board and firmware
    (domain(machine={"type": "pc-i440fx-7.2"}), f"{DOMAIN}.machine.type", f"{DOMAIN}.machine.type is not supported: pc-i440fx-7.2 (allowed values: [q35* pc-q35*])"),
    (firmware(bootloader={"efi": {}, "bios": {}}), f"{DOMAIN}.firmware.bootloader", f"{DOMAIN}.firmware.bootloader has both EFI and BIOS configured, but they are mutually exclusive."),
    (firmware(bootloader={"efi": {}}), DOMAIN, f"{DOMAIN} has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."),
    (firmware(serial="a b"), f"{DOMAIN}.firmware.serial", f"{DOMAIN}.firmware.serial must be made up of the following characters [A-Za-z0-9_.+-], if specified"),
    (firmware(serial="a" * 257), f"{DOMAIN}.firmware.serial", f"{DOMAIN}.firmware.serial must be less than or equal to 256 in length, if specified"),
    (firmware(kernelBoot={"kernelArgs": "quiet"}), f"{DOMAIN}.firmware.kernelBoot.kernelArgs", "kernel arguments cannot be provided without an external kernel"),
    (firmware(kernelBoot={"container": {"image": "", "kernelPath": "/k"}}), f"{DOMAIN}.firmware.kernelBoot.container.image", f"{DOMAIN}.firmware.kernelBoot.container must be defined with an image"),
    (firmware(kernelBoot={"container": {"image": "i"}}), f"{DOMAIN}.firmware.kernelBoot.container", f"{DOMAIN}.firmware.kernelBoot.container must be defined with at least one of the following: kernelPath, initrdPath"),
    (firmware(kernelBoot={"container": {"image": "i", "kernelPath": "/"}}), f"{DOMAIN}.firmware.kernelBoot.container.kernelPath", f"{DOMAIN}.firmware.kernelBoot.container.kernelPath must not point to root"),
    (domain(features={"hyperv": {"synic": {}, "vpindex": {"enabled": False}}}), f"{DOMAIN}.features.hyperv.synic", f"{DOMAIN}.features.hyperv.synic requires {DOMAIN}.features.hyperv.vpindex, which is disabled"),
    (domain(features={"hyperv": {}, "hypervPassthrough": {}}), f"{DOMAIN}.features.hyperv", "Cannot explicitly set hyperV features if HypervPassthrough is being used. Please use either HyperV or HypervPassthrough."),
    (domain(clock={"timezone": "Mars/Olympus"}), f"{DOMAIN}.clock.timezone", f"{DOMAIN}.clock.timezone 'Mars/Olympus' is not a known time zone"),
    # disks
    (devices(disks=[{"name": "no", "disk": {}}]), f"{DISK}.name", f"{DISK}.Name 'no' not found."),
    (disk(disk={}, lun={}), DISK, f"{DISK} can only have a single target type defined"),
    (disk(disk={"bus": "ide"}), f"{DISK}.disk.bus", "IDE bus is not supported"),
    (disk(cdrom={"bus": "virtio"}), f"{DISK}.cdrom.bus", "Bus type virtio is invalid for CD-ROM device"),
    (disk(disk={"bus": "sata", "readonly": True}), f"{DISK}.disk.bus", "sata hard-disks do not support read-only."),
    (disk(disk={"bus": "nvme"}), f"{DISK}.disk.bus", f"{DISK} is set with an unrecognized bus nvme, must be one of: [virtio scsi sata usb]"),
    (disk(lun={}), f"{DISK}.lun", f"{DISK}.lun can only be mapped to a DataVolume or PersistentVolumeClaim volume."),
    (disk(bootOrder=0), f"{DISK}.bootOrder", f"{DISK} must have a boot order > 0, if supplied"),
    (disk(serial="a/b"), f"{DISK}.serial", f"{DISK} must be made up of the following characters [A-Za-z0-9_.+-], if specified"),
    (disk(cache="unsafe"), f"{DISK}.cache", f"{DISK}.cache has invalid value unsafe"),
    (disk(io="uring"), f"{DISK}.io", f"Disk IO mode for {DISK} is not supported. Supported modes are: native, threads."),
    (disk(errorPolicy="retry"), f"{DISK}.errorPolicy", f'{DISK}.errorPolicy has invalid value "retry"'),
    (disk(disk={"bus": "sata"}, dedicatedIOThread=True), DISK, "IOThreads are not supported for disks on a sata bus"),
    (disk(blockSize={"custom": {"logical": 4096, "physical": 512}}), f"{DISK}.blockSize.custom.logical", "Logical size 4096 must be the same or less than the physical size of 512"),
    (disk(blockSize={"custom": {"logical": 512, "physical": 1000}}), f"{DISK}.blockSize.custom.physical", "Provided size of 1000 is not a power of 2"),
    (devices(filesystems=[{"name": "no", "virtiofs": {}}]), f"{DOMAIN}.devices.filesystems[0].name", f"{DOMAIN}.devices.filesystems[0].name 'no' not found."),
    # volumes
    (volume(), VOLUME, f"{VOLUME} must have exactly one source type set"),
    (volume(containerDisk={"image": "a"}, emptyDisk={"capacity": "1Gi"}), VOLUME, f"{VOLUME} must have exactly one source type set"),
    ({"volumes": [{"name": "a", "emptyDisk": {"capacity": "1Gi"}}] * 2}, "spec.volumes[1].name", "spec.volumes[0] and spec.volumes[1] must not have the same Name."),
    (volume(containerDisk={"image": "a", "path": "disk.img"}), f"{VOLUME}.containerDisk", f"{VOLUME}.containerDisk must be an absolute path to a file without relative components"),
    (volume(containerDisk={"image": "a", "path": "/"}), f"{VOLUME}.containerDisk", f"{VOLUME}.containerDisk must not point to root"),
    (volume(cloudInitNoCloud={}), f"{VOLUME}.cloudInitNoCloud", f"{VOLUME}.cloudInitNoCloud must have at least one userdatasource or one networkdatasource set."),
    (volume(cloudInitConfigDrive={"userData": "a", "userDataBase64": "YQ=="}), f"{VOLUME}.cloudInitConfigDrive", f"{VOLUME}.cloudInitConfigDrive must have only one userdatasource set."),
    (volume(cloudInitNoCloud={"userData": "x" * 2049}), f"{VOLUME}.cloudInitNoCloud.userData", f"{VOLUME}.cloudInitNoCloud userdata exceeds 2048 byte limit. Should use UserDataSecretRef for larger data."),
    (volume(cloudInitNoCloud={"networkData": "x" * 2049}), f"{VOLUME}.cloudInitNoCloud.networkData", f"{VOLUME}.cloudInitNoCloud networkdata exceeds 2048 byte limit. Should use NetworkDataSecretRef for larger data."),
    (volume(cloudInitNoCloud={"userDataBase64": "%"}), f"{VOLUME}.cloudInitNoCloud.userDataBase64", f"{VOLUME}.cloudInitNoCloud.userDataBase64 is not a valid base64 value."),
    (volume(hostDisk={"type": "Disk", "path": ""}), f"{VOLUME}.hostDisk.path", f"{VOLUME}.hostDisk.path is required for hostDisk volume"),
    (volume(hostDisk={"type": "Folder", "path": "/a"}), f"{VOLUME}.hostDisk.type", f"{VOLUME}.hostDisk.type has invalid value 'Folder', allowed are 'Disk' or 'DiskOrCreate'"),
    (volume(hostDisk={"type": "Disk", "path": "/a", "capacity": "1Gi"}), f"{VOLUME}.hostDisk.capacity", f"{VOLUME}.hostDisk.capacity is allowed to pass only with {VOLUME}.hostDisk.type equal to 'DiskOrCreate'"),
    (volume(hostDisk={"type": "Disk", "path": "/a/../etc/shadow"}), f"{VOLUME}.hostDisk.path", f"{VOLUME}.hostDisk.path must be an absolute path to a file without relative components"),
    (volume(dataVolume={"name": ""}), f"{VOLUME}.name", "DataVolume 'name' must be set"),
    (volume(configMap={"name": ""}), f"{VOLUME}.configMap.name", f"{VOLUME}.configMap.name is a required field"),
    (volume(secret={"optional": True}), f"{VOLUME}.secret.secretName", f"{VOLUME}.secret.secretName is a required field"),
    ({"volumes": [{"name": n, "serviceAccount": {"serviceAccountName": "default"}} for n in "ab"]}, "spec.volumes", "spec.volumes must have max one serviceAccount volume set"),
    # networks
    (nic(model="ne2k"), f"{NIC}.model", f"interface {NIC}.name uses model ne2k that is not supported."),
    (nic(macAddress="nonsense"), f"{NIC}.macAddress", f"interface {NIC}.name has malformed MAC address (nonsense)."),
    (nic(bridge={}), NIC, "logical net interface must have exactly one binding method or binding plugin"),
    (nic(ports=[{"port": 0}]), f"{NIC}.ports[0].port", "Port field is mandatory."),
    (nic(ports=[{"port": 80000}]), f"{NIC}.ports[0].port", "Port field must be in range 0 < x < 65536."),
    (nic(ports=[{"port": 80, "protocol": "SCTP"}]), f"{NIC}.ports[0].protocol", "Unknown protocol, only TCP or UDP allowed"),
    (nic(ports=[{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]), f"{NIC}.ports[1].name", "Duplicate name of the port: a"),
    ({**nic(), "networks": [{"name": "net", "pod": {}}, {"name": "b", "pod": {}}]}, f"{DOMAIN}.devices.interfaces", f"more than one interface is connected to a pod network in {DOMAIN}.devices.interfaces"),
    ({**nic(), "networks": [{"name": "net"}]}, "spec.networks[0]", "should have a network type"),
    ({**nic(), "networks": [{"name": "net", "pod": {}, "multus": {"networkName": "a"}}]}, "spec.networks[0]", "should have only one network type"),
    ({"networks": [{"name": "lonely", "pod": {}}]}, "spec.networks[0].name", "spec.networks[0].name 'lonely' not found."),
    (nic(name="other"), f"{NIC}.name", f"{NIC}.name 'other' not found."),
    ({**nic(), "networks": [{"name": "net", "multus": {"networkName": "lan"}}]}, f"{NIC}.name", "Masquerade interface only implemented with pod network"),
    # devices
    (devices(inputs=[{"name": "a", "type": "mouse", "bus": "usb"}]), f"{DOMAIN}.devices.inputs[0].type", "Input device can have only tablet type."),
    (devices(inputs=[{"name": "a", "type": "tablet", "bus": "ps2"}]), f"{DOMAIN}.devices.inputs[0].bus", "Input device can have only virtio or usb bus."),
    (devices(sound={"name": "a", "model": "sb16"}), f"{DOMAIN}.devices.sound.model", "Sound device type is not supported. Options: 'ich9' or 'ac97'"),
    (domain(ioThreadsPolicy="many"), f"{DOMAIN}.ioThreadsPolicy", "Invalid IOThreadsPolicy (many)"),
    # who and where
    ({"hostname": "not_a_label"}, "spec.hostname", "spec.hostname does not conform to the kubernetes DNS_LABEL rules : "),
    ({"evictionStrategy": "Flee"}, "spec.evictionStrategy", "spec.evictionStrategy is set with an unrecognized option: Flee"),
    ({"livenessProbe": {"periodSeconds": 5}}, "spec.livenessProbe", "either spec.livenessProbe.tcpSocket, spec.livenessProbe.exec or spec.livenessProbe.httpGet must be set if a spec.livenessProbe is specified"),
    ({**domain(devices={"autoattachPodInterface": False}), "networks": [{"name": "a", "multus": {"networkName": "b"}}], "readinessProbe": {"tcpSocket": {"port": 1}}}, "spec.readinessProbe.tcpSocket", "spec.readinessProbe.tcpSocket is only allowed if the Pod Network is attached"),
    ({"accessCredentials": [{"sshPublicKey": {"source": {"secret": {"secretName": "k"}}, "propagationMethod": {"noCloud": {}}}}]}, "spec.accessCredentials[0].sshPublicKey.propagationMethod", "spec.accessCredentials[0] requires a noCloud volume to exist when the noCloud propagationMethod is in use."),
    # what is not there
    (devices(gpus=[{"name": "g", "deviceName": "nvidia.com/TU104"}]), f"{DOMAIN}.devices.gpus[0].deviceName", "this host offers no device 'nvidia.com/TU104'"),
    ({**nic(masquerade=None, sriov={}), "networks": [{"name": "net", "multus": {"networkName": "sriov/a"}}]}, f"{NIC}.sriov", "this host offers no SR-IOV device for the network 'net'"),
    ({**nic(masquerade=None, bridge={}), "networks": [{"name": "net", "multus": {"networkName": "lan"}}]}, "spec.networks[0].multus.networkName", "this host has no network 'lan'"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "message"), RULES)
def test_a_rule_names_its_field_in_kubevirts_words(spec: Doc, field: str, message: str) -> None:
    found = refused(spec)
    assert any(where == field and words.startswith(message) for where, words in found), found


def test_a_template_is_held_to_the_same_rules_by_its_own_paths() -> None:
    template = {"spec": {**disk(disk={"bus": "ide"})}}
    template["spec"]["domain"]["memory"] = {"guest": "64Mi"}
    doc = {"metadata": {"name": "vm"}, "spec": {"runStrategy": "Always", "template": template}}
    with pytest.raises(InvalidSpec) as caught:
        prepare_create(VIRTUAL_MACHINE, doc, namespace="default")
    (cause,) = caught.value.causes
    assert cause.field == "spec.template.spec.domain.devices.disks[0].disk.bus"


def test_labels_of_the_system_are_not_for_users() -> None:
    reserved = {"kubevirt.io/nodeName": "elsewhere"}
    ((field, message),) = refused({}, labels=reserved)
    assert (field, message[:11]) == ("metadata.labels", "creation of")
    old = create({})
    new = copy.deepcopy(old)
    new["metadata"] |= {"labels": reserved, "resourceVersion": "1"}
    with pytest.raises(InvalidSpec, match="modification of the following reserved"):
        prepare_update(VIRTUAL_MACHINE_INSTANCE, new, old)


@pytest.mark.parametrize(
    "annotation", ["hooks.kubevirt.io/hookSidecars", "kubevirt.io/ignitiondata"]
)
def test_what_would_speak_to_qemu_directly_is_behind_a_gate(annotation: str) -> None:
    ((field, message),) = refused({}, annotations={annotation: "[]"})
    assert field == "metadata.annotations"
    assert message.endswith(
        f"gate is not enabled in kubevirt-config, invalid entry metadata.annotations.{annotation}"
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (volume(hostDisk={"type": "DiskOrCreate", "path": "/a", "capacity": "1Gi"}), "spec.volumes[0].hostDisk: KubeVirt takes it only where its feature gate HostDisk is enabled"),
        (cpu(cores=1, dedicatedCpuPlacement=True), "spec.domain.cpu.dedicatedCpuPlacement: the processors are this machine's alone among machines"),
        (devices(video={"type": "virtio"}), "spec.domain.devices.video: KubeVirt takes it only where its feature gate VideoConfig is enabled"),
        ({**devices(filesystems=[{"name": "data", "virtiofs": {}}]), **volume(configMap={"name": "a"})}, "spec.domain.devices.filesystems[0]: KubeVirt takes it only where"),
        (cpu(maxSockets=8), "spec.domain.cpu.maxSockets has no effect"),
    ],
)  # fmt: skip
def test_what_a_cluster_would_not_take_is_warned_about(spec: Doc, words: str) -> None:
    spec = copy.deepcopy(spec)
    spec.setdefault("domain", {}).setdefault("memory", {"guest": "64Mi"})
    doc = {"metadata": {"name": "vm"}, "spec": spec}
    prepared = prepare_create(VIRTUAL_MACHINE_INSTANCE, doc, namespace="default")
    assert any(warning.startswith(words) for warning in prepared.warnings), prepared.warnings
