"""Work per change does not grow with the number of objects.

The bounds are wider than what is promised (1.5 times, a second for a thousand): asyncio's debug mode
and a busy machine are in them, and what grows with the number of objects still breaks them.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.unit.control.plant import Plant

FEW, MANY, SAMPLE = 50, 800, 50


async def _make(plant: Plant, first: int, count: int) -> float:
    """Seconds of processor time for ``count`` Pods from create to Running."""
    started = time.process_time()
    for at in range(first, first + count, 50):
        numbers = range(at, min(at + 50, first + count))
        await asyncio.gather(*(plant.pod(f"pod-{number}") for number in numbers))
        await plant.settle()
    return time.process_time() - started


def _running(plant: Plant) -> int:
    pods = plant.store.list("pods").items
    return sum(1 for pod in pods if pod["status"]["phase"] == "Running")


@pytest.mark.slow
async def test_the_cost_of_a_change_is_flat(plant: Plant) -> None:
    await _make(plant, 0, FEW)
    few = min([await _make(plant, FEW + n * SAMPLE, SAMPLE) for n in range(3)])
    await _make(plant, FEW + 3 * SAMPLE, MANY)
    at = FEW + 3 * SAMPLE + MANY
    many = min([await _make(plant, at + n * SAMPLE, SAMPLE) for n in range(3)])
    assert _running(plant) == at + 3 * SAMPLE
    assert many < few * 2, f"{many / SAMPLE * 1e3:.2f} ms against {few / SAMPLE * 1e3:.2f} ms"

    started = time.process_time()
    await plant.restart()
    taken = time.process_time() - started
    per_thousand = taken / (at + 3 * SAMPLE) * 1000
    assert per_thousand < 2, f"adopting a thousand Pods took {per_thousand:.2f} s"
