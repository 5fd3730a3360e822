"""The files of machines: shared where they can be, complete or not there, and gone when removed."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import ImagePullError, InvalidSpec, Unsupported
from tandem.host import qcow2
from tandem.host.disks import MachineDisks


@dataclass
class Found:
    digest: str
    path: Path


class Images:
    """Stands for the container runtime: files of images in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None, str]] = []

    def add(self, name: str, content: bytes = b"x" * 1024, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    async def __call__(
        self, image: str, path: str | None, *, pull_policy: str = "IfNotPresent"
    ) -> Found:
        self.asked.append((image, path, pull_policy))
        if image == "missing":
            raise ImagePullError("no such image")
        return Found(f"sha256:{image}", self.folder / image)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    (tmp_path / "images").mkdir()
    return Images(tmp_path / "images")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def disks(data: Path, images: Images) -> MachineDisks:
    return MachineDisks(data, images, keep_unused=0)


def _vmi(*volumes: Mapping[str, Any], **domain: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "vm", "namespace": "default"},
        "spec": {"domain": domain, "volumes": [*volumes]},
    }


def _container_disk(image: str = "os", **rest: Any) -> dict[str, Any]:
    return {"name": "root", "containerDisk": {"image": image, **rest}}


_KERNEL = {"kernelBoot": {"container": {"image": "boot", "kernelPath": "/k", "initrdPath": "/i"}}}


def _all_files(data: Path) -> list[Path]:
    return [path for path in data.rglob("*") if path.is_file()]


async def test_a_container_disk_is_an_overlay_on_the_images_own_file(
    disks: MachineDisks, images: Images
) -> None:
    original = images.add("os")
    files = await disks.prepare("u1", _vmi(_container_disk(imagePullPolicy="Always")))
    disk = files.disks["root"]
    assert images.asked == [("os", None, "Always")]
    assert disk.backing is not None
    assert disk.backing.samefile(original)
    assert (disk.format, disk.backing_format) == ("qcow2", "raw")
    command = ["qemu-img", "info", "--backing-chain", str(disk.path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert f"actual path: {disk.backing}" in done.stdout, done.stderr


async def test_a_file_that_qemu_could_not_read_is_copied_once(
    disks: MachineDisks, images: Images, data: Path
) -> None:
    original = images.add("os", mode=0o600)
    first = (await disks.prepare("u1", _vmi(_container_disk()))).disks["root"].backing
    second = (await disks.prepare("u2", _vmi(_container_disk()))).disks["root"].backing
    assert first is not None
    assert second is not None
    assert first.samefile(second)
    assert not first.samefile(original)
    assert first.stat().st_mode & 0o777 == 0o644
    assert original.stat().st_mode & 0o777 == 0o600
    await disks.remove("u1")
    assert second.read_bytes() == original.read_bytes()
    await disks.remove("u2")
    assert _all_files(data) == []


async def test_a_kernel_is_never_the_images_own_file(disks: MachineDisks, images: Images) -> None:
    original = images.add("boot")
    files = await disks.prepare("u1", _vmi(firmware=_KERNEL))
    assert files.kernel is not None
    assert files.initrd is not None
    assert not files.kernel.samefile(original)
    assert [path for _, path, _ in images.asked] == ["/k", "/i"]


async def test_many_machines_copy_an_image_once(
    disks: MachineDisks, images: Images, data: Path
) -> None:
    images.add("boot")
    await asyncio.gather(*(disks.prepare(f"u{n}", _vmi(firmware=_KERNEL)) for n in range(5)))
    assert len(list((data / "images").iterdir())) == 1


async def test_an_empty_disk_has_whole_mebibytes(disks: MachineDisks) -> None:
    volume = {"name": "scratch", "emptyDisk": {"capacity": "5M"}}
    path = (await disks.prepare("u1", _vmi(volume))).disks["scratch"].path
    assert qcow2.inspect(path).size == 4 << 20


async def test_a_seed_carries_name_identity_and_secrets(disks: MachineDisks) -> None:
    volume = {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "s"}}}

    async def secret(name: str) -> Mapping[str, bytes]:
        return {"userdata": f"data of {name}".encode()}

    vmi = _vmi(volume, firmware={"uuid": "id-1"})
    vmi["spec"]["hostname"] = "host-1"
    files = await disks.prepare("u1", vmi, secret=secret)
    path = files.disks["seed"].path
    content = path.read_bytes()
    for part in (b"data of s", b'"id-1"', b'"host-1"'):
        assert part in content
    assert path.stat().st_mode & 0o777 == 0o600


async def test_preparing_again_gives_the_same_files_untouched(
    data: Path, disks: MachineDisks, images: Images
) -> None:
    images.add("os")
    images.add("boot")
    vmi = _vmi(_container_disk(), firmware=_KERNEL)
    first = await disks.prepare("u1", vmi)
    first.disks["root"].path.write_bytes(b"what the guest wrote")
    again = await MachineDisks(data, images).prepare("u1", vmi)
    assert again == first
    assert again.disks["root"].path.read_bytes() == b"what the guest wrote"
    assert len(images.asked) == 3


