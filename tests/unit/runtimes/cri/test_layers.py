"""Files in the layers of an image, where upper layers hide lower ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tandem.errors import InvalidSpec, Unsupported
from tandem.runtimes.cri import layers
from tandem.runtimes.cri._gen import containerd_types_pb2 as types
from tandem.runtimes.cri.imagedirectories import mount_command
from tandem.runtimes.cri.imagefiles import directories_of
from tandem.runtimes.cri.layers import find_file, only_file
from tandem.runtimes.cri.snapshots import chain_id


@pytest.fixture
def image(tmp_path: Path) -> list[Path]:
    """Two layers, the topmost first."""
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer in (top, bottom):
        (layer / "disk").mkdir(parents=True)
    return [top, bottom]


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def test_the_upper_of_two_files_is_found(image: list[Path]) -> None:
    for layer in image:
        (layer / "disk/a").write_text(layer.name)
    assert find_file(image, "/disk/a").read_text() == "top"


def test_a_file_of_a_lower_layer_shows_through(image: list[Path]) -> None:
    (image[1] / "disk/a").write_text("bottom")
    assert find_file(image, "disk/./a") == image[1] / "disk/a"


def test_a_removed_file_is_not_found(image: list[Path]) -> None:
    (image[1] / "disk/a").write_text("bottom")
    whiteout(image[0] / "disk/a")
    with pytest.raises(InvalidSpec, match="no such file"):
        find_file(image, "disk/a")
    with pytest.raises(InvalidSpec, match="no file found"):
        only_file(image, "disk")


def test_a_removed_folder_hides_all_that_was_in_it(image: list[Path]) -> None:
    (image[1] / "disk/a").write_text("bottom")
    (image[0] / "disk").rmdir()
    whiteout(image[0] / "disk")
    with pytest.raises(InvalidSpec):
        find_file(image, "disk/a")


def test_a_folder_made_anew_hides_the_old_one(
    image: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_is_opaque", lambda path: path == image[0] / "disk")
    (image[1] / "disk/a").write_text("bottom")
    with pytest.raises(InvalidSpec):
        find_file(image, "disk/a")


def test_a_file_in_the_place_of_a_folder_hides_it(image: list[Path]) -> None:
    (image[1] / "disk/a").write_text("bottom")
    (image[0] / "disk").rmdir()
    (image[0] / "disk").write_text("now a file")
    with pytest.raises(InvalidSpec):
        find_file(image, "disk/a")
    assert find_file(image, "disk").read_text() == "now a file"


def test_links_are_followed_inside_the_image_only(image: list[Path]) -> None:
    (image[1] / "etc").mkdir()
    (image[1] / "etc/passwd").write_text("the image's")
    (image[0] / "disk/absolute").symlink_to("/etc/passwd")
    (image[0] / "disk/up").symlink_to("../../../../etc/passwd")
    (image[0] / "here").symlink_to("disk")
    (image[0] / "loop").symlink_to("loop")
    for path in ("disk/absolute", "disk/up", "here/up", "../../etc/passwd"):
        assert find_file(image, path) == image[1] / "etc/passwd"
    with pytest.raises(InvalidSpec, match="too many symbolic links"):
        find_file(image, "loop")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("disk", "it is a folder"),
        ("/", "it is a folder"),
        ("disk/pipe", "not a regular"),
        ("disk/file/more", "not a regular"),
    ],
)
def test_what_is_no_file_is_refused(image: list[Path], path: str, why: str) -> None:
    os.mkfifo(image[0] / "disk/pipe")
    (image[0] / "disk/file").touch()
    with pytest.raises(InvalidSpec, match=why):
        find_file(image, path)


def test_the_only_file_of_a_folder(image: list[Path]) -> None:
    (image[1] / "disk/disk.img").write_text("disk")
    (image[1] / "disk/old").touch()
    whiteout(image[0] / "disk/old")
    assert only_file(image, "disk").read_text() == "disk"
    (image[0] / "disk/second").touch()
    with pytest.raises(InvalidSpec, match=r"more than one file found: disk\.img, second"):
        only_file(image, "disk")
    with pytest.raises(InvalidSpec, match="no file found"):
        only_file(image, "absent")


def test_the_directories_behind_a_view() -> None:
    bind = types.Mount(type="bind", source="/snapshots/1/fs")
    overlay = types.Mount(
        type="overlay", options=["ro", "lowerdir=/snapshots/2/fs:/snapshots/1/fs"]
    )
    assert directories_of([bind]) == [Path("/snapshots/1/fs")]
    assert directories_of([overlay]) == [Path("/snapshots/2/fs"), Path("/snapshots/1/fs")]
    with pytest.raises(Unsupported, match="ext4"):
        directories_of([types.Mount(type="ext4", source="/dev/dm-1")])


def test_the_chain_of_layers_is_named_as_the_image_format_has_it() -> None:
    assert chain_id(["sha256:aa"]) == "sha256:aa"
    # printf 'sha256:aa sha256:bb' | sha256sum, and that with the next one once more
    two = "sha256:b68ad689d6d1ec110ea1c13617437ad6f3766d4b3b309f6a603a222e07a0164f"
    three = "sha256:ced946a3b9b1c697ead0fa9bf9ad36e03198566077f3950076f64a4760acde1b"
    assert chain_id(["sha256:aa", "sha256:bb"]) == two
    assert chain_id(["sha256:aa", "sha256:bb", "sha256:cc"]) == three
    with pytest.raises(InvalidSpec):
        chain_id([])


def test_a_view_is_mounted_as_the_snapshotter_says(tmp_path: Path) -> None:
    bind = types.Mount(type="bind", source="/layers/1/fs", options=["ro", "rbind"])
    assert mount_command([bind], Path("/t")) == ["mount", "-o", "bind,ro", "/layers/1/fs", "/t"]
    lower = ":".join(f"/very/long/name/of/layers/{number}/fs" for number in range(200))
    overlay = types.Mount(type="overlay", source="overlay", options=[f"lowerdir={lower}"])
    command = mount_command([overlay], Path("/t"))
    assert command[3] == "/very/long/name/of/layers"
    assert command[4].startswith("0/fs:1/fs:2/fs:")
    assert len(command[4]) < 4000
    with pytest.raises(Unsupported):
        mount_command([types.Mount(type="zfs")], Path("/t"))
