"""Small read-only CD images: files in a few folders, as first-boot data is handed to a guest.

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
    """The image: ``volume`` is its label (up to 16 characters), ``files`` the content by path (names
    of up to 64 characters, folders as in ``openstack/latest/user_data``). ``now`` stamps it, in
    seconds since the epoch."""
    assert 0 < len(volume) <= 16, "a Joliet label has 1 to 16 characters"
    steps = [step for path in files for step in path.split("/")]
    assert all(0 < len(step) <= 64 for step in steps), "names of 1 to 64 characters only"
    moment = time.gmtime(now)

    trees = [_Tree(_iso_name, files, moment), _Tree(_joliet_name, files, moment)]
    lba = _FIRST_FREE
    for tree in trees:
        lba = tree.place(lba)
    extents = {}
    for path in sorted(files):
        extents[path] = (lba, len(files[path]))
        lba += -(-len(files[path]) // SECTOR)
    lba += _PADDING

    image = bytearray(lba * SECTOR)
    for index, tree in enumerate(trees):
        descriptor = _descriptor(volume, tree, lba, moment, joliet=index == 1)
        _put(image, _LAYOUT[index], descriptor)
        _put(image, _LAYOUT[3 + 2 * index], tree.path_table("<"))
        _put(image, _LAYOUT[4 + 2 * index], tree.path_table(">"))
        for folder in tree.folders:
            _put(image, tree.places[folder][0], tree.directory(folder, extents))
    _put(image, _LAYOUT[2], b"\xffCD001\x01")
    for path, (start, _) in extents.items():
        _put(image, start, files[path])
    return bytes(image)


def _put(image: bytearray, lba: int, content: bytes) -> None:
    image[lba * SECTOR : lba * SECTOR + len(content)] = content


class _Tree:
    """One hierarchy of folders: where they lie, and how it spells names. The root is ``""``."""

    def __init__(
        self,
        spell: Callable[[str, bool], bytes],
        files: Mapping[str, bytes],
        moment: time.struct_time,
    ) -> None:
        self._spell = spell
        self._moment = moment
        self._files = sorted(files)
        found = {""}
        for path in self._files:
            while path := path.rpartition("/")[0]:
                found.add(path)
        # By depth, then by parent, as the table of paths must have them.
        self.folders = sorted(found, key=lambda path: (len(path.split("/")) if path else 0, path))
        self.places: dict[str, tuple[int, int]] = dict.fromkeys(self.folders, (0, 0))

    def place(self, lba: int) -> int:
        """Lay the folders out from ``lba`` on; returns the first sector after them."""
        for folder in self.folders:
            size = len(self.directory(folder, dict.fromkeys(self._files, (0, 0))))
            self.places[folder] = (lba, size)
            lba += size // SECTOR
        return lba

    def record(self, folder: str, name: bytes) -> bytes:
        """A folder's record, as ``name``."""
        return _record(name, *self.places[folder], _DIRECTORY, self._moment)

    def directory(self, folder: str, extents: Mapping[str, tuple[int, int]]) -> bytes:
        """A folder's sectors; no record straddles two."""
        content = self.record(folder, b"\0") + self.record(_parent(folder), b"\1")
        children = [path for path in self.folders if path and _parent(path) == folder]
        for path in sorted([*children, *(p for p in self._files if _parent(p) == folder)]):
            name = path.rpartition("/")[2]
            if path in extents:
                spelled = self._spell(name, False)
                record = _record(spelled, *extents[path], 0, self._moment)
            else:
                record = self.record(path, self._spell(name, True))
            if len(content) % SECTOR + len(record) > SECTOR:
                content = content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0")
            content += record
        return content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0")

    def path_table(self, order: str) -> bytes:
        """Every folder with where it lies and the number of the one that it is in."""
        table = b""
        for folder in self.folders:
            name = self._spell(folder.rpartition("/")[2], True) if folder else b"\0"
            parent = self.folders.index(_parent(folder)) + 1
            table += struct.pack(f"{order}BBIH", len(name), 0, self.places[folder][0], parent)
            table += name + b"\0" * (len(name) % 2)
        assert len(table) <= SECTOR, "a few folders only"
        return table


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _iso_name(name: str, folder: bool) -> bytes:
    spelled = name.upper().encode("ascii", "replace")[:28]
    return spelled if folder else spelled + b";1"


def _joliet_name(name: str, folder: bool) -> bytes:
    return (name if folder else f"{name};1").encode("utf-16-be")


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
            _both(len(tree.path_table("<")), "I"),
            struct.pack("<II", tables[0], 0),
            struct.pack(">II", tables[1], 0),
            tree.record("", b"\0"),
            text("", 128) * 4,  # volume set, publisher, preparer, application
            text("", 37) * 3,  # copyright, abstract and bibliography files
            stamp * 2,  # made and changed; never expires, effective at once
            never * 2,
            b"\x01\0",
        )
    )
