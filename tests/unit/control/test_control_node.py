"""The Node: what the daemon says of its host, and what users write on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tandem.api.kind import Doc
from tandem.errors import InvalidSpec
from tandem.host import nodefacts
from tandem.host.nodefacts import Identity, Pressure
from tests.unit.control.plant import FAKE_TIME, NODE, Plant

pytestmark = FAKE_TIME

NAME = NODE.name


def said(plant: Plant) -> list[str]:
    return plant.reasons(NAME)


async def test_the_node_tells_of_its_host(plant: Plant) -> None:
    node = plant.get("nodes", NAME)
    labels, status = node["metadata"]["labels"], node["status"]
    assert labels["kubernetes.io/hostname"] == NAME
    assert labels["kubernetes.io/os"] == "linux"
    assert status["capacity"]["memory"] == f"{8 << 20}Ki"
    assert status["capacity"]["cpu"] == "4"
    assert status["addresses"][0] == {"type": "InternalIP", "address": "192.0.2.10"}
    assert status["nodeInfo"]["containerRuntimeVersion"] == "memory://1"
    assert status["nodeInfo"]["kubeletVersion"].startswith("v1.32")
    ready = plant.condition("nodes", NAME, "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
    assert ready["message"] == "kubelet is posting ready status"
    assert said(plant) == []  # nothing has turned


async def test_it_is_written_when_something_turns_and_not_before(plant: Plant) -> None:
    revision = plant.get("nodes", NAME)["metadata"]["resourceVersion"]
    await asyncio.sleep(600)
    assert plant.get("nodes", NAME)["metadata"]["resourceVersion"] == revision
    plant.containers.available = False
    await asyncio.sleep(10)
    ready = plant.condition("nodes", NAME, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
    assert ready["message"].startswith("container runtime is down: ")
    plant.containers.available = True
    await asyncio.sleep(10)
    assert plant.condition("nodes", NAME, "Ready")["status"] == "True"
    assert said(plant) == ["NodeNotReady", "NodeReady"]
    assert plant.events(NAME)[0][2] == f"Node {NAME} status is now: NodeNotReady"


async def test_pressure_is_told(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodefacts, "pressure", lambda _: Pressure(disk=True))
    await asyncio.sleep(15)
    disk = plant.condition("nodes", NAME, "DiskPressure")
    assert (disk["status"], disk["reason"]) == ("True", "KubeletHasDiskPressure")
    assert plant.condition("nodes", NAME, "MemoryPressure")["status"] == "False"
    assert said(plant) == ["NodeHasDiskPressure"]


async def test_what_users_write_on_it_stays(plant: Plant) -> None:
    def mark(doc: Doc) -> None:
        doc["metadata"]["labels"]["disk"] = "ssd"
        doc["metadata"]["labels"]["kubernetes.io/hostname"] = "another"
        doc["metadata"].setdefault("annotations", {})["note"] = "mine"
        doc["spec"]["taints"] = [{"key": "gpu", "effect": "NoSchedule"}]
        doc["spec"]["unschedulable"] = True

    await plant.update("nodes", NAME, mark)
    await plant.restart()
    await asyncio.sleep(15)
    node = plant.get("nodes", NAME)
    assert node["metadata"]["labels"]["disk"] == "ssd"
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == NAME
    assert node["metadata"]["annotations"] == {"note": "mine"}
    assert node["spec"]["taints"] == [{"key": "gpu", "effect": "NoSchedule"}]
    assert node["spec"]["unschedulable"] is True
    assert said(plant) == ["NodeNotSchedulable"]


async def test_deleted_it_comes_back(plant: Plant) -> None:
    before = plant.uid("nodes", NAME)
    await plant.delete("nodes", NAME)
    await plant.settle()
    assert plant.uid("nodes", NAME) != before
    assert plant.condition("nodes", NAME, "Ready")["status"] == "True"


async def test_a_reboot_is_told(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Identity("amd64", "6.1", "Linux", "", "", "another-boot", 1 << 30, {2048: 4 << 20})
    monkeypatch.setattr(nodefacts, "identity", lambda _: other)
    await plant.restart()
    node = plant.get("nodes", NAME)["status"]
    assert node["nodeInfo"]["bootID"] == "another-boot"
    assert node["capacity"]["hugepages-2Mi"] == "4Mi"
    assert node["allocatable"]["memory"] == f"{(8 << 20) - (4 << 10)}Ki"
    await asyncio.sleep(1)
    assert plant.events(NAME) == [
        ("Warning", "Rebooted", f"Node {NAME} has been rebooted, boot id: another-boot")
    ]


@pytest.mark.parametrize(
    ("taints", "field"),
    [
        ([{"key": "a"}], "spec.taints[0].effect"),
        ([{"key": "a", "effect": "Never"}], "spec.taints[0].effect"),
        ([{"key": "a b", "effect": "NoSchedule"}], "spec.taints[0].key"),
        ([{"key": "a", "effect": "NoSchedule"}] * 2, "spec.taints[1]"),
    ],
)
async def test_a_wrong_taint_is_refused(plant: Plant, taints: list[Doc], field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        await plant.update("nodes", NAME, lambda doc: doc["spec"].update(taints=taints))
    assert field in [cause.field for cause in refused.value.causes]


async def test_a_lease_holds_positive_numbers(plant: Plant) -> None:
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15}
    await plant.create("leases", {"metadata": {"name": "lead"}, "spec": spec})
    with pytest.raises(InvalidSpec, match="must be greater than 0"):
        await plant.update("leases", "lead", lambda doc: doc["spec"].update(leaseDurationSeconds=0))


def test_the_host_is_read_from_its_files(tmp_path: Path) -> None:
    files = {
        "etc/os-release": 'NAME=x\nPRETTY_NAME="Some Linux 12"\n',
        "etc/machine-id": "abc\n",
        "proc/sys/kernel/random/boot_id": "b-o-o-t\n",
        "proc/sys/kernel/pid_max": "1000\n",
        "proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 50000 kB\n",
        "proc/loadavg": "0.1 0.2 0.3 2/990 77\n",
        "proc/stat": "cpu  100 0 50 1000 20 0 0 30 5 0\ncpu0 1\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "3\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    facts = nodefacts.identity(tmp_path / "not" / "there", tmp_path)
    assert (facts.os_image, facts.machine_id, facts.boot_id) == ("Some Linux 12", "abc", "b-o-o-t")
    assert facts.hugepages == {2048: 3 * 2048 * 1024}
    assert facts.storage_bytes > 0
    short = nodefacts.pressure(tmp_path, tmp_path)
    assert short.memory
    assert short.processes
    used = nodefacts.usage(tmp_path)
    assert used.cpu_nanoseconds == 180 * 10_000_000
    assert used.memory_bytes == 950_000 * 1024
