"""What the loops write is what the schema knows: clients check an object before they send it back."""

from __future__ import annotations

import asyncio

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import REGISTRY
from tandem.api.schema import check
from tests.unit.control.plant import Plant


@pytest.mark.parametrize("plural", ["pods", "virtualmachines", "virtualmachineinstances"])
async def test_a_running_object_has_no_field_that_its_schema_does_not_know(
    plant: Plant, plural: str
) -> None:
    await plant.pod("one")
    await plant.vm("one")
    await plant.settle()
    doc = plant.get(plural, "one")
    (kind,) = (kind for kind in REGISTRY if kind.plural == plural)
    report = check(doc, kind.schema)
    assert doc["status"]["conditions"]
    assert (report.unknown_fields, report.causes) == ([], [])


@pytest.mark.parametrize("plural", ["deployments", "replicasets", "jobs"])
async def test_an_owner_has_no_field_that_its_schema_does_not_know(
    plant: Plant, plural: str
) -> None:
    container: Doc = {"name": "main", "image": "demo:1", "command": ["serve"]}
    template: Doc = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    spec: Doc = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    if plural == "jobs":
        container["command"] = ["true"]
        template["spec"]["restartPolicy"] = "Never"
        spec = {"template": template, "completionMode": "Indexed", "completions": 2}
    await plant.create(plural, {"metadata": {"name": "one"}, "spec": spec})
    for _ in range(20):
        await asyncio.sleep(0.01)
        await plant.settle()
    doc = plant.get(plural, "one")
    (kind,) = (kind for kind in REGISTRY if kind.plural == plural)
    report = check(doc, kind.schema)
    assert doc["status"]["observedGeneration" if plural != "jobs" else "conditions"]
    assert (report.unknown_fields, report.causes) == ([], [])
