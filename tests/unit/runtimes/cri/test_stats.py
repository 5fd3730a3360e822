"""The runtime's counters, by workload."""

from __future__ import annotations

from tandem.runtimes.adapter import LABEL_ID
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.stats import usage_of


def counted(pod: str, name: str, *, at: int, cpu: int | None = None) -> cri.ContainerStats:
    attributes = cri.ContainerAttributes(
        id=f"{pod}-{name}", metadata=cri.ContainerMetadata(name=name), labels={LABEL_ID: pod}
    )
    stats = cri.ContainerStats(attributes=attributes)
    if cpu is not None:
        stats.cpu.timestamp = at
        stats.cpu.usage_core_nano_seconds.value = cpu
        stats.memory.working_set_bytes.value = 5000
    return stats


def test_counters_are_by_workload_and_container() -> None:
    now = 1_000_000_000_000
    found = usage_of(
        [
            counted("one", "a", at=now - 2_000_000_000, cpu=77),
            counted("one", "b", at=now, cpu=88),
            counted("one", "ended", at=now),
            counted("two", "a", at=now, cpu=99),
        ],
        monotonic=50.0,
        now=now,
    )
    assert {item.id: set(item.containers) for item in found} == {"one": {"a", "b"}, "two": {"a"}}
    first = found[0].containers["a"]
    assert (first.cpu_nanoseconds, first.memory_bytes, first.at) == (77, 5000, 48.0)
