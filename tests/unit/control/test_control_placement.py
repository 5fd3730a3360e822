"""Pods that the node will not have, though they are its own."""

from __future__ import annotations

from typing import Any

from tandem.api.kind import Doc
from tandem.store import Key
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME


def asking(cpu: str) -> list[Doc]:
    resources = {"requests": {"cpu": cpu}}
    return [{"name": "main", "image": "demo:1", "command": ["serve"], "resources": resources}]


async def failed(plant: Plant, name: str, **spec: Any) -> Doc:
    await plant.pod(name, **spec)
    await plant.settle()
    status: Doc = plant.get("pods", name)["status"]
    assert status["phase"] == "Failed"
    assert "containerStatuses" not in status
    assert plant.uid("pods", name) not in {id for _, id in plant.containers.workloads}
    return status


async def test_a_sysctl_that_reaches_beyond_the_pod_is_refused(plant: Plant) -> None:
    sysctls = [{"name": "kernel.msgmax", "value": "65536"}]
    status = await failed(plant, "web", securityContext={"sysctls": sysctls})
    assert status["reason"] == "SysctlForbidden"
    told = 'forbidden sysctl: "kernel.msgmax" not allowlisted'
    assert status["message"] == f"Pod was rejected: {told}"
    assert ("Warning", "SysctlForbidden", told) in plant.events("web")


async def test_a_pod_that_names_its_node_is_asked_there_whether_it_fits(plant: Plant) -> None:
    await plant.pod("big", containers=asking("3"))
    await plant.settle()
    status = await failed(plant, "more", nodeName="node-1", containers=asking("2"))
    assert status["reason"] == "OutOfcpu"
    await plant.pod("small", nodeName="node-1", containers=asking("1"))
    await plant.settle()
    assert plant.phase("pods", "small") == "Running"
    assert plant.phase("pods", "big") == "Running"


async def test_a_pod_whose_scheduler_is_another_waits_for_its_binding(plant: Plant) -> None:
    await plant.pod("web", schedulerName="mine")
    await plant.settle()
    assert plant.phase("pods", "web") == "Pending"

    doc = plant.get("pods", "web")
    doc["spec"]["nodeName"] = "node-1"
    await plant.store.update(Key("pods", "default", "web"), doc)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"
