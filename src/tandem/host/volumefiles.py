"""Files that change together: a volume made of keys and values, laid out as a kubelet does it.

    ..2026_11_22_18_24_10.417330/   the files as they are now
    ..data -> ..2026_11_22_18_24_10.417330
    key -> ..data/key               what users open

An update writes a new directory and swaps ``..data`` by a rename: a reader sees all of the old files or
all of the new ones. Programs (and other tools) know the layout and watch ``..data``. One writer at a
time; all of it blocks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_DATA = "..data"
_NEXT = "..data_tmp"


@dataclass(frozen=True, slots=True)
class File:
    """``mode``: permission bits. ``uid``: who owns it, if not root."""

    data: bytes
    mode: int = 0o644
    uid: int = 0


def write_files(
    target: Path, files: Mapping[str, File], *, gid: int | None = None, read_only: bool = True
) -> bool:
    """Make ``target``, a directory, hold exactly ``files``, by relative path; False when it did.

    ``gid``: the group that everything shall belong to and be readable for (``fsGroup``). A failure
    (``OSError``, a full disk) leaves the files as they were.
    """
    wanted = {path: _granted(file, gid) for path, file in files.items()}
    current = _current(target)
    if current is not None and _holds(current, wanted, gid):
        _show(target, wanted)
        return False
    fresh = _new_directory(target)
    try:
        _fill(fresh, wanted, gid)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target / _NEXT)
        os.symlink(fresh.name, target / _NEXT)
        os.rename(target / _NEXT, target / _DATA)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(target / _NEXT)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _show(target, wanted)
    for entry in list(os.scandir(target)):
        # What an earlier write left behind when it was killed goes too.
        if entry.name.startswith("..2") and entry.name != fresh.name:
            shutil.rmtree(entry.path, ignore_errors=True)
    if gid is not None:
        os.chown(target, -1, gid)
        mode = stat.S_IMODE(os.stat(target).st_mode)
        os.chmod(target, mode | (0o550 if read_only else 0o770) | stat.S_ISGID)
    return True


def _granted(file: File, gid: int | None) -> File:
    if gid is None:
        return file
    return File(file.data, file.mode | 0o440, file.uid)


def _current(target: Path) -> Path | None:
    try:
        return target / os.readlink(target / _DATA)
    except OSError:
        return None


def _holds(directory: Path, wanted: Mapping[str, File], gid: int | None) -> bool:
    found = set()
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, directory)
            file = wanted.get(relative)
            if file is None or not _same(path, file, gid):
                return False
            found.add(relative)
    return found == set(wanted) and directory.is_dir()


def _same(path: str, file: File, gid: int | None) -> bool:
    info = os.lstat(path)
    if stat.S_IMODE(info.st_mode) != file.mode or info.st_size != len(file.data):
        return False
    if info.st_uid != file.uid or info.st_gid != (gid or 0):
        return False
    return Path(path).read_bytes() == file.data


def _new_directory(target: Path) -> Path:
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    path = target / stamp
    os.mkdir(path)
    os.chmod(path, 0o755)
    return path


def _fill(directory: Path, wanted: Mapping[str, File], gid: int | None) -> None:
    folders = {directory}
    for relative, file in wanted.items():
        path = directory / relative
        for parent in reversed(path.relative_to(directory).parents[:-1]):
            folder = directory / parent
            if folder not in folders:
                folder.mkdir(exist_ok=True)
                folder.chmod(0o755)
                folders.add(folder)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(file.data)
        if file.uid or gid:
            os.chown(path, file.uid, gid or 0)
        os.chmod(path, file.mode)
    if gid is not None:
        for folder in folders:
            os.chown(folder, -1, gid)
            os.chmod(folder, 0o755 | stat.S_ISGID)


def _show(target: Path, wanted: Mapping[str, File]) -> None:
    """Put the links in place that users open, and take away those of files that are gone."""
    tops = {path.split("/", 1)[0] for path in wanted}
    for top in tops:
        if not os.path.islink(target / top):
            os.symlink(f"{_DATA}/{top}", target / top)
    for entry in list(os.scandir(target)):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in tops:
            os.unlink(entry.path)
