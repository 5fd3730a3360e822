"""What the daemon weighs: idle, and with workloads."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.daemon import Served
from benchmarks.figures import Row
from benchmarks.pods import pod, watched

_PODS = 40
_MACHINES = 10
_IDLE_SECONDS = 20.0

# Measured on this kind of machine, one node: kube-apiserver 1.36.2 and etcd, idle.
_CONTROL_PLANE = "kube-apiserver 254 MB + etcd 46 MB (another run)"


def _diskless(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "domain": {"memory": {"guest": "32Mi"}, "devices": {}},
        },
    }


async def rows(served: Served, image: str) -> list[Row]:
    """Memory and processor time, idle and with 50 workloads."""
    idle = served.memory_kib()
    idle_share = await _processor_share(served)
    pods = [f"weight-{i}" for i in range(_PODS)]
    machines = [f"weight-{i}" for i in range(_MACHINES)]
    async with (
        watched(served, "pods") as pod_phases,
        watched(served, "virtualmachineinstances") as machine_phases,
    ):
        # The first workload of each kind brings code into memory that the others share.
        await served.api.create("pods", pod("first", image))
        await served.api.create("virtualmachineinstances", _diskless("first"))
        await pod_phases.until("Running", "first")
        await machine_phases.until("Running", "first")
        before = served.memory_kib()
        await asyncio.gather(*(served.api.create("pods", pod(name, image)) for name in pods))
        await asyncio.gather(
            *(served.api.create("virtualmachineinstances", _diskless(name)) for name in machines)
        )
        await pod_phases.until("Running", *pods)
        await machine_phases.until("Running", *machines)
        loaded = served.memory_kib()
        loaded_share = await _processor_share(served)
        for resource, names in (("pods", pods), ("virtualmachineinstances", machines)):
            await asyncio.gather(*(served.api.delete(resource, name) for name in ("first", *names)))
        await pod_phases.until("", "first", *pods)
        await machine_phases.until("", "first", *machines)
    count = _PODS + _MACHINES
    return [
        Row("daemon, idle: memory", f"{idle / 1024:.0f} MiB", _CONTROL_PLANE, "", "at most 80 MiB"),
        Row("daemon, idle: processor", f"{idle_share:.2%} of a core", "", "", "under 0.2 %"),
        Row(
            f"daemon with {_PODS} Pods and {_MACHINES} VMs: memory",
            f"{loaded / 1024:.0f} MiB",
            f"{before / 1024:.0f} MiB with one of each",
            f"{(loaded - before) / count:.0f} KiB each",
            "at most 100 KiB each",
        ),
        Row("the same: processor", f"{loaded_share:.2%} of a core", "", "", ""),
    ]


async def _processor_share(served: Served) -> float:
    """The share of a core used over some seconds in which nothing is asked of the daemon."""
    await asyncio.sleep(2)
    began, used = time.monotonic(), served.processor_seconds()
    await asyncio.sleep(_IDLE_SECONDS)
    return (served.processor_seconds() - used) / (time.monotonic() - began)
