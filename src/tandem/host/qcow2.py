"""Disk image formats: tell what an image is, and make an empty qcow2 or one on top of another.

Written out because both are on the way of every start of a machine: a header is read and a file of
four clusters is written in well under a millisecond, where each run of ``qemu-img`` takes 10 to 30 ms
on a busy host. Reading a header here also means that no image from a registry is opened by a program
that follows what the image says (backing and data files on the host). ``docs/interop/qcow2.txt`` in
QEMU's source describes the format; the tests hold what is written against ``qemu-img check``.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tandem.errors import Cause, InvalidSpec

Format = Literal["qcow2", "raw"]

SECTOR = 512
CLUSTER = 1 << 16  # QEMU's default

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")  # version 3, up to and including header_length
_BACKING_FORMAT = 0xE2792ACA  # header extension: the format's name
_FEATURE_NAMES_END = 0
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2  # incompatible features
_CLUSTER_BITS = range(9, 22)
MAX_SIZE = 64 << 40  # beyond any disk here; bounds the tables written for an image's own claim

# What else could be inside a "disk image"; QEMU is told `raw` for everything it is not asked to
# parse, so these would boot as garbage rather than do harm, and the user is better told at once.
_FOREIGN = {
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
    b"<<< ": "vdi",
    b"QED\0": "qed",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """``size`` is what the guest sees, in bytes."""

    format: Format
    size: int


def inspect(path: Path) -> ImageInfo:
    """What the disk image at ``path`` is. Blocking.

    Raises ``InvalidSpec`` for a format other than raw and qcow2, and for a qcow2 that is encrypted,
    marked corrupt, or refers to other files.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        length = os.fstat(file.fileno()).st_size
    if not head.startswith(_MAGIC):
        for magic, name in _FOREIGN.items():
            if head.startswith(magic):
                raise _refused(path, f"its format is {name}; only raw and qcow2 are supported")
        return ImageInfo("raw", -(-length // SECTOR) * SECTOR)
    if len(head) < _HEADER.size:
        raise _refused(path, "it is truncated")
    fields = _HEADER.unpack(head)
    version, backing, bits, size, encryption = (fields[i] for i in (1, 2, 4, 5, 6))
    entries, table, features = (fields[i] for i in (7, 8, 13))
    if version not in (2, 3):
        raise _refused(path, f"its qcow2 version is {version}; only 2 and 3 are supported")
    if backing:
        raise _refused(path, "it has a backing file")
    if encryption:
        raise _refused(path, "it is encrypted")
    if version == 3 and features & _EXTERNAL_DATA:
        raise _refused(path, "it has an external data file")
    if version == 3 and features & _CORRUPT:
        raise _refused(path, "it is marked corrupt")
    if not 0 < size <= MAX_SIZE:
        raise _refused(path, f"it claims a size of {size} bytes")
    # Each entry of the first table covers one cluster's worth of the second.
    if bits not in _CLUSTER_BITS or entries < -(-size // (1 << (2 * bits - 3))):
        raise _refused(path, "its tables do not fit its size")
    if table + 8 * entries > length:
        raise _refused(path, "it is truncated")
    return ImageInfo("qcow2", -(-size // SECTOR) * SECTOR)


def _refused(path: Path, why: str) -> InvalidSpec:
    message = f"disk image {path.name} cannot be used: {why}"
    return InvalidSpec(message, causes=[Cause("image", why)])


def create(path: Path, size: int, *, backing: tuple[str, Format] | None = None) -> None:
    """Write a qcow2 image of ``size`` bytes to ``path``, which must not exist. Blocking.

    ``backing``: the file on top of which it lies (its name as QEMU is to find it, relative to
    ``path``'s directory or absolute) and that file's format.
    """
    assert 0 < size <= MAX_SIZE, "a disk has a size that makes sense"
    assert size % SECTOR == 0, "a disk has whole sectors"
    l1_entries = max(1, -(-size // (CLUSTER * CLUSTER // 8)))  # each covers 512 MiB
    l1_clusters = -(-l1_entries * 8 // CLUSTER)
    name = os.fsencode(backing[0]) if backing else b""
    extensions = b""
    if backing:
        kind = backing[1].encode()
        padded = kind.ljust(-(-len(kind) // 8) * 8, b"\0")
        extensions += struct.pack(">II", _BACKING_FORMAT, len(kind)) + padded
    extensions += struct.pack(">II", _FEATURE_NAMES_END, 0)
    header = _HEADER.pack(
        _MAGIC,
        3,
        _HEADER.size + len(extensions) if backing else 0,
        len(name),
        16,  # cluster bits
        size,
        0,  # encryption
        l1_entries,
        3 * CLUSTER,  # L1 table
        CLUSTER,  # refcount table
        1,  # of so many clusters
        0,  # snapshots
        0,  # their table
        0,  # incompatible features
        0,  # compatible features
        0,  # autoclear features
        4,  # refcounts of 16 bits
        _HEADER.size,
    )
    used = 3 + l1_clusters
    refcounts = struct.pack(f">{used}H", *([1] * used))
    # For the owner only: what a guest writes is nobody else's business.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(header + extensions + name)
        file.seek(CLUSTER)
        file.write(struct.pack(">Q", 2 * CLUSTER))
        file.seek(2 * CLUSTER)
        file.write(refcounts)
        file.truncate(used * CLUSTER)
