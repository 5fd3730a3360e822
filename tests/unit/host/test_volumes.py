"""Directories, mounts and files of volumes on this host."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.host import volumefiles, volumes
from tandem.host.volumefiles import File, write_files
from tandem.host.volumes import VolumeProblem


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pods" / "u1"
    path.mkdir(parents=True)
    yield path
    volumes.remove(path)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# Files that change together -------------------------------------------------------------------


def test_files_are_links_through_one_link(tmp_path: Path) -> None:
    assert write_files(tmp_path, {"a": File(b"1"), "deep/er/b": File(b"2", 0o400)})
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "deep") == "..data/deep"
    assert (tmp_path / "deep/er/b").read_bytes() == b"2"
    data = tmp_path / os.readlink(tmp_path / "..data")
    assert data.name.startswith("..2")
    assert [mode_of(data / name) for name in ("a", "deep/er/b")] == [0o644, 0o400]


def test_an_update_is_one_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": File(b"1"), "b": File(b"1")})
    with open(tmp_path / "a", "rb") as before:
        assert write_files(tmp_path, {"a": File(b"2"), "c": File(b"2")})
        assert before.read() == b"1"  # who has a file open goes on reading it
    assert (tmp_path / "a").read_bytes() == b"2"
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith("..2")} == {
        "..data",
        "a",
        "c",
    }
    assert len(list(tmp_path.glob("..2*"))) == 1


def test_equal_files_are_not_written_again(tmp_path: Path) -> None:
    files = {"a": File(b"1"), "b": File(b"2", 0o600)}
    write_files(tmp_path, files)
    data = os.readlink(tmp_path / "..data")
    assert not write_files(tmp_path, files)
    assert os.readlink(tmp_path / "..data") == data
    assert write_files(tmp_path, {**files, "b": File(b"2", 0o644)})


def test_a_full_disk_leaves_the_files_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"a": File(b"1")})

    def full(directory: Path, *_: object) -> None:
        (directory / "a").write_bytes(b"")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(volumefiles, "_fill", full)
        with pytest.raises(OSError, match="No space left on device"):
            write_files(tmp_path, {"a": File(b"2")})
    assert (tmp_path / "a").read_bytes() == b"1"
    assert len(list(tmp_path.glob("..2*"))) == 1
    assert write_files(tmp_path, {"a": File(b"2")})
    assert (tmp_path / "a").read_bytes() == b"2"


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": File(b"1")})
    (tmp_path / "..2020_01_01_00_00_00.1").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..2020_01_01_00_00_00.1")
    write_files(tmp_path, {"a": File(b"2")})
    assert sorted(p.name for p in tmp_path.iterdir())[1:] == ["..data", "a"]


def test_a_group_may_read_the_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": File(b"1", 0o400), "token": File(b"2", 0o600, uid=7)}, gid=2000)
    info = (tmp_path / "a").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_gid, info.st_uid) == (0o440, 2000, 0)
    assert (tmp_path / "token").stat().st_uid == 7
    assert not write_files(
        tmp_path, {"a": File(b"1", 0o400), "token": File(b"2", 0o600, uid=7)}, gid=2000
    )


# Directories and mounts -----------------------------------------------------------------------


def test_a_directory_that_is_there_keeps_what_was_made_of_it(folder: Path) -> None:
    path = folder / "cache"
    volumes.make_directory(path, mode=0o2777, gid=2000)
    assert mode_of(path) == 0o2777
    assert path.stat().st_gid == 2000
    path.chmod(0o700)
    volumes.make_directory(path, mode=0o777)
    assert mode_of(path) == 0o700
    assert [p.name for p in folder.iterdir()] == ["cache"]


def test_memory_is_bounded_and_gone_in_the_end(folder: Path) -> None:
    path = folder / "volumes" / "with space"
    volumes.mount_tmpfs(path, mode=0o777, size=65536)
    volumes.mount_tmpfs(path, mode=0o777, size=65536)
    assert volumes.mounts_below(folder) == [str(path)]
    with pytest.raises(OSError, match="No space left"):
        (path / "big").write_bytes(bytes(200_000))
    volumes.remove(folder)
    assert volumes.mounts_below(folder) == []
    assert not folder.exists()


def test_nothing_outside_is_removed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("yes")
    inside = folder / "volumes" / "x"
    inside.mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    volumes.bind_part(tmp_path, "outside", inside / "bound")
    volumes.remove(folder)
    volumes.remove(folder)
    assert (outside / "kept").read_text() == "yes"
    assert not folder.exists()


def test_what_stays_mounted_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "volumes" / "x"
    volumes.mount_tmpfs(path, mode=0o755)
    (path / "file").write_text("kept")
    with monkeypatch.context() as patch:
        patch.setattr(volumes._libc(), "umount2", lambda *_: -1)
        with pytest.raises(OSError, match="stays"):
            volumes.remove(folder)
    assert (path / "file").read_text() == "kept"


def test_use_counts_each_file_once(tmp_path: Path) -> None:
    before = volumes.usage(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(bytes(100_000))
    os.link(tmp_path / "sub" / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to("/usr")
    assert 100_000 <= volumes.usage(tmp_path) - before < 120_000


# Groups -----------------------------------------------------------------------------------------


def test_a_group_gets_everything_but_what_links_lead_to(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.write_text("x")
    outside.chmod(0o600)
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_text("x")
    (root / "sub" / "file").chmod(0o600)
    (root / "link").symlink_to(outside)
    volumes.set_group(root, 2000)
    assert (root / "sub" / "file").stat().st_gid == 2000
    assert mode_of(root / "sub" / "file") == 0o660
    assert mode_of(root / "sub") & 0o2770 == 0o2770
    assert (root / "link").lstat().st_gid == 2000
    assert (outside.stat().st_gid, mode_of(outside)) == (0, 0o600)


def test_a_root_that_fits_spares_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    volumes.set_group(root, 2000)
    (root / "new").write_text("x")
    os.chown(root / "new", 0, 0)
    volumes.set_group(root, 2000, on_mismatch=True)
    assert (root / "new").stat().st_gid == 0
    volumes.set_group(root, 2000)
    assert (root / "new").stat().st_gid == 2000


# hostPath ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Directory", "is not a directory"),
        ("DirectoryOrCreate", "is not a directory"),
        ("Socket", "is not a socket file"),
        ("CharDevice", "is not a character device"),
        ("BlockDevice", "is not a block device"),
    ],
)
def test_a_file_is_nothing_else(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    volumes.check_host_path(str(path), "File")
    volumes.check_host_path(str(path), "")
    with pytest.raises(VolumeProblem) as caught:
        volumes.check_host_path(str(path), kind)
    assert str(caught.value) == f"hostPath type check failed: {path} {words}"


def test_a_path_is_made_where_the_type_says_so(tmp_path: Path) -> None:
    for missing in ("Directory", "File"):
        with pytest.raises(VolumeProblem, match="hostPath type check failed"):
            volumes.check_host_path(str(tmp_path / "no"), missing)
    volumes.check_host_path(str(tmp_path / "a" / "b"), "DirectoryOrCreate")
    assert (tmp_path / "a" / "b").is_dir()
    volumes.check_host_path(str(tmp_path / "a" / "file"), "FileOrCreate")
    assert mode_of(tmp_path / "a" / "file") == 0o644
    with pytest.raises(VolumeProblem, match=r"cannot make .*No such file or directory"):
        volumes.check_host_path(str(tmp_path / "x" / "file"), "FileOrCreate")
    volumes.check_host_path("/dev/null", "CharDevice")


# Parts --------------------------------------------------------------------------------------------


def test_a_part_is_made_with_the_modes_of_the_volume(folder: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volumes.make_directory(volume, mode=0o2777, gid=2000)
    target = folder / "volume-subpaths" / "v" / "c" / "0"
    volumes.bind_part(volume, "a/b", target)
    assert mode_of(volume / "a" / "b") == 0o2777
    assert (volume / "a" / "b").stat().st_gid == 2000
    (target / "x").write_text("seen")
    assert (volume / "a" / "b" / "x").read_text() == "seen"
    volumes.bind_part(volume, "a/b", target)
    assert len(volumes.mounts_below(folder)) == 1
    volumes.bind_part(volume, "a", target)  # another part takes its place
    assert [p.name for p in target.iterdir()] == ["b"]
    volumes.bind_part(volume, "a/b/x", target.with_name("1"))
    assert target.with_name("1").read_text() == "seen"


@pytest.mark.parametrize("link", ["/etc", "../secret", "inner/../../secret"])
def test_no_part_leads_out_of_the_volume(folder: Path, tmp_path: Path, link: str) -> None:
    volume = tmp_path / "volume"
    (volume / "inner").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (volume / "out").symlink_to(link)
    for part in ("out", "out/new", "out/passwd"):
        with pytest.raises(OSError, match="Invalid cross-device link"):
            volumes.bind_part(volume, part, folder / "volume-subpaths" / "0")
    assert list((tmp_path / "secret").iterdir()) == []
    assert volumes.mounts_below(folder) == []


def test_links_that_stay_inside_are_followed(folder: Path, tmp_path: Path) -> None:
    write_files(tmp_path, {"key": File(b"1")})
    target = folder / "volume-subpaths" / "0"
    volumes.bind_part(tmp_path, "key", target)
    write_files(tmp_path, {"key": File(b"2")})
    assert target.read_bytes() == b"1"  # a part does not follow updates
    volumes.bind_part(tmp_path, "key", target)
    assert target.read_bytes() == b"2"  # but the next container sees them
