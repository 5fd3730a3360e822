"""What ``tandem doctor`` looks at: each check a small function that says how it is and how to mend it.

``essential`` marks what the daemon or every workload needs; the rest is advice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tandem.config import Settings
from tandem.errors import TandemError
from tandem.host.run import run
from tandem.instance import running_pid
from tandem.runtimes.adapter import Fingerprint

# A few container images and one machine's disk.
_DISK_ADVISED = 5 << 30
_DISK_ESSENTIAL = 512 << 20
_FINGERPRINT_SECONDS = 20.0

_NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "cgroup")
_CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Check:
    """How one thing is. ``problem`` is empty when it is well, and ``fix`` says how to mend it."""

    name: str
    detail: str = ""
    problem: str = ""
    fix: str = ""
    essential: bool = True

    @property
    def verdict(self) -> str:
        """``ok``, ``warn`` (works without) or ``fail``."""
        if not self.problem:
            return "ok"
        return "fail" if self.essential else "warn"


def all_checks(settings: Settings) -> Iterator[Check]:
    """Every check, the quick ones first; each is made as it is asked for."""
    yield root()
    yield namespaces(Path("/proc/self/ns"))
    yield cgroups(Path("/proc/self/mounts"), Path("/proc/cgroups"))
    yield overlay(Path("/proc/filesystems"))
    for folder in _distinct_disks(settings.data_dir, settings.containerd_root):
        yield disk(folder)
    yield address(settings)
    if settings.container_runtime == "container":
        yield network(settings)
    yield from runtimes(settings)
    yield daemon(settings)
    yield program(
        "kubectl",
        "nothing needs it, tandem get and apply do without",
        "apt-get install kubernetes-client, or kubectl from kubernetes.io",
    )


def root() -> Check:
    """Namespaces, cgroups and taps are root's to make."""
    if os.geteuid() == 0:
        return Check("root", "running as root")
    return Check("root", problem="not running as root", fix="sudo tandem doctor")


def namespaces(folder: Path) -> Check:
    """The kernel's namespaces, of which containers are made."""
    missing = [name for name in _NAMESPACES if not (folder / name).exists()]
    if missing:
        return Check(
            "kernel namespaces",
            problem=f"the kernel lacks {', '.join(missing)}",
            fix="boot a kernel with CONFIG_NAMESPACES and its kinds, as distributions build it",
        )
    return Check("kernel namespaces", ", ".join(_NAMESPACES))


def cgroups(mounts: Path, known: Path) -> Check:
    """Cgroups with the controllers that limits need, of version 1 or 2."""
    found: dict[str, str] = {}
    for line in mounts.read_text(encoding="utf-8").splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            with contextlib.suppress(OSError):
                controllers = (Path(where) / "cgroup.controllers").read_text(encoding="utf-8")
                found |= dict.fromkeys(controllers.split(), "v2")
        elif kind == "cgroup":
            found |= dict.fromkeys(options.split(","), "v1")
    missing = [name for name in _CONTROLLERS if name not in found]
    if missing:
        enabled = known.read_text(encoding="utf-8") if known.exists() else ""
        built = all(f"\n{name}\t" in enabled for name in missing)
        return Check(
            "cgroups",
            problem=f"no {', '.join(missing)} controller is mounted",
            fix="mount the cgroup file systems (package cgroupfs-mount)"
            if built
            else "boot a kernel with CONFIG_CGROUPS and these controllers",
        )
    versions = "/".join(sorted({found[name] for name in _CONTROLLERS}))
    return Check("cgroups", f"{versions}: {', '.join(_CONTROLLERS)}")


def overlay(filesystems: Path) -> Check:
    """Overlay file systems, without which every container copies its image."""
    if "\toverlay\n" in filesystems.read_text(encoding="utf-8"):
        return Check("overlay file system", "in the kernel")
    with contextlib.suppress(TandemError):
        asyncio.run(run("modprobe", "--quiet", "overlay"))
        return Check("overlay file system", "loaded")
    return Check(
        "overlay file system",
        problem="the kernel has none: images are copied for every container",
        fix="modprobe overlay",
        essential=False,
    )


def disk(folder: Path) -> Check:
    """Room for images and disks."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    name, shown = f"disk space for {folder}", f"{free / (1 << 30):.1f} GiB free"
    if free >= _DISK_ADVISED:
        return Check(name, shown)
    return Check(
        name,
        problem=f"only {shown}",
        fix="free some space, or put the directory on another disk",
        essential=free < _DISK_ESSENTIAL,
    )


def address(settings: Settings) -> Check:
    """The API's address: ours, or free to take."""
    where = f"{settings.listen_address} port {settings.listen_port}"
    if running_pid(settings.lock_file):
        return Check("address", f"{where}, held by the daemon")
    family = socket.AF_INET6 if ":" in settings.listen_address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.listen_address, settings.listen_port))
        except OSError as error:
            return Check(
                "address",
                problem=f"cannot listen on {where}: {error.strerror}",
                fix="choose another with --listen-port, or stop what has it",
            )
    return Check("address", f"{where} is free")


def network(settings: Settings) -> Check:
    """A network for Pods."""
    from tandem.host import cni

    try:
        where = cni.find_bin_dir()
    except TandemError as error:
        return Check("pod network", problem=error.message, fix=error.hint or "")
    for folder in (Path("/etc/cni/net.d"), settings.config_dir / "cni"):
        if cni.is_configured(folder):
            return Check("pod network", f"{folder}, plugins in {where}")
    return Check(
        "pod network",
        problem="no network is declared for Pods yet",
        fix="tandem up declares one",
        essential=False,
    )


def runtimes(settings: Settings) -> Iterator[Check]:
    """Each runtime, as its adapter finds it."""
    from tandem.adapters import build

    async def ask() -> list[tuple[str, Fingerprint]]:
        found = []
        for kind, adapter in build(settings).items():
            async with asyncio.timeout(_FINGERPRINT_SECONDS), adapter:
                found.append((kind, await adapter.fingerprint()))
        return found

    names = {"container": "container runtime", "vm": "virtual machines"}
    try:
        found = asyncio.run(ask())
    except (TandemError, ImportError, ValueError, TimeoutError) as error:
        yield Check(
            "runtimes",
            problem=str(error) or "no answer in time",
            fix=getattr(error, "hint", None) or "install what is named",
        )
        return
    for kind, print_ in found:
        facts = "; ".join(f"{key} {value}" for key, value in sorted(print_.details.items()))
        yield Check(
            names[kind],
            f"{print_.name} {print_.version}".strip() + (f" ({facts})" if facts else ""),
            print_.problem if not print_.healthy else "",
            print_.hint or "tandem up starts it",
        )


def daemon(settings: Settings) -> Check:
    """Whether the daemon runs; nothing is wrong when it was not started yet."""
    if pid := running_pid(settings.lock_file):
        return Check("daemon", f"process {pid}")
    return Check("daemon", problem="not running", fix="tandem up", essential=False)


def program(name: str, without: str, fix: str) -> Check:
    """A program that is good to have."""
    if where := shutil.which(name):
        return Check(name, where)
    return Check(name, problem=f"not installed ({without})", fix=fix, essential=False)


def _distinct_disks(*folders: Path) -> list[Path]:
    """The folders, only the first of those on one disk."""
    seen: dict[int, Path] = {}
    for folder in folders:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        seen.setdefault(existing.stat().st_dev, folder)
    return list(seen.values())
