"""Disk image headers, written and read, against QEMU's own tools."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import InvalidSpec
from tandem.host import qcow2

MIB = 1 << 20


def _qemu_img(*words: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _info(path: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(_qemu_img("info", "--output=json", path))
    return info


@pytest.mark.parametrize("size", [512, MIB, 3 * MIB + 512, 10 << 30, qcow2.MAX_SIZE])
def test_an_empty_disk_is_what_qemu_makes_of_it(tmp_path: Path, size: int) -> None:
    path = tmp_path / "disk.qcow2"
    qcow2.create(path, size)
    info = _info(path)
    assert (info["format"], info["virtual-size"]) == ("qcow2", size)
    assert "No errors" in _qemu_img("check", path)
    assert qcow2.inspect(path) == qcow2.ImageInfo("qcow2", size)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_an_overlay_shows_what_it_lies_on(tmp_path: Path, format: qcow2.Format) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(range(256)) * 4096)
    base = tmp_path / "base"
    _qemu_img("convert", "-f", "raw", "-O", format, raw, base)
    overlay = tmp_path / "overlay.qcow2"
    qcow2.create(overlay, qcow2.inspect(base).size, backing=("base", format))
    info = _info(overlay)
    assert info["backing-filename-format"] == format
    assert info["full-backing-filename"] == str(base)
    assert "identical" in _qemu_img("compare", overlay, raw)
    assert "No errors" in _qemu_img("check", overlay)


def test_what_a_guest_writes_is_for_the_owner_only(tmp_path: Path) -> None:
    qcow2.create(tmp_path / "disk", MIB)
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o600


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    qcow2.create(tmp_path / "disk", MIB)
    with pytest.raises(FileExistsError):
        qcow2.create(tmp_path / "disk", MIB)


def test_a_raw_image_has_whole_sectors(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 700)
    assert qcow2.inspect(tmp_path / "raw") == qcow2.ImageInfo("raw", 1024)


@pytest.mark.parametrize(
    "options", ["compat=0.10", "compat=1.1", "cluster_size=4k,lazy_refcounts=on"]
)
def test_images_of_every_kind_that_qemu_makes_are_read(tmp_path: Path, options: str) -> None:
    _qemu_img("create", "-f", "qcow2", "-o", options, tmp_path / "disk", "5M")
    assert qcow2.inspect(tmp_path / "disk") == qcow2.ImageInfo("qcow2", 5 * MIB)


def test_an_image_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    _qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", tmp_path / "a", "1M")
    with pytest.raises(InvalidSpec, match="has a backing file"):
        qcow2.inspect(tmp_path / "a")
    option = f"data_file={tmp_path}/data"
    _qemu_img("create", "-f", "qcow2", "-o", option, tmp_path / "b", "1M")
    with pytest.raises(InvalidSpec, match="external data file"):
        qcow2.inspect(tmp_path / "b")


@pytest.mark.parametrize(("format", "name"), [("vmdk", "vmdk"), ("vhdx", "vhdx"), ("qed", "qed")])
def test_other_formats_are_refused_by_name(tmp_path: Path, format: str, name: str) -> None:
    _qemu_img("create", "-f", format, tmp_path / "disk", "10M")
    with pytest.raises(InvalidSpec, match=f"format is {name}"):
        qcow2.inspect(tmp_path / "disk")


@pytest.mark.parametrize(
    ("offset", "patch", "words"),
    [
        (4, struct.pack(">I", 9), "version is 9"),
        (24, struct.pack(">Q", 1 << 60), "claims a size"),
        (24, struct.pack(">Q", 0), "claims a size"),
        (32, struct.pack(">I", 1), "encrypted"),
        (72, struct.pack(">Q", 2), "marked corrupt"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    tmp_path: Path, offset: int, patch: bytes, words: str
) -> None:
    qcow2.create(tmp_path / "disk", MIB)
    content = bytearray((tmp_path / "disk").read_bytes())
    content[offset : offset + len(patch)] = patch
    (tmp_path / "disk").write_bytes(content)
    with pytest.raises(InvalidSpec, match=words):
        qcow2.inspect(tmp_path / "disk")


def test_a_truncated_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"QFI\xfb\0\0\0\3")
    with pytest.raises(InvalidSpec, match="truncated"):
        qcow2.inspect(tmp_path / "disk")
