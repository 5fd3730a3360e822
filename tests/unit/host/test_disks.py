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

from tandem.errors import ImagePullError, InvalidSpec, NotFound, Unsupported
from tandem.host import qcow2
from tandem.host.cpupool import CpuPool
from tandem.host.disks import MachineDisks
from tandem.host.machinefiles import Claim


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


class Objects:
    """Stands for the store."""

    def __init__(self, claim: Claim | None = None) -> None:
        self._claim = claim

    def secret(self, name: str) -> Mapping[str, bytes]:
        return {"userdata": f"data of {name}".encode()}

    def files(self, volume: Mapping[str, Any]) -> Mapping[str, bytes]:
        return {"key": str(volume["name"]).encode()}

    def claim(self, name: str) -> Claim:
        if self._claim is None:
            raise NotFound(name)
        return self._claim


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

    vmi = _vmi(volume, firmware={"uuid": "id-1"})
    vmi["spec"]["hostname"] = "host-1"
    files = await disks.prepare("u1", vmi, sources=Objects())
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
        ({"name": "a", "hostDisk": {"path": "/"}}, "spec.volumes[0].hostDisk.path"),
        ({"name": "a", "odd": {}}, "spec.volumes[0]"),
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


# -- what outlives a machine -----------------------------------------------------------------------


def _claimed(**source: Any) -> dict[str, Any]:
    return {"name": "data", "persistentVolumeClaim": {"claimName": "c", **source}}


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    (tmp_path / "claim").mkdir()
    return Claim(tmp_path / "claim", (8 << 20) + 512)


async def test_a_claims_disk_is_made_at_its_size_and_stays(
    disks: MachineDisks, claim: Claim, data: Path
) -> None:
    disk = (await disks.prepare("u1", _vmi(_claimed()), sources=Objects(claim))).disks["data"]
    image = claim.path / "disk.img"
    assert disk.format == "raw"
    assert disk.path.samefile(image)
    assert (image.stat().st_size, image.stat().st_blocks) == (8 << 20, 0)
    image.write_bytes(b"written by the guest")
    await disks.remove("u1")
    assert _all_files(data) == []
    assert image.read_bytes() == b"written by the guest"


async def test_a_claims_disk_grows_with_the_claim_and_never_shrinks(
    disks: MachineDisks, claim: Claim
) -> None:
    image = claim.path / "disk.img"
    image.write_bytes(b"x" * 512)
    for uid, size, expected in (("u1", 4, 4), ("u2", 2, 4)):
        sources = Objects(Claim(claim.path, size << 20))
        await disks.prepare(uid, _vmi(_claimed()), sources=sources)
        assert image.stat().st_size == expected << 20
        await disks.remove(uid)
    assert image.read_bytes()[:513] == b"x" * 512 + b"\0"


async def test_what_a_guest_wrote_at_the_start_of_its_disk_is_not_believed(
    disks: MachineDisks, claim: Claim, tmp_path: Path
) -> None:
    """A qcow2 header there would have QEMU open any file of the host as the disk's backing."""
    image = claim.path / "disk.img"
    qcow2.create(image, 1 << 20, backing=("/etc/shadow", "raw"))
    disk = (await disks.prepare("u1", _vmi(_claimed()), sources=Objects(claim))).disks["data"]
    assert (disk.format, disk.backing) == ("raw", None)
    host = tmp_path / "disk.qcow2"
    qcow2.create(host, 1 << 20, backing=("/etc/shadow", "raw"))
    volume = {"name": "a", "hostDisk": {"path": str(host), "type": "Disk"}}
    with pytest.raises(InvalidSpec, match="it has a backing file"):
        await disks.prepare("u2", _vmi(volume))


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
async def test_a_claims_disk_that_is_no_file_is_refused(
    disks: MachineDisks, claim: Claim, data: Path, kind: str
) -> None:
    image = claim.path / "disk.img"
    if kind == "symlink":
        image.symlink_to("/etc/passwd")
    elif kind == "directory":
        image.mkdir()
    else:
        os.mkfifo(image)
    with pytest.raises(InvalidSpec, match="not a plain file"):
        await disks.prepare("u1", _vmi(_claimed()), sources=Objects(claim))
    assert _all_files(data) == []


