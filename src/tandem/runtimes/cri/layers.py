"""Finding a file in the layers of an image, as they lie unpacked on the host, without mounting them.

A layer hides what lies below it by a character device 0:0 in the place of a name, and all of a folder
below by an attribute of the folder: overlayfs' own marks, which containerd unpacks whiteouts into.
Symbolic links are followed inside the image only.

Blocking; nothing here writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from tandem.errors import Cause, InvalidSpec

_OPAQUE = "trusted.overlay.opaque"
_MAX_LINKS = 40  # the kernel's own bound

Folder = tuple[Path, ...]
"""One folder of the image: its directories in the layers that have it, the topmost first."""


def find_file(layers: Sequence[Path], path: str) -> Path:
    """The regular file ``path`` of an image with ``layers`` (the topmost first).

    Raises ``InvalidSpec`` when there is none.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    trail: list[Folder] = [tuple(layers)]
    links = 0
    while parts:
        name = parts.pop(0)
        if name == "..":
            trail = trail[:-1] or trail
            continue
        found = _look_up(trail[-1], name)
        if not found:
            raise _missing(path)
        mode = found[0].lstat().st_mode
        if stat.S_ISLNK(mode):
            links += 1
            if links > _MAX_LINKS:
                raise _missing(path, "too many symbolic links")
            target = os.readlink(found[0])
            if target.startswith("/"):
                trail = trail[:1]
            parts = [part for part in target.split("/") if part not in ("", ".")] + parts
        elif stat.S_ISDIR(mode):
            trail.append(found)
        elif stat.S_ISREG(mode) and not parts:
            return found[0]
        else:
            raise _missing(path, "not a regular file")
    raise _missing(path, "it is a folder")


def only_file(layers: Sequence[Path], folder: str) -> Path:
    """The single file in ``folder``, which is how a containerDisk carries its disk.

    Raises ``InvalidSpec`` when there is none or more than one.
    """
    found = _look_up(tuple(layers), folder)
    names = sorted(_names(found)) if found and found[0].is_dir() else []
    if not names:
        raise _missing(f"/{folder}", "no file found in the folder")
    if len(names) > 1:
        raise _missing(f"/{folder}", f"more than one file found: {', '.join(names)}")
    return find_file(layers, f"{folder}/{names[0]}")


def _look_up(folder: Folder, name: str) -> Folder:
    """What ``name`` is in ``folder``: a file in its topmost layer, or a folder in those that show
    through; empty when it does not exist."""
    found: list[Path] = []
    for directory in folder:
        path = directory / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if _is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            return tuple(found) if found else (path,)
        found.append(path)
        if _is_opaque(path):
            break
    return tuple(found)


def _names(folder: Folder) -> Iterator[str]:
    seen: set[str] = set()
    for directory in folder:
        for entry in os.scandir(directory):
            if entry.name not in seen:
                seen.add(entry.name)
                if not _is_whiteout(entry.stat(follow_symlinks=False)):
                    yield entry.name


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:  # no such attribute, or a file system without any
        return False


def _missing(path: str, why: str = "no such file in the image") -> InvalidSpec:
    return InvalidSpec(f"{path}: {why}", causes=[Cause("path", f'Invalid value: "{path}": {why}')])
