"""What containers use, as the runtime counts it in their control groups."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER
from tandem.runtimes.capabilities import Usage, WorkloadUsage
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import LIST_CONTAINER_STATS, CriClient


async def read_usage(client: CriClient, owner: str) -> Sequence[WorkloadUsage]:
    """Of every running container of ``owner``, in one call."""
    wanted = cri.ContainerStatsFilter(label_selector={LABEL_OWNER: owner})
    answer = await client.call(LIST_CONTAINER_STATS, cri.ListContainerStatsRequest(filter=wanted))
    return usage_of(answer.stats, monotonic=time.monotonic(), now=time.time_ns())


def usage_of(
    stats: Sequence[cri.ContainerStats], *, monotonic: float, now: int
) -> list[WorkloadUsage]:
    """By workload; ``monotonic`` and ``now`` (nanoseconds since 1970) are the same moment. Pure."""
    found: dict[str, dict[str, Usage]] = defaultdict(dict)
    for item in stats:
        attributes = item.attributes
        # What has ended is listed too, without figures.
        if not item.HasField("cpu") or not item.cpu.HasField("usage_core_nano_seconds"):
            continue
        found[attributes.labels.get(LABEL_ID, "")][attributes.metadata.name] = Usage(
            cpu_nanoseconds=item.cpu.usage_core_nano_seconds.value,
            memory_bytes=item.memory.working_set_bytes.value,
            at=monotonic - (now - item.cpu.timestamp) / 1e9,
        )
    return [WorkloadUsage(id, containers) for id, containers in found.items() if id]
