"""What a containerd that was killed leaves of a task it was just making: shim, processes, groups.

A shim that had not said where it listens when containerd died is never asked for again, and what it
started runs on, or waits to be started, for ever. Blocking.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tandem.host import groups, volumes

_PROC = Path("/proc")
_END_SECONDS = 5.0  # for processes to be gone after SIGKILL


def remove_task(bundle: Path, socket: str) -> None:
    """Remove a task whose container no containerd knows: ``bundle`` is the folder that its shim was
    started in, ``socket`` the containerd that it was started for."""
    id = bundle.name
    _end(_shims(id, socket))
    group = _group_of(bundle)
    if group:
        for folder in groups.folders_of(group):
            _end(groups.members(folder))
        for folder in groups.folders_of(group):
            with contextlib.suppress(OSError):
                folder.rmdir()
    if bundle.is_dir():
        volumes.unmount_below(bundle)
        with contextlib.suppress(OSError):
            shutil.rmtree(os.readlink(bundle / "work"), ignore_errors=True)
        shutil.rmtree(bundle, ignore_errors=True)


def _shims(id: str, socket: str) -> list[int]:
    """The shims of the task ``id``."""
    found = []
    for pid, words in _commands():
        pairs = set(itertools.pairwise(words))
        if {("-id", id), ("-address", socket)} <= pairs and "containerd-shim" in words[0]:
            found.append(pid)
    return found


def _commands() -> Iterator[tuple[int, list[str]]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                yield int(entry.name), words


def _group_of(bundle: Path) -> str:
    """The control group that the task was to have; empty when nobody can tell."""
    try:
        document = json.loads((bundle / "config.json").read_bytes())
        path = str(document["linux"]["cgroupsPath"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    # Of nobody but this task, whatever the file says.
    return path if path.startswith("/") and path.endswith(f"/{bundle.name}") else ""


def _end(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_SECONDS
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        state = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
