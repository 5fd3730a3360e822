"""The verdict on KVM: what is concluded from a probe, and when it is asked again.

QEMU is a script here; that the probe's image really passes and fails where it should is tested in
``tests/integration/test_machines_real.py``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tandem.runtimes.libvirt import accelerator as module
from tandem.runtimes.libvirt.accelerator import Accelerator, Verdict

PASSES = "printf 'rpluwmst.'; exit 85"


class Qemu:
    """A script in place of QEMU, which counts how often it is run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "qemu"
        self.cache = folder / "cache"
        self._count = folder / "count"

    def does(self, script: str) -> Accelerator:
        self.path.write_text(f"#!/bin/sh\necho >> {self._count}\n{script}\n")
        self.path.chmod(0o755)
        return self.accelerator()

    def accelerator(self) -> Accelerator:
        return Accelerator(self.path, None, self.cache)

    @property
    def runs(self) -> int:
        return len(self._count.read_text()) if self._count.exists() else 0


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Qemu:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(module, "_DEVICE", tmp_path / "kvm")
    return Qemu(tmp_path)


async def test_a_machine_that_ran_to_its_end_proves_kvm(qemu: Qemu) -> None:
    assert await qemu.does(PASSES).decide() == Verdict(True)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Could not access KVM kernel module' >&2; exit 1", "Could not access KVM"),
        ("printf r; kill -XCPU $$", "switch to protected mode"),
        ("printf rplu; kill -XCPU $$", "instructions are interpreted"),
        ("printf 'rplu!'; exit 3", "a check of its own"),
        ("printf 'rpluwmst.'; exit 1", "failed"),
        ("exit 85", "could not start"),
    ],
)
async def test_anything_less_disproves_it_and_says_where(
    qemu: Qemu, script: str, words: str
) -> None:
    verdict = await qemu.does(script).decide()
    assert not verdict.works
    assert words in verdict.reason
    assert verdict.final


async def test_without_the_device_nothing_is_run(qemu: Qemu) -> None:
    probing = qemu.does(PASSES)
    module._DEVICE.unlink()
    verdict = await probing.decide()
    assert not verdict.works
    assert "there is no" in verdict.reason
    assert qemu.runs == 0


async def test_the_verdict_is_remembered_by_everybody(qemu: Qemu) -> None:
    first = qemu.does(PASSES)
    await asyncio.gather(*(first.decide() for _ in range(3)))
    assert (await qemu.accelerator().decide()).works
    assert qemu.runs == 1


async def test_another_qemu_or_device_is_probed_again(qemu: Qemu) -> None:
    await qemu.does(PASSES).decide()
    assert not (await qemu.does("exit 1").decide()).works
    same = qemu.accelerator()
    await same.decide()
    module._DEVICE.chmod(0o600)
    await same.decide()
    assert qemu.runs == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', '{"key": "", "verdict": 3}'])
async def test_a_damaged_memory_is_no_harm(qemu: Qemu, content: str) -> None:
    qemu.cache.mkdir()
    (qemu.cache / "accelerator.json").write_text(content)
    assert (await qemu.does(PASSES).decide()).works


async def test_where_nothing_can_be_kept_it_still_decides(qemu: Qemu) -> None:
    qemu.cache.touch()
    assert (await qemu.does(PASSES).decide()).works


async def test_a_host_that_is_too_busy_is_asked_again(
    qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WALL_SECONDS", 0.05)
    probing = qemu.does("printf rp; sleep 60")
    verdict = await probing.decide()
    assert not verdict.works
    assert not verdict.final
    monkeypatch.setattr(module, "_WALL_SECONDS", 20.0)
    qemu.does(PASSES)
    assert (await probing.decide()).works
