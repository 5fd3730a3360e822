"""What this host is, how full it is, and what it has used: read from /proc and /sys. Blocking, fast.

``root`` is for tests. What a host does not say reads as empty or 0.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MEMORY_RESERVE = 100 << 20
_DISK_RESERVE, _INODE_RESERVE, _PROCESS_RESERVE = 0.10, 0.05, 0.05
"""The kubelet's own thresholds: less available than these is pressure. It has none for processes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same until the host is booted again. ``storage_bytes`` is the size of the file
    system that was asked about, ``hugepages`` the bytes set aside for each page size in KiB."""

    architecture: str
    kernel: str
    os_image: str
    machine_id: str
    system_uuid: str
    boot_id: str
    storage_bytes: int
    hugepages: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pressure:
    """What the host is about to run out of."""

    memory: bool = False
    disk: bool = False
    processes: bool = False


@dataclass(frozen=True, slots=True)
class HostUsage:
    """``cpu_nanoseconds``: of all processors since boot, idle and waiting times left out.
    ``memory_bytes``: what could not be had without taking it from somebody. ``at``: seconds of the
    monotonic clock."""

    cpu_nanoseconds: int
    memory_bytes: int
    at: float


def architecture() -> str:
    """The processor's, in the words that images and nodes use."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def boot_id(root: Path = Path("/")) -> str:
    """What tells this run of the kernel from every other, on any host."""
    return _read(root / "proc/sys/kernel/random/boot_id")


def apparmor(root: Path = Path("/")) -> bool:
    """Whether the kernel enforces AppArmor profiles."""
    return _read(root / "sys/module/apparmor/parameters/enabled") == "Y"


def identity(storage: Path, root: Path = Path("/")) -> Identity:
    """The facts as they are now; ``storage`` is any path on the file system that Pods write to."""
    sizes = {}
    for pool in root.glob("sys/kernel/mm/hugepages/hugepages-*kB"):
        kib = int(pool.name.removeprefix("hugepages-").removesuffix("kB"))
        sizes[kib] = int(_read(pool / "nr_hugepages") or 0) * kib * 1024
    found = _existing(storage)
    return Identity(
        architecture=architecture(),
        kernel=os.uname().release,
        os_image=_os_name(root),
        machine_id=_read(root / "etc/machine-id"),
        system_uuid=_read(root / "sys/class/dmi/id/product_uuid"),
        boot_id=boot_id(root),
        storage_bytes=(space := os.statvfs(found)).f_blocks * space.f_frsize,
        hugepages=dict(sorted(sizes.items())),
    )


def pressure(storage: Path, root: Path = Path("/")) -> Pressure:
    """What the host is short of now. Some fifty microseconds."""
    space = os.statvfs(_existing(storage))
    disk = space.f_bavail < space.f_blocks * _DISK_RESERVE
    inodes = space.f_favail < space.f_files * _INODE_RESERVE
    memory = _memory(root)
    available = memory.get("MemAvailable", _MEMORY_RESERVE)
    # The fourth word is running/all tasks; every thread of every process takes a number.
    _, _, tasks = (_read(root / "proc/loadavg").split() or ["", "", "", "0/0"])[3].partition("/")
    most = int(_read(root / "proc/sys/kernel/pid_max") or 0)
    return Pressure(
        memory=available < _MEMORY_RESERVE,
        disk=disk or inodes,
        processes=bool(most) and most - int(tasks) < most * _PROCESS_RESERVE,
    )


def usage(root: Path = Path("/")) -> HostUsage:
    """What the host has used so far."""
    # cpu user nice system idle iowait irq softirq steal; guest time is in user already.
    ticks = [int(word) for word in _read(root / "proc/stat").partition("\n")[0].split()[1:9]]
    busy = sum(ticks) - sum(ticks[3:5])
    memory = _memory(root)
    return HostUsage(
        cpu_nanoseconds=busy * (1_000_000_000 // os.sysconf("SC_CLK_TCK")),
        memory_bytes=max(0, memory.get("MemTotal", 0) - memory.get("MemAvailable", 0)),
        at=time.monotonic(),
    )


def _existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there already."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _memory(root: Path) -> dict[str, int]:
    """/proc/meminfo, in bytes."""
    found = {}
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


def _os_name(root: Path) -> str:
    for line in _read(root / "etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip("\"'")
    return "Linux"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
