"""How much of the processors workloads and the host use: counters, read twice, made into rates.

Nothing is read while nobody asks. Who asks again within a minute is told of the time since they last
asked; for who asks first, or of what was started since, the counters are read twice, a second apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tandem.host import nodefacts
from tandem.host.nodefacts import HostUsage
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.runtimes.capabilities import Stats, Usage

_SHORTEST, _LONGEST = 1.0, 60.0  # seconds between two readings that make a rate


@dataclass(frozen=True, slots=True)
class Rate:
    """``cpu``: billionths of one processor. ``memory``: bytes."""

    cpu: int
    memory: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was used over the ``window`` (seconds) before ``moment``. ``workloads``: by the id of the
    workload and the name of its container."""

    moment: datetime
    window: float
    host: Rate
    workloads: Mapping[str, Mapping[str, Rate]]


@dataclass(frozen=True, slots=True)
class _Sample:
    """All counters at one moment (seconds of the monotonic clock)."""

    at: float
    host: HostUsage
    workloads: dict[str, Mapping[str, Usage]] = field(default_factory=dict)

    def each(self) -> Iterator[tuple[str, str]]:
        return ((id, name) for id, found in self.workloads.items() for name in found)

    def find(self, id: str, name: str) -> Usage | None:
        return self.workloads.get(id, {}).get(name)


class Meter:
    """Reads the counters of every runtime among ``adapters`` that has them."""

    def __init__(self, adapters: Mapping[str, RuntimeAdapter]) -> None:
        self._adapters = adapters
        self._lock = asyncio.Lock()
        self._last: _Sample | None = None
        self._reading: Reading | None = None

    async def read(self) -> Reading:
        """What is used now; one question for all who ask within a second. Raises what a runtime
        that is away does."""
        async with self._lock:
            age = time.monotonic() - self._last.at if self._last else _LONGEST
            if self._reading is not None and age < _SHORTEST:
                return self._reading
            before = self._last if age < _LONGEST else None
            sample = await self._sample()
            earlier = [before] if before else []
            if before is None or any(before.find(*key) is None for key in sample.each()):
                earlier.append(sample)
                await asyncio.sleep(_SHORTEST)
                sample = await self._sample()
            self._last, self._reading = sample, _rates(earlier, sample)
            return self._reading

    async def _sample(self) -> _Sample:
        metered = [adapter for adapter in self._adapters.values() if isinstance(adapter, Stats)]
        answers = await asyncio.gather(*(adapter.usage() for adapter in metered))
        found = {item.id: item.containers for answer in answers for item in answer}
        return _Sample(time.monotonic(), nodefacts.usage(), found)


def _rates(earlier: list[_Sample], sample: _Sample) -> Reading:
    """``earlier``: the oldest first; the first that knows a container counts for it."""
    workloads: dict[str, dict[str, Rate]] = {}
    for id, containers in sample.workloads.items():
        workloads[id] = rates = {}
        for name, usage in containers.items():
            known = [found for before in earlier if (found := before.find(id, name))]
            if known:
                rates[name] = _rate(known[0], usage)
    host, before = sample.host, earlier[0].host
    cpu = (host.cpu_nanoseconds - before.cpu_nanoseconds) / max(host.at - before.at, 1e-3)
    return Reading(
        moment=datetime.now(UTC),
        window=sample.at - earlier[0].at,
        host=Rate(max(0, round(cpu)), host.memory_bytes),
        workloads={id: rates for id, rates in workloads.items() if rates},
    )


def _rate(before: Usage, after: Usage) -> Rate:
    used = after.cpu_nanoseconds - before.cpu_nanoseconds
    if used < 0:  # started again in between, and counted from nothing
        used = after.cpu_nanoseconds
    return Rate(round(used / max(after.at - before.at, 1e-3)), after.memory_bytes)
