"""VirtualMachineInstances and the domain XML made of them, each pair in a file of its own.

``cases/NAME.yaml`` is a manifest as a user writes it; ``cases/NAME.xml`` is the domain. After a change
that is meant, ``UPDATE_GOLDEN=1`` writes the files anew, and the difference is reviewed. That libvirt
takes each of them is tested in ``tests/integration/test_machines_real.py``.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem.api.kinds import VIRTUAL_MACHINE_INSTANCE
from tandem.api.kinds.machine_defaults import default_identity, default_instance
from tandem.api.rest import prepare_create
from tandem.errors import InvalidSpec
from tandem.host.machinefiles import DiskFile, MachineFiles
from tandem.runtimes.libvirt.parts.host import Given
from tandem.runtimes.libvirt.translate import domain_xml

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.stem for path in CASES.glob("*.yaml"))
DIRECTORY = Path("/var/lib/tandem/machines/uid")
UID = "6b7c39c2-7c31-4d3a-9a59-0d2b4a3f1c11"


def _vmi(name: str) -> dict[str, Any]:
    vmi: dict[str, Any] = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    if template := vmi["spec"].get("template"):  # of a VirtualMachine
        vmi = {"metadata": vmi["metadata"], "spec": template["spec"]}
    vmi["metadata"] = {"namespace": "default", "uid": UID, **vmi["metadata"]}
    default_identity(vmi["spec"], UID)
    default_instance(vmi["spec"])
    return vmi


def _files(vmi: dict[str, Any]) -> MachineFiles:
    """What ``tandem.host.disks`` would have made, as the images hold qcow2."""
    domain = vmi["spec"]["domain"]
    shared = {share["name"] for share in domain["devices"].get("filesystems") or ()}
    disks = {}
    for volume in vmi["spec"].get("volumes") or ():
        name = volume["name"]
        if name in shared:
            continue
        if "containerDisk" in volume:
            overlay, base = DIRECTORY / f"{name}.overlay.qcow2", DIRECTORY / f"{name}.qcow2"
            disks[name] = DiskFile(overlay, "qcow2", base, "qcow2")
        elif "ephemeral" in volume:
            overlay, base = DIRECTORY / f"{name}.overlay.qcow2", DIRECTORY / f"{name}.img"
            disks[name] = DiskFile(overlay, "qcow2", base, "raw", own_backing=True)
        elif "emptyDisk" in volume:
            disks[name] = DiskFile(DIRECTORY / f"{name}.qcow2", "qcow2")
        elif "hostDisk" in volume:
            disks[name] = DiskFile(Path(volume["hostDisk"]["path"]), "raw")
        elif "persistentVolumeClaim" in volume or "dataVolume" in volume:
            disks[name] = DiskFile(DIRECTORY / f"{name}.img", "raw")
        else:
            disks[name] = DiskFile(DIRECTORY / f"{name}.iso", "raw")
    container = domain["firmware"].get("kernelBoot", {}).get("container", {})
    return MachineFiles(
        disks,
        shares={name: DIRECTORY / name for name in shared},
        kernel=DIRECTORY / "kernel" if container.get("kernelPath") else None,
        initrd=DIRECTORY / "initrd" if container.get("initrdPath") else None,
        nvram=DIRECTORY / "nvram.fd" if "efi" in domain["firmware"].get("bootloader", {}) else None,
    )


def _given(vmi: dict[str, Any]) -> Given:
    """What a host would have given."""
    domain = vmi["spec"]["domain"]
    efi = domain["firmware"].get("bootloader", {}).get("efi")
    secure = ".secboot" if efi and efi.get("secureBoot") is not False else ""
    pinned = domain["cpu"].get("dedicatedCpuPlacement")
    return Given(
        cpus=(2, 3) if pinned else (),
        emulator_cpus=(1,) if pinned else (),
        loader=Path(f"/usr/share/OVMF/OVMF_CODE_4M{secure}.fd") if efi is not None else None,
        virtiofsd=Path("/usr/lib/qemu/virtiofsd"),
    )


def _xml(name: str) -> str:
    vmi = _vmi(name)
    return domain_xml(vmi, _files(vmi), _given(vmi))


@pytest.mark.parametrize("name", NAMES)
def test_the_domain_of_an_instance_is_as_recorded(name: str) -> None:
    made = _xml(name)
    golden = CASES / f"{name}.xml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(made)
    assert made == golden.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_case_is_admitted(name: str) -> None:
    vmi = _vmi(name)
    doc = {"metadata": {"name": vmi["metadata"]["name"]}, "spec": vmi["spec"]}
    prepare_create(VIRTUAL_MACHINE_INSTANCE, doc, namespace="default")


def test_there_are_cases() -> None:
    assert len(NAMES) > 5


def test_translation_does_not_change_the_instance() -> None:
    vmi = _vmi("everything")
    before = copy.deepcopy(vmi)
    domain_xml(vmi, _files(vmi))
    assert vmi == before


def test_an_instance_without_defaults_works() -> None:
    vmi = {
        "metadata": {"name": "vm", "namespace": "default"},
        "spec": {"domain": {"resources": {"requests": {"memory": "64Mi", "cpu": "1500m"}}}},
    }
    made = domain_xml(vmi, MachineFiles())
    assert '<vcpu placement="static">2</vcpu>' in made
    assert '<memory unit="b">67108864</memory>' in made
    assert made == domain_xml(copy.deepcopy(vmi), MachineFiles())


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"domain": {}}, "spec.domain.memory.guest"),
        (
            {"domain": {"memory": {"guest": "1Gi"}, "devices": {"disks": [{"name": "gone"}]}}},
            "spec.domain.devices.disks[0].name",
        ),
        (
            {"domain": {"memory": {"guest": "1Gi"}, "devices": {"interfaces": [{"name": "gone"}]}}},
            "spec.domain.devices.interfaces[0].name",
        ),
    ],
)
def test_what_admission_would_refuse_is_named(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        domain_xml({"metadata": {"name": "v", "namespace": "n"}, "spec": spec}, MachineFiles())
    assert [cause.field for cause in caught.value.causes] == [field]
