"""Small read-only CD images: a flat folder of files, as first-boot data is handed to a guest.

An ISO 9660 volume (ECMA-119) with a second, Joliet tree that carries the exact file names; Linux, the
BSDs and Windows all read the latter. It is written out here because it is on the way of a machine's
start: it takes well under a millisecond, where a run of ``xorriso`` takes 100 ms of processor time.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping

SECTOR = 2048

_LAYOUT = (16, 17, 18, 19, 20, 21, 22)  # descriptors: primary, Joliet, end; path tables: 2 for each
_FIRST_FREE = 23
_JOLIET_LEVEL_3 = b"%/E"
_DIRECTORY = 2

# Blank sectors at the end, as every writer of CDs leaves them: those who look for a file system read
# the first 68 KiB of a device, and busybox takes one that is shorter for broken.
_PADDING = 150


def build(volume: str, files: Mapping[str, bytes], *, now: float | None = None) -> bytes:
    """The image: ``volume`` is its label (up to 16 characters), ``files`` the content by file name
    (plain names, up to 64 characters). ``now`` stamps it, in seconds since the epoch."""
    assert 0 < len(volume) <= 16, "a Joliet label has 1 to 16 characters"
    assert all(0 < len(name) <= 64 and "/" not in name for name in files), "plain file names only"
    moment = time.gmtime(now)
    names = sorted(files)

    trees = [_Tree(_iso_name, moment), _Tree(_joliet_name, moment)]
    lba = _FIRST_FREE
    for tree in trees:
        tree.place(lba, names)
        lba += tree.sectors
    extents = {}
    for name in names:
        extents[name] = (lba, len(files[name]))
        lba += -(-len(files[name]) // SECTOR)
    lba += _PADDING

    image = bytearray(lba * SECTOR)
    for index, tree in enumerate(trees):
        descriptor = _descriptor(volume, tree, lba, moment, joliet=index == 1)
        _put(image, _LAYOUT[index], descriptor)
        _put(image, _LAYOUT[3 + 2 * index], _path_table(tree.lba, "<"))
        _put(image, _LAYOUT[4 + 2 * index], _path_table(tree.lba, ">"))
        _put(image, tree.lba, tree.directory(extents))
    _put(image, _LAYOUT[2], b"\xffCD001\x01")
    for name, (start, _) in extents.items():
        _put(image, start, files[name])
    return bytes(image)


def _put(image: bytearray, lba: int, content: bytes) -> None:
    image[lba * SECTOR : lba * SECTOR + len(content)] = content


class _Tree:
    """One root directory: where it lies, and how it spells names."""

    def __init__(self, spell: Callable[[str], bytes], moment: time.struct_time) -> None:
        self._spell = spell
        self._moment = moment
        self.lba = 0
        self.sectors = 1

    def place(self, lba: int, names: list[str]) -> None:
        self.lba = lba
        self.sectors = len(self.directory(dict.fromkeys(names, (0, 0)))) // SECTOR

    def root_record(self, name: bytes = b"\0") -> bytes:
        return _record(name, self.lba, self.sectors * SECTOR, _DIRECTORY, self._moment)

    def directory(self, extents: Mapping[str, tuple[int, int]]) -> bytes:
        """The directory's sectors; no record straddles two."""
        content = self.root_record(b"\0") + self.root_record(b"\1")
        for name, (lba, size) in extents.items():
            record = _record(self._spell(name), lba, size, 0, self._moment)
            if len(content) % SECTOR + len(record) > SECTOR:
                content = content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0")
            content += record
        return content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0")


def _iso_name(name: str) -> bytes:
    return name.upper().encode("ascii", "replace")[:28] + b";1"


def _joliet_name(name: str) -> bytes:
    return f"{name};1".encode("utf-16-be")


def _both(value: int, code: str) -> bytes:
    """A number in both byte orders, as the format has nearly all of its numbers."""
    return struct.pack(f"<{code}", value) + struct.pack(f">{code}", value)


def _record(name: bytes, lba: int, size: int, flags: int, moment: time.struct_time) -> bytes:
    stamp = bytes([moment.tm_year - 1900, *moment[1:6], 0])
    body = b"\0" + _both(lba, "I") + _both(size, "I") + stamp
    body += bytes([flags, 0, 0]) + _both(1, "H") + bytes([len(name)]) + name
    if len(body) % 2 == 0:  # the record's own length byte comes on top
        body += b"\0"
    return bytes([len(body) + 1]) + body


def _path_table(root_lba: int, order: str) -> bytes:
    return struct.pack(f"{order}BBIHBB", 1, 0, root_lba, 1, 0, 0)


def _descriptor(
    volume: str, tree: _Tree, sectors: int, moment: time.struct_time, *, joliet: bool
) -> bytes:
    def text(value: str, width: int) -> bytes:
        encoded = value.encode("utf-16-be" if joliet else "ascii")
        blank = " ".encode("utf-16-be") if joliet else b" "
        return (encoded + blank * width)[:width]

    stamp = time.strftime("%Y%m%d%H%M%S00", moment).encode() + b"\0"
    never = b"0" * 16 + b"\0"
    tables = _LAYOUT[5:7] if joliet else _LAYOUT[3:5]
    return b"".join(
        (
            b"\x02" if joliet else b"\x01",
            b"CD001\x01\0",
            text("", 32),  # system
            text(volume, 32),
            bytes(8),
            _both(sectors, "I"),
            (_JOLIET_LEVEL_3 if joliet else b"").ljust(32, b"\0"),
            _both(1, "H"),  # discs in the set
            _both(1, "H"),  # number of this one
            _both(SECTOR, "H"),
            _both(len(_path_table(0, "<")), "I"),
            struct.pack("<II", tables[0], 0),
            struct.pack(">II", tables[1], 0),
            tree.root_record(),
            text("", 128) * 4,  # volume set, publisher, preparer, application
            text("", 37) * 3,  # copyright, abstract and bibliography files
            stamp * 2,  # made and changed; never expires, effective at once
            never * 2,
            b"\x01\0",
        )
    )
