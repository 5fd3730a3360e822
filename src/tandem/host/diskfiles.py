"""Disk images and folders as files of the host: found, checked, made. Everything here blocks.

An image that outlives its machine is raw, or qcow2 by its name and not by its content, which a guest
could have written; and it is a file itself, never a link to one.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tandem.api.quantity import to_bytes
from tandem.errors import Cause, InvalidSpec, TandemError
from tandem.host import qcow2
from tandem.host.machinefiles import DiskFile, write_private

ALIGNMENT = 1 << 20
"""A disk that is made has whole MiB, as in KubeVirt."""

_PASS_THROUGH = 0o711


def size_of(source: Mapping[str, Any], where: str) -> int:
    """A capacity in whole MiB."""
    try:
        size = to_bytes(source["capacity"]) // ALIGNMENT * ALIGNMENT
    except (KeyError, ValueError) as error:
        raise invalid(where, str(error)) from error
    if not 0 < size <= qcow2.MAX_SIZE:
        raise invalid(where, "must be at least 1Mi and at most 64Ti")
    return size


def inspect(path: Path, where: str) -> qcow2.ImageInfo:
    try:
        return qcow2.inspect(path)
    except InvalidSpec as error:
        raise invalid(where, error.message) from error


def existing(path: Path, where: str, *, raw: bool = False) -> DiskFile:
    """A disk that is on the host; qcow2 only where its name says so and ``raw`` does not."""
    try:
        found = path.lstat()
    except OSError as error:
        raise invalid(where, f"{path}: {error.strerror}") from error
    if stat.S_ISBLK(found.st_mode):
        return DiskFile(path, "raw", kind="block")
    if not stat.S_ISREG(found.st_mode):
        raise invalid(where, f"{path} is not a plain file")
    if raw or path.suffix != ".qcow2":
        if found.st_size == 0:
            raise invalid(where, f"{path} is empty")
        return DiskFile(path, "raw")
    return DiskFile(path, inspect(path, where).format)


def make_sparse(path: Path, size: int, where: str) -> None:
    """A new disk of zeros that takes no room yet."""
    if size <= 0:
        raise invalid(where, "has no room for a disk")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise TandemError(f"{where}: cannot make {path}: {error.strerror}") from error
    try:
        os.ftruncate(handle, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise TandemError(f"{where}: cannot make {path}: {error.strerror}") from error
    finally:
        os.close(handle)


def copy_private(source: Path, target: Path) -> None:
    write_private(target, source.read_bytes())


def keep(template: Path, kept: Path) -> None:
    if kept.exists():
        return
    for folder in (kept.parent.parent, kept.parent):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(_PASS_THROUGH)
    partial = kept.with_suffix(".part")
    partial.unlink(missing_ok=True)
    copy_private(template, partial)
    partial.rename(kept)


def write_folder(folder: Path, content: Mapping[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def invalid(where: str, message: str) -> InvalidSpec:
    """A fault of the field ``where``."""
    return InvalidSpec(f"{where}: {message}", causes=[Cause(where, message)])