async def test_directories_can_be_passed_through_and_not_listed(
    disks: MachineDisks, data: Path
) -> None:
    old = os.umask(0o077)
    try:
        await disks.prepare("u1", _vmi())
    finally:
        os.umask(old)
    for path in (data / "machines", data / "machines" / "u1", data / "images"):
        assert path.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(
    ("volume", "field"),
    [
        ({"name": "../up", "emptyDisk": {"capacity": "1Mi"}}, "spec.volumes[0].name"),
        ({"name": "", "emptyDisk": {"capacity": "1Mi"}}, "spec.volumes[0].name"),
        ({"name": "a", "emptyDisk": {"capacity": "much"}}, "spec.volumes[0].emptyDisk.capacity"),
        ({"name": "a", "emptyDisk": {"capacity": "1"}}, "spec.volumes[0].emptyDisk.capacity"),
        ({"name": "a", "emptyDisk": {"capacity": "1Ei"}}, "spec.volumes[0].emptyDisk.capacity"),
        ({"name": "a", "hostDisk": {"path": "/"}}, "spec.volumes[0]"),
        ({"name": "a", "containerDisk": {"image": "folder"}}, "spec.volumes[0].containerDisk"),
        ({"name": "a", "containerDisk": {"image": "link"}}, "spec.volumes[0].containerDisk"),
        ({"name": "a", "containerDisk": {"image": "vmdk"}}, "spec.volumes[0].containerDisk"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_left(
    disks: MachineDisks, images: Images, data: Path, volume: dict[str, Any], field: str
) -> None:
    (images.folder / "folder").mkdir()
    (images.folder / "link").symlink_to("/etc/shadow")
    images.add("vmdk", b"KDMV" + bytes(1000))
    first = {"name": "first", "emptyDisk": {"capacity": "1Mi"}}
    with pytest.raises(InvalidSpec) as caught:
        await disks.prepare("u1", _vmi(volume, first))
    assert [cause.field for cause in caught.value.causes] == [field]
    assert _all_files(data) == []


@pytest.mark.parametrize("uid", ["", "..", "a/b", ".hidden", "x" * 64])
async def test_a_uid_that_is_no_file_name_is_refused(disks: MachineDisks, uid: str) -> None:
    with pytest.raises(InvalidSpec):
        await disks.prepare(uid, _vmi())
    with pytest.raises(InvalidSpec):
        await disks.remove(uid)


async def test_without_a_container_runtime_image_volumes_are_unsupported(data: Path) -> None:
    with pytest.raises(Unsupported):
        await MachineDisks(data).prepare("u1", _vmi(_container_disk()))


async def test_an_image_that_cannot_be_had_leaves_nothing(disks: MachineDisks, data: Path) -> None:
    scratch = {"name": "a", "emptyDisk": {"capacity": "1Mi"}}
    with pytest.raises(ImagePullError):
        await disks.prepare("u1", _vmi(scratch, _container_disk("missing")))
    assert list((data / "machines").iterdir()) == []


async def test_a_cancellation_at_any_time_leaves_all_or_nothing(
    disks: MachineDisks, images: Images, data: Path
) -> None:
    images.add("os", mode=0o600)
    vmi = _vmi(_container_disk(), {"name": "a", "emptyDisk": {"capacity": "1Mi"}}, firmware=_KERNEL)
    images.add("boot")
    for turns in range(0, 40, 3):
        task = asyncio.create_task(disks.prepare("u1", vmi))
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert list((data / "machines").glob("*")) == [], f"after {turns} turns"
        else:
            await disks.remove("u1")
    assert _all_files(data) == []


async def test_a_copy_waits_for_the_next_machine_for_a_while(data: Path, images: Images) -> None:
    images.add("boot")
    disks = MachineDisks(data, images, keep_unused=0.05)
    first = (await disks.prepare("u1", _vmi(firmware=_KERNEL))).kernel
    assert first is not None
    inode = first.stat().st_ino
    await disks.remove("u1")
    second = (await disks.prepare("u2", _vmi(firmware=_KERNEL))).kernel
    assert second is not None
    assert second.stat().st_ino == inode
    await disks.remove("u2")
    async with asyncio.timeout(5):
        while _all_files(data):  # noqa: ASYNC110 - a timer takes it
            await asyncio.sleep(0.01)


async def test_removing_what_is_not_there_succeeds(disks: MachineDisks) -> None:
    await disks.remove("u1")


async def test_a_sweep_takes_what_nobody_knows(
    disks: MachineDisks, images: Images, data: Path
) -> None:
    images.add("boot")
    for uid in ("keep", "stale"):
        await disks.prepare(uid, _vmi(firmware=_KERNEL))
    (data / "machines" / ".killed").mkdir()
    (data / "images" / "half.part").write_bytes(b"")
    assert await disks.sweep({"keep"}) == ["stale"]
    assert [path.name for path in (data / "machines").iterdir()] == ["keep"]
    assert len(list((data / "images").iterdir())) == 1
    assert await disks.sweep(set()) == ["keep"]
    assert _all_files(data) == []


async def test_a_sweep_of_nothing_is_fine(disks: MachineDisks) -> None:
    assert await disks.sweep(set()) == []
