"""CD images, read back by somebody else's reader."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tandem.host import iso9660


def _extract(image: bytes, tmp_path: Path) -> dict[str, bytes]:
    path, target = tmp_path / "image.iso", tmp_path / "files"
    path.write_bytes(image)
    command = ["xorriso", "-osirrox", "on", "-indev", str(path), "-extract", "/", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = (file for file in target.rglob("*") if file.is_file())
    return {str(file.relative_to(target)): file.read_bytes() for file in found}


@pytest.mark.parametrize(
    "files",
    [
        {"user-data": b"#cloud-config\n", "meta-data": b"{}", "network-config": b"x" * 2048},
        {"empty": b"", "one-more-than-a-sector": b"y" * 2049},
        {f"a-rather-long-file-name-{number:03}.txt": bytes([number]) for number in range(100)},
        {"UPPER.lower": b"1", "ünï": b"2"},
        {"openstack/latest/user_data": b"1", "openstack/latest/meta_data.json": b"{}", "a": b"2"},
    ],
    ids=["seed", "sizes", "many", "names", "folders"],
)
def test_files_are_read_back_under_their_names(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert _extract(iso9660.build("cidata", files), tmp_path) == files


def test_the_label_is_found_by_the_usual_tools(tmp_path: Path) -> None:
    path = tmp_path / "image.iso"
    path.write_bytes(iso9660.build("cidata", {"user-data": b""}))
    done = subprocess.run(["blkid", "-p", "-o", "export", path], capture_output=True, text=True)
    assert {"LABEL=cidata", "TYPE=iso9660"} <= set(done.stdout.splitlines())


def test_the_same_content_gives_the_same_image() -> None:
    files = {"b": b"1", "a": b"2"}
    assert iso9660.build("x", files, now=0) == iso9660.build(
        "x", dict(sorted(files.items())), now=0
    )


@pytest.mark.parametrize("name", ["", "a//b", "x" * 65])
def test_names_that_are_no_file_names_are_misuse(name: str) -> None:
    with pytest.raises(AssertionError):
        iso9660.build("x", {name: b""})
