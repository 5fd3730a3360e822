"""Directories of this host as volumes: the one place that mounts, makes and removes them.

Everything here blocks for a short while and belongs in a thread. Nothing follows a symbolic link that
a workload may have put there, and nothing is removed as long as something is mounted below it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shutil
import stat
import tempfile
from pathlib import Path

from tandem.errors import TandemError

_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC = 2, 4, 4096, 16384
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08


class VolumeProblem(TandemError):
    """The host does not give what a volume needs; the sentence is a kubelet's where it has one."""


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


# Mounts --------------------------------------------------------------------------------------


def is_mounted(path: Path) -> bool:
    """Whether a file system of its own begins at ``path``."""
    return os.path.ismount(path)


def mount_tmpfs(path: Path, *, mode: int, gid: int = 0, size: int | None = None) -> None:
    """Mount a file system in memory at ``path``, which is made; no-op where there is one.

    ``size`` bounds it, in bytes; None is the kernel's own bound, half of the memory. What lies in it
    is never written to swap where the kernel can be told so.
    """
    path.mkdir(parents=True, exist_ok=True)
    if is_mounted(path):
        return
    options = f"mode={mode:o},gid={gid}" + ("" if size is None else f",size={max(size, 4096)}")
    for more in (",noswap", ""):  # the option is newer than the kernels we run on
        done = _libc().mount(
            b"tmpfs",
            os.fsencode(path),
            b"tmpfs",
            ctypes.c_ulong(_MS_NOSUID | _MS_NODEV),
            (options + more).encode(),
        )
        if done == 0:
            return
    _check(done, os.fspath(path))


def unmount_below(root: Path) -> None:
    """Unmount everything at ``root`` and below. Raises ``OSError`` when something stays."""
    for _ in range(4):  # what was mounted over something else shows only once that is gone
        points = mounts_below(root)
        if not points:
            return
        for point in reversed(points):
            _libc().umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
    raise OSError(errno.EBUSY, "something is mounted there and stays", os.fspath(root))


def mounts_below(root: Path) -> list[str]:
    """The mount points at ``root`` and below, in the order in which they were mounted."""
    own = os.fspath(root)
    with open("/proc/self/mountinfo", "rb") as file:
        data = file.read()
    if _escaped(own) not in data:
        return []
    found = []
    for line in data.splitlines():
        point = os.fsdecode(_unescape(line.split(b" ", 5)[4]))
        if point == own or point.startswith(f"{own}/"):
            found.append(point)
    return found


def _escaped(path: str) -> bytes:
    data = os.fsencode(path)
    for character in b"\\ \t\n":
        data = data.replace(bytes([character]), b"\\%03o" % character)
    return data


def _unescape(field: bytes) -> bytes:
    for code, character in ((b"040", b" "), (b"011", b"\t"), (b"012", b"\n"), (b"134", b"\\")):
        field = field.replace(b"\\" + code, character)
    return field


# Directories ---------------------------------------------------------------------------------


