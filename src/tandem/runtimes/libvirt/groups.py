"""Control groups that libvirt forgets: those of a machine that ended while libvirtd was away.

libvirt removes a machine's groups when it sees the machine end. What ends unseen leaves empty groups
behind, for as long as the host is up. With systemd they are its own affair and are gone already.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_MAX_NAME = 64


def remove(name: str) -> None:
    """Remove the empty groups of the domain ``name``; blocking. A group with a process in it, of a
    machine that runs, cannot be removed and is left alone."""
    pattern = re.compile(rf"qemu-\d+-{re.escape(_machine_name(name))}\.libvirt-qemu")
    for hierarchy in _hierarchies():
        for group in (hierarchy / "machine").glob("qemu-*"):
            if pattern.fullmatch(group.name):
                with contextlib.suppress(OSError):
                    _remove_empty(group)


def _machine_name(name: str) -> str:
    """How libvirt spells a domain's name here: characters of host names only, and not too many."""
    # Which are cut off depends on the number before; then this is no match, and the group stays.
    return re.sub(r"[^A-Za-z0-9.-]", "", name)[: _MAX_NAME - len("qemu-1-")]


def _hierarchies() -> list[Path]:
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return []
    return [Path(words[1]) for line in lines if (words := line.split())[2] in ("cgroup", "cgroup2")]


def _remove_empty(group: Path) -> None:
    for child in group.iterdir():
        if child.is_dir():
            _remove_empty(child)
    group.rmdir()
