"""What the loops write is what the schema knows: clients check an object before they send it back."""

from __future__ import annotations

import pytest

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