def make_directory(path: Path, *, mode: int, gid: int = 0) -> None:
    """Make an empty directory as one step, with this mode and group; one that is there stays as it
    is, as a workload may have changed it."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=".new-", dir=path.parent)
    try:
        os.chown(temporary, 0, gid)
        os.chmod(temporary, mode)
        os.rename(temporary, path)
    except BaseException:
        os.rmdir(temporary)
        raise


def remove(root: Path) -> None:
    """Unmount and remove all of ``root``; what is gone already is success.

    Links are removed, never followed. Raises ``OSError`` and leaves the rest alone when something
    below stays mounted: it may be anybody's.
    """
    try:
        entries = {entry.name for entry in os.scandir(root)}
    except FileNotFoundError:
        return
    if entries - {"etc-hosts"}:  # reading every mount of the host is spared a Pod without volumes
        unmount_below(root)
    shutil.rmtree(root)


def usage(root: Path) -> int:
    """Bytes on the disk of everything in ``root``, a file with several names counted once."""
    total, seen = 0, set()
    for _, directories, files, handle in os.fwalk(root, onerror=None):
        for name in (*directories, *files):
            try:
                info = os.stat(name, dir_fd=handle, follow_symlinks=False)
            except FileNotFoundError:  # it goes on being used
                continue
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            total += info.st_blocks * 512
    return total


def set_group(root: Path, gid: int, *, read_only: bool = False, on_mismatch: bool = False) -> None:
    """Give everything in ``root`` to a group, as ``fsGroup`` asks: its members may read, and write
    unless ``read_only``, and what is made in a directory belongs to the group too.

    ``on_mismatch``: nothing is done when ``root`` itself is so already. Links are given away, and
    not followed.
    """
    mask = 0o440 if read_only else 0o660
    info = os.stat(root)
    wanted = mask | 0o110 | stat.S_ISGID
    if on_mismatch and info.st_gid == gid and info.st_mode & wanted == wanted:
        return
    for _, directories, files, handle in os.fwalk(root, topdown=False):
        for name in (*directories, *files):
            try:
                _set_group_in(handle, name, gid, mask)
            except FileNotFoundError:  # somebody else uses it, and goes on
                continue
        # The directory after what is in it: a walk that was cut short is begun again as a whole.
        _set_group(handle, gid, mask)


def _set_group_in(directory: int, name: str, gid: int, mask: int) -> None:
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        os.chown(name, -1, gid, dir_fd=directory, follow_symlinks=False)
    elif not stat.S_ISDIR(mode):
        # Opened first, so that it cannot become a link between looking and changing.
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            _set_group(handle, gid, mask)
        finally:
            os.close(handle)


def _set_group(handle: int, gid: int, mask: int) -> None:
    info = os.fstat(handle)
    if stat.S_ISDIR(info.st_mode):
        mask |= 0o110 | stat.S_ISGID
    own = f"/proc/self/fd/{handle}"
    if info.st_gid != gid:
        os.chown(own, -1, gid)
    if info.st_mode & mask != mask:
        os.chmod(own, stat.S_IMODE(info.st_mode) | mask)


_TYPES = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (lambda mode: not stat.S_ISDIR(mode), "a file"),
    "FileOrCreate": (lambda mode: not stat.S_ISDIR(mode), "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def check_host_path(path: str, kind: str) -> None:
    """See that ``path`` is what a hostPath volume's ``type`` says, and make it where the type asks
    for that. Raises ``VolumeProblem``."""
    if not kind:
        return
    if kind not in _TYPES:
        raise VolumeProblem(f"{kind} is an invalid volume type")
    try:
        if kind == "DirectoryOrCreate":
            os.makedirs(path, mode=0o755, exist_ok=True)
        elif kind == "FileOrCreate" and not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644))
    except FileExistsError:
        pass  # by something else, as is found next
    except OSError as error:
        raise VolumeProblem(f"cannot make {path}: {error.strerror}") from error
    right, words = _TYPES[kind]
    try:
        fits = right(os.stat(path).st_mode)
    except OSError:
        fits = False
    if not fits:
        raise VolumeProblem(f"hostPath type check failed: {path} is not {words}")


# Parts of a volume ---------------------------------------------------------------------------


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _open_beneath(directory: int, path: str) -> int:
    """Open ``path`` without leaving ``directory``: links that stay inside are followed, by the kernel
    and in one step, so that nobody can change them in between. Raises ``OSError``."""
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    result = _libc().syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return _check(result, path)


def bind_part(volume: Path, part: str, target: Path) -> None:
    """Bind ``part`` of ``volume`` (a relative path in it) to ``target``.

    Directories that are missing are made with the volume's own mode and group. Whoever may write to
    the volume cannot lead this outside of it, nor change afterwards what was bound. A target that is
    bound to the same part already stays. Raises ``OSError``.
    """
    base = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source = _open_or_make(base, part)
        try:
            _bind(source, target)
        finally:
            os.close(source)
    finally:
        os.close(base)


def _open_or_make(base: int, part: str) -> int:
    try:
        return _open_beneath(base, part)
    except FileNotFoundError:
        pass
    mode = stat.S_IMODE(os.fstat(base).st_mode)
    names = [name for name in part.split("/") if name not in ("", ".")]
    at = os.dup(base)
    for count, name in enumerate(names, 1):
        try:
            inner = _open_beneath(base, "/".join(names[:count]))
        except FileNotFoundError:
            try:
                os.mkdir(name, mode, dir_fd=at)
                inner = os.open(
                    name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at
                )
                os.chmod(f"/proc/self/fd/{inner}", mode)
            except BaseException:
                os.close(at)
                raise
        except BaseException:
            os.close(at)
            raise
        os.close(at)
        at = inner
    return at


def _bind(source: int, target: Path) -> None:
    info = os.fstat(source)
    if is_bound(target):
        there = os.lstat(target)
        if (there.st_dev, there.st_ino) == (info.st_dev, info.st_ino):
            return
        unmount_below(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(info.st_mode):
        if target.exists() and not target.is_dir():
            target.unlink()
        target.mkdir(exist_ok=True)
    else:
        if target.is_dir():
            target.rmdir()
        target.touch()
    done = _libc().mount(
        f"/proc/self/fd/{source}".encode(),
        os.fsencode(target),
        None,
        ctypes.c_ulong(_MS_BIND | _MS_REC),
        None,
    )
    _check(done, os.fspath(target))


def is_bound(target: Path) -> bool:
    """Whether something is mounted at ``target``, be it from the same file system."""
    return target.exists() and os.fspath(target) in mounts_below(target)
