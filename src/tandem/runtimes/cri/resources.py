"""CPU and memory of a container: from ``v1`` ResourceRequirements to what the kernel is told.

The kernel's units and the out-of-memory scores are those that Kubernetes' nodes use, so that a
workload behaves the same on both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tandem.api.quantity import to_bytes, to_millis
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.reader import Reader

_CPU_PERIOD = 100_000  # microseconds, the kernel's own default
_MIN_QUOTA = 1_000  # microseconds, the least that the kernel takes
_MIN_SHARES, _MAX_SHARES, _SHARES_PER_CPU = 2, 262_144, 1_024
_COMMON = ("cpu", "memory", "ephemeral-storage")  # of the last, the runtime gives out nothing
_HUGE_PAGES = "hugepages-"
_MIN_MEMORY = 6 << 20  # runc itself does not start in less

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"


@dataclass(frozen=True, slots=True)
class Resources:
    """What one container asks for: millicores and bytes, None where it does not say. ``huge_pages``:
    bytes of pages of a size, which is as the kernel names it (``2MB``)."""

    cpu_request: int | None = None
    cpu_limit: int | None = None
    memory_request: int | None = None
    memory_limit: int | None = None
    huge_pages: tuple[tuple[str, int], ...] = ()

    @classmethod
    def read(cls, reader: Reader) -> Resources:
        """From a container's ``resources``. A limit without a request is the request too."""
        limits, requests = reader.child("limits"), reader.child("requests")
        reader.refuse("claims", why="there are no resource claims on this runtime")
        for part in (limits, requests):
            for key in part.keys():  # noqa: SIM118  (a Reader is no mapping)
                if key not in _COMMON and not key.startswith(_HUGE_PAGES):
                    part.refuse(key, why="this runtime gives out cpu, memory and huge pages")
        cpu_limit = _quantity(limits, "cpu")
        memory_limit = _quantity(limits, "memory")
        if memory_limit is not None and 0 < memory_limit < _MIN_MEMORY:
            limits.invalid("memory", "must be at least 6Mi, which starting a container takes")
        found = cls(
            _quantity(requests, "cpu", cpu_limit),
            cpu_limit,
            _quantity(requests, "memory", memory_limit),
            memory_limit,
            _huge_pages(limits),
        )
        if found.cpu_limit and (found.cpu_request or 0) > found.cpu_limit:
            requests.invalid("cpu", "must be less than or equal to cpu limit")
        if found.memory_limit and (found.memory_request or 0) > found.memory_limit:
            requests.invalid("memory", "must be less than or equal to memory limit")
        return found

    def to_cri(self, quality: str, host_memory: int) -> cri.LinuxContainerResources:
        """For the kernel; ``quality`` is the Pod's class of service."""
        result = cri.LinuxContainerResources(
            cpu_shares=_shares(self.cpu_request),
            memory_limit_in_bytes=self.memory_limit or 0,
            oom_score_adj=self._oom_score(quality, host_memory),
            hugepage_limits=[
                cri.HugepageLimit(page_size=size, limit=limit) for size, limit in self.huge_pages
            ],
        )
        if self.cpu_limit:
            result.cpu_period = _CPU_PERIOD
            result.cpu_quota = max(self.cpu_limit * _CPU_PERIOD // 1000, _MIN_QUOTA)
        return result

    def _oom_score(self, quality: str, host_memory: int) -> int:
        """Who is killed first when memory runs out: those who asked for none of it."""
        if quality == GUARANTEED:
            return -997
        if quality == BEST_EFFORT:
            return 1000
        # The less of the host's memory it has asked for, the sooner; never as late as a guaranteed
        # one nor as soon as one that asked for nothing.
        asked = 1000 * (self.memory_request or 0) // max(host_memory, 1)
        return min(max(1000 - asked, 3), 999)


def quality_of_service(containers: Sequence[Resources]) -> str:
    """The Pod's class: Guaranteed, Burstable or BestEffort."""
    if not any(
        value
        for item in containers
        for value in (item.cpu_request, item.cpu_limit, item.memory_request, item.memory_limit)
    ):
        return BEST_EFFORT
    if all(
        item.cpu_limit
        and item.memory_limit
        and item.cpu_request == item.cpu_limit
        and item.memory_request == item.memory_limit
        for item in containers
    ):
        return GUARANTEED
    return BURSTABLE


def _shares(millis: int | None) -> int:
    shares = (millis or 0) * _SHARES_PER_CPU // 1000
    return min(max(shares, _MIN_SHARES), _MAX_SHARES)


def _huge_pages(limits: Reader) -> tuple[tuple[str, int], ...]:
    found = []
    for key in sorted(limits.keys()):
        if not key.startswith(_HUGE_PAGES):
            continue
        size, limit = key.removeprefix(_HUGE_PAGES), _quantity(limits, key)
        match = re.fullmatch(r"([0-9]+)([KMG])i", size)
        if match is None:
            limits.invalid(key, "must name a page size, such as hugepages-2Mi")
        elif limit is not None:
            found.append((f"{match[1]}{match[2]}B", limit))
    return tuple(found)


def _quantity(reader: Reader, key: str, default: int | None = None) -> int | None:
    value = reader.convert(key, to_millis if key == "cpu" else to_bytes)
    if value is not None and value < 0:
        reader.invalid(key, "must be greater than or equal to 0")
        return default
    return default if value is None else value
