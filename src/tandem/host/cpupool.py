"""Processors of the host that are one machine's alone among machines.

Which are taken is written in each machine's record, so that a restart of the daemon changes nothing.
One processor is never given away: it is for the host, and for the machines that did not ask.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tandem.errors import Cause, Unsupported
from tandem.host.machinefiles import recorded


class CpuPool:
    """``cpus``: what there is, by default all that we may run on. Its methods block."""

    def __init__(self, cpus: tuple[int, ...] | None = None) -> None:
        self._cpus = cpus if cpus is not None else tuple(sorted(os.sched_getaffinity(0)))
        self._taken: dict[str, tuple[int, ...]] | None = None
        self._lock = threading.Lock()

    def take(
        self, uid: str, vmi: Mapping[str, Any], vcpus: int, machines: Path
    ) -> tuple[tuple[int, ...], int]:
        """The processors of a machine that asks for its own: one for each of the ``vcpus``, and one
        more for QEMU where that is to be kept apart; and how many are QEMU's. Nothing for a machine
        that does not ask. Raises ``Unsupported``, in the scheduler's words."""
        cpu = vmi["spec"]["domain"].get("cpu") or {}
        if not cpu.get("dedicatedCpuPlacement"):
            return (), 0
        emulator = 1 if cpu.get("isolateEmulatorThread") else 0
        with self._lock:
            taken = self._known(machines)
            free = self._free(taken)[1:]
            if len(free) < vcpus + emulator:
                message = "0/1 nodes are available: 1 Insufficient cpu."
                detail = f"{vcpus + emulator} processors of its own were asked for, and {len(free)} are free"
                where = "spec.domain.cpu.dedicatedCpuPlacement"
                raise Unsupported(f"{message} {detail}", causes=[Cause(where, detail)])
            taken[uid] = free[-(vcpus + emulator) :]
            return taken[uid], emulator

    def shared(self, machines: Path) -> tuple[int, ...]:
        """What is nobody's alone; empty while nobody has any."""
        with self._lock:
            taken = self._known(machines)
            return self._free(taken) if taken else ()

    @property
    def is_whole(self) -> bool:
        """Whether it is known that nobody has any. Does not block."""
        return self._taken is not None and not self._taken

    def give_back(self, uid: str) -> None:
        """A machine is gone."""
        if self._taken:
            self._taken.pop(uid, None)

    def _free(self, taken: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        used = {cpu for cpus in taken.values() for cpu in cpus}
        return tuple(cpu for cpu in self._cpus if cpu not in used)

    def _known(self, machines: Path) -> dict[str, tuple[int, ...]]:
        if self._taken is None:
            self._taken = {}
            for entry in machines.iterdir() if machines.is_dir() else ():
                files = recorded(entry)
                if files is not None and files.cpus:
                    self._taken[entry.name] = files.cpus
        return self._taken
