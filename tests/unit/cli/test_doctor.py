"""Each check of doctor on a made-up machine, and the verdict over all of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.cli import checks, doctor
from tandem.cli.checks import Check
from tandem.config import Settings
from tandem.instance import InstanceLock
from tests.unit.cli.conftest import Run

Out = pytest.CaptureFixture[str]


def test_namespaces_that_the_kernel_lacks_are_named(tmp_path: Path) -> None:
    for name in ("mnt", "net", "pid", "ipc", "uts", "cgroup"):
        (tmp_path / name).touch()
    assert checks.namespaces(tmp_path).verdict == "ok"
    (tmp_path / "net").unlink()
    assert checks.namespaces(tmp_path).problem == "the kernel lacks net"


@pytest.mark.parametrize(
    ("mounts", "verdict", "words"),
    [
        ("c /c cgroup rw,cpu,cpuacct 0 0\nm /m cgroup rw,memory 0 0\np /p cgroup rw,pids 0 0\n", "ok", "v1: cpu"),
        ("c /c cgroup rw,cpu 0 0\n", "fail", "no memory, pids controller is mounted"),
        ("", "fail", "no cpu, memory, pids controller is mounted"),
    ],
)  # fmt: skip
def test_cgroups(tmp_path: Path, mounts: str, verdict: str, words: str) -> None:
    (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "known").write_text("#name\ncpu\t1\nmemory\t1\npids\t1\n")
    check = checks.cgroups(tmp_path / "mounts", tmp_path / "known")
    assert check.verdict == verdict
    assert words in check.detail + check.problem
    assert verdict == "ok" or "cgroupfs-mount" in check.fix


def test_cgroups_of_version_two(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids io\n")
    (tmp_path / "mounts").write_text(f"c {tmp_path} cgroup2 rw 0 0\n")
    assert checks.cgroups(tmp_path / "mounts", tmp_path / "known").detail.startswith("v2")


def test_an_overlay_file_system_is_good_to_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "filesystems").write_text("nodev\toverlay\n")
    assert checks.overlay(tmp_path / "filesystems").verdict == "ok"
    (tmp_path / "filesystems").write_text("\text4\n")
    monkeypatch.setenv("PATH", str(tmp_path))  # where no modprobe is
    assert checks.overlay(tmp_path / "filesystems").verdict == "warn"


@pytest.mark.parametrize(("free", "verdict"), [(100, "ok"), (3, "warn"), (0.1, "fail")])
def test_disk_space_is_looked_up_where_the_directory_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, verdict: str
) -> None:
    asked: list[Path] = []

    class Usage:
        def __init__(self, path: Path) -> None:
            asked.append(path)
            self.free = free * (1 << 30)

    monkeypatch.setattr("shutil.disk_usage", Usage)
    assert checks.disk(tmp_path / "to" / "come").verdict == verdict
    assert asked == [tmp_path]


def test_an_address_is_free_or_ours_or_somebody_elses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(data_dir=tmp_path, listen_port=taken.getsockname()[1])
        assert "cannot listen" in checks.address(settings).problem
        lock = InstanceLock(settings.lock_file)
        assert "held by the daemon" in checks.address(settings).detail
        lock.release()
    assert "is free" in checks.address(settings).detail


def test_the_runtimes_are_asked_through_their_adapters() -> None:
    settings = Settings(container_runtime="memory", vm_runtime="memory")
    found = {check.name: check for check in checks.runtimes(settings)}
    assert set(found) == {"container runtime", "virtual machines"}
    assert all(check.verdict == "ok" and "memory" in check.detail for check in found.values())


def test_a_runtime_type_that_nobody_knows_fails_with_the_known_ones() -> None:
    [check] = checks.runtimes(Settings(container_runtime="docker"))
    assert check.verdict == "fail"
    assert "known types" in check.problem


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    found: list[Check] = []

    def all_checks(_: Settings) -> Iterator[Check]:
        yield from found

    monkeypatch.setattr(doctor, "all_checks", all_checks)
    return found


def test_a_warning_is_shown_with_its_fix_and_fails_nothing(
    run: Run, made: list[Check], capsys: Out
) -> None:
    made += [Check("a", "well"), Check("b", problem="odd", fix="do", essential=False)]
    assert run("doctor") == 0
    assert capsys.readouterr().out == "ok    a: well\nwarn  b: odd\n      fix: do\n"


def test_something_essential_fails(run: Run, made: list[Check], capsys: Out) -> None:
    made += [Check("a", "well"), Check("b", problem="bad", fix="do")]
    assert run("doctor") == 1
    out, err = capsys.readouterr()
    assert "fail  b: bad\n      fix: do\n" in out
    assert err == "error: 1 of 2 checks failed\n"
    assert run("doctor", "-o", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is False
    assert [check["verdict"] for check in found["checks"]] == ["ok", "fail"]