async def test_an_ephemeral_disk_lies_on_a_claims_and_leaves_it_alone(
    disks: MachineDisks, claim: Claim
) -> None:
    image = claim.path / "disk.img"
    image.write_bytes(b"x" * (8 << 20))
    volume = {"name": "data", "ephemeral": {"persistentVolumeClaim": {"claimName": "c"}}}
    disk = (await disks.prepare("u1", _vmi(volume), sources=Objects(claim))).disks["data"]
    assert disk.backing is not None
    assert disk.backing.samefile(image)
    command = ["qemu-img", "info", "--backing-chain", str(disk.path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert f"actual path: {disk.backing}" in done.stdout, done.stderr


async def test_a_host_disk_is_made_once(disks: MachineDisks, tmp_path: Path) -> None:
    path = tmp_path / "new" / "disk.img"
    source = {"path": str(path), "type": "DiskOrCreate", "capacity": "3Mi"}
    volume = {"name": "a", "hostDisk": source}
    assert (await disks.prepare("u1", _vmi(volume))).disks["a"].path == path
    assert path.stat().st_size == 3 << 20
    path.write_bytes(b"x" * 512)
    await disks.prepare("u2", _vmi(volume))
    assert path.read_bytes() == b"x" * 512
    missing = {"name": "a", "hostDisk": {"path": str(tmp_path / "no"), "type": "Disk"}}
    with pytest.raises(InvalidSpec, match="No such file"):
        await disks.prepare("u3", _vmi(missing))


@pytest.mark.parametrize(
    "kind", ["configMap", "secret", "downwardAPI", "serviceAccount", "sysprep"]
)
async def test_objects_become_a_cd(disks: MachineDisks, kind: str) -> None:
    files = await disks.prepare("u1", _vmi({"name": "obj", kind: {}}), sources=Objects())
    content = files.disks["obj"].path.read_bytes()
    assert b"CD001" in content
    assert (b"unattendCfg" if kind == "sysprep" else b"cfgdata") in content


async def test_objects_and_claims_become_shared_folders(disks: MachineDisks, claim: Claim) -> None:
    vmi = _vmi({"name": "obj", "configMap": {"name": "m"}}, _claimed())
    vmi["spec"]["domain"]["devices"] = {"filesystems": [{"name": "obj"}, {"name": "data"}]}
    files = await disks.prepare("u1", vmi, sources=Objects(claim))
    assert files.disks == {}
    assert (files.shares["obj"] / "key").read_bytes() == b"obj"
    assert files.shares["data"] == claim.path


async def test_the_variables_of_a_persistent_efi_outlive_the_instance(
    disks: MachineDisks, data: Path
) -> None:
    for persistent in (False, True):
        vmi = _vmi(
            firmware={"bootloader": {"efi": {"secureBoot": False, "persistent": persistent}}}
        )
        vmi["metadata"]["ownerReferences"] = [{"kind": "VirtualMachine", "uid": "vm-1"}]
        nvram = (await disks.prepare("u1", vmi)).nvram
        assert nvram is not None
        nvram.write_bytes(b"boot entries")
        await disks.remove("u1")
        assert nvram.exists() is persistent
    assert (await disks.prepare("u2", vmi)).nvram == nvram
    assert nvram is not None
    assert nvram.read_bytes() == b"boot entries"
    await disks.remove("u2")
    await disks.forget("vm-1")
    assert _all_files(data) == []


# -- processors ------------------------------------------------------------------------------------


async def test_processors_are_given_to_one_machine_at_a_time(data: Path) -> None:
    disks = MachineDisks(data, pool=CpuPool((0, 1, 2, 3)))
    own = _vmi(cpu={"dedicatedCpuPlacement": True, "isolateEmulatorThread": True})
    assert await disks.shared_cpus() == ()
    files = await disks.prepare("u1", own, vcpus=1)
    assert (files.cpus, files.emulator_cpus) == ((2, 3), 1)
    assert await disks.shared_cpus() == (0, 1)
    with pytest.raises(Unsupported, match=r"0/1 nodes are available: 1 Insufficient cpu\."):
        await disks.prepare("u2", own, vcpus=1)
    # A restart of the daemon knows them from the records.
    disks = MachineDisks(data, pool=CpuPool((0, 1, 2, 3)))
    assert await disks.shared_cpus() == (0, 1)
    assert (await disks.prepare("u1", own, vcpus=1)).cpus == (2, 3)
    await disks.remove("u1")
    assert (await disks.prepare("u2", own, vcpus=2)).cpus == (1, 2, 3)
    with pytest.raises(Unsupported):
        await disks.prepare("u3", _vmi(cpu={"dedicatedCpuPlacement": True}), vcpus=1)
