"""Empty control groups of machines that ended unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tandem.runtimes.libvirt import groups


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "memory").mkdir()
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "proc /proc proc rw 0 0\n"
        f"cgroup {tmp_path}/memory cgroup rw,memory 0 0\n"
        f"cgroup {tmp_path}/gone cgroup rw,cpu 0 0\n"
    )
    monkeypatch.setattr(groups, "_MOUNTS", mounts)
    return tmp_path / "memory"


def _group(hierarchy: Path, name: str) -> Path:
    group = hierarchy / "machine" / f"{name}.libvirt-qemu"
    for child in ("emulator", "vcpu0"):
        (group / child).mkdir(parents=True)
    return group


def test_the_groups_of_that_machine_are_removed_and_no_others(hierarchy: Path) -> None:
    mine = [_group(hierarchy, f"qemu-{number}-defaultvm.1") for number in (3, 17)]
    others = [_group(hierarchy, name) for name in ("qemu-4-defaultvm.10", "lxc-3-defaultvm.1")]
    groups.remove("default_vm.1")
    assert not any(group.exists() for group in mine)
    assert all(group.exists() for group in others)


def test_a_group_in_use_stays(hierarchy: Path) -> None:
    group = _group(hierarchy, "qemu-1-vm")
    (group / "emulator" / "process").touch()  # what makes rmdir fail here
    groups.remove("vm")
    assert group.exists()


def test_a_host_without_groups_is_fine(hierarchy: Path) -> None:
    groups.remove("vm")
