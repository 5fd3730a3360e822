"""Control groups, of version 1 and 2 and of both at once, as they are mounted on this host. Blocking."""

from __future__ import annotations

import contextlib
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def folders_of(group: str) -> list[Path]:
    """The group in every hierarchy that has it."""
    roots = [_ROOT, *(path for path in _ROOT.iterdir() if path.is_dir())]
    folders = [root / group.lstrip("/") for root in roots]
    return [folder for folder in folders if (folder / "cgroup.procs").exists()]


def members(folder: Path) -> list[int]:
    """The processes in a group; none when it is gone."""
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def killed_for_memory(namespace: str, id: str) -> bool:
    """Whether the kernel has killed a process of a task, because it wanted too much memory."""
    for folder in folders_of(f"/{namespace}/{id}"):
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                for line in (folder / name).read_text().splitlines():
                    if line.startswith("oom_kill ") and line != "oom_kill 0":
                        return True
    return False


def names_in(namespace: str) -> set[str]:
    """The tasks of a containerd namespace that have control groups, whoever made them."""
    found = set()
    for folder in folders_of(f"/{namespace}"):
        found |= {path.name for path in folder.iterdir() if path.is_dir()}
    return found


def remove_empty(namespace: str, id: str) -> bool:
    """Remove the control groups of a task that has no process any more; False when it has."""
    folders = folders_of(f"/{namespace}/{id}")
    if any(members(folder) for folder in folders):
        return False
    for folder in folders:
        with contextlib.suppress(OSError):  # there is another group in it
            folder.rmdir()
    return True
