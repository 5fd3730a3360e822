"""What two hundred Pods cost that do nothing: of the daemon, and of the runtime that runs them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.daemon import served
from benchmarks.figures import Row
from benchmarks.pods import pod, watched

_PODS = 200
_SETTLE_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_RUNTIME = "containerd"  # and its shims, whose names begin with it


async def rows(image: str) -> list[Row]:
    """Memory and processor time with the Pods, of a daemon that has seen nothing else."""
    names = [f"idle-{number}" for number in range(_PODS)]
    async with served() as daemon, watched(daemon, "pods") as phases:
        # The first brings code into memory that the others share.
        await daemon.api.create("pods", pod("first", image))
        await phases.until("Running", "first")
        await asyncio.sleep(_SETTLE_SECONDS)
        before, runtime_before = daemon.memory_kib(), _runtime_memory_kib()
        await asyncio.gather(*(daemon.api.create("pods", pod(name, image)) for name in names))
        await phases.until("Running", *names)
        await asyncio.sleep(_SETTLE_SECONDS)
        added = daemon.memory_kib() - before
        runtime_added = _runtime_memory_kib() - runtime_before

        began = time.monotonic()
        used, runtime_used = daemon.processor_seconds(), _runtime_processor_seconds()
        await asyncio.sleep(_IDLE_SECONDS)
        passed = time.monotonic() - began
        share = (daemon.processor_seconds() - used) / passed
        runtime_share = (_runtime_processor_seconds() - runtime_used) / passed

        everything = ("first", *names)
        await asyncio.gather(*(daemon.api.delete("pods", name) for name in everything))
        await phases.until("", *everything)
    return [
        Row(
            f"daemon with {_PODS} idle Pods: memory",
            f"{added / _PODS:.0f} KiB each",
            f"containerd and its shims: {runtime_added / _PODS:.0f} KiB each",
            f"{added / max(runtime_added, 1):.3f}",
            "at most 100 KiB each",
        ),
        Row(
            "the same: processor",
            f"{share:.2%} of a core",
            f"containerd and its shims: {runtime_share:.2%}",
            f"{share / max(runtime_share, 1e-4):.2f}",
            "under 1 %",
        ),
    ]


def _runtime_processes() -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text(encoding="utf-8").startswith(_RUNTIME):
                yield process
        except OSError:  # it has just ended
            continue


def _runtime_memory_kib() -> int:
    """The memory that is theirs alone: what a hundred shims share is counted for none of them."""
    page = os.sysconf("SC_PAGE_SIZE") // 1024
    total = 0
    for process in _runtime_processes():
        resident, shared = (process / "statm").read_text(encoding="utf-8").split()[1:3]
        total += (int(resident) - int(shared)) * page
    return total


def _runtime_processor_seconds() -> float:
    total = 0
    for process in _runtime_processes():
        fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
