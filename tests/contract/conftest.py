"""Runs every test of the suite over every harness, and checks after each that nothing is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tandem.runtimes.adapter import RuntimeAdapter
from tests.contract.harness import Harness, discover

HARNESSES = discover()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per harness; with ``step``, one per step; with ``needs``, only where it is offered."""
    if "harness_class" not in metafunc.fixturenames:
        return
    needs = [mark.args[0] for mark in metafunc.definition.iter_markers("needs")]
    classes = [cls for cls in HARNESSES if all(cls.can(need) for need in needs)]
    if "step" in metafunc.fixturenames:
        pairs = [
            pytest.param(cls, step, id=f"{cls.name}-{step}", marks=cls.marks)
            for cls in classes
            for step in cls.steps
        ]
        metafunc.parametrize(("harness_class", "step"), pairs, scope="session")
    else:
        params = [pytest.param(cls, id=cls.name, marks=cls.marks) for cls in classes]
        metafunc.parametrize("harness_class", params, scope="session")


@pytest.fixture(scope="session")
def world(harness_class: type[Harness], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What the tests of one adapter share."""
    with harness_class.open_world(tmp_path_factory) as opened:
        yield opened


@pytest.fixture
async def harness(
    harness_class: type[Harness], world: Any, tmp_path: Path
) -> AsyncIterator[Harness]:
    """The adapter under test; afterwards nothing of ours may be left, whatever the test did."""
    instance = harness_class(world, tmp_path)
    assert list(await instance.leftovers()) == [], "something was left before this test"
    yield instance
    for owner in ("tandem", "other"):
        async with instance.make_adapter(owner) as adapter:
            for status in await adapter.list():
                await adapter.delete(status.spec_id, grace_seconds=0)
    assert list(await instance.leftovers()) == []


@pytest.fixture
async def adapter(harness: Harness) -> AsyncIterator[RuntimeAdapter]:
    """An adapter of the default owner."""
    async with harness.make_adapter() as opened:
        yield opened
