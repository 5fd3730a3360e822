"""What pretended containers use: each a hundredth of a processor, and four megabytes."""

from __future__ import annotations

import time
from collections.abc import Iterable

from tandem.runtimes.adapter import Phase
from tandem.runtimes.capabilities import Usage, WorkloadUsage
from tandem.runtimes.memory.world import Workload, utc_now

CPU_NANOSECONDS, MEMORY_BYTES = 10_000_000, 4 << 20
"""Of processor time in each second, and of memory."""


def used(workloads: Iterable[Workload]) -> list[WorkloadUsage]:
    """By each workload that runs."""
    at, now = time.monotonic(), utc_now()
    found = []
    for workload in workloads:
        containers = {
            container.name: Usage(
                round((now - container.started_at).total_seconds() * CPU_NANOSECONDS),
                MEMORY_BYTES,
                at,
            )
            for container in workload.containers.values()
            if container.phase is Phase.RUNNING and container.started_at
        }
        if containers:
            found.append(WorkloadUsage(workload.id, containers))
    return found
