"""The test machine: Debian's kernel and busybox, as kernel and initrd and as a disk that boots."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent / "machine"

# What a virtual machine may be given, each with what it depends on loaded before it.
MODULES = (
    "virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console", "virtio_balloon",
    "virtio-rng", "ahci", "ata_piix", "sd_mod", "sr_mod", "isofs", "e1000e", "button", "evdev",
)  # fmt: skip

SECTOR = 512
PARTITION_START = 2048  # sectors; where partitioning tools put the first one


def load_order(folder: Path, wanted: Iterable[str]) -> list[Path]:
    """The kernel modules ``wanted``, with all that they need, in an order in which insmod takes
    them."""
    files = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    order: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:  # built into the kernel, or done
            return
        if found := re.search(rb"\0depends=([^\0]*)\0", path.read_bytes()):
            for dependency in filter(None, found[1].decode().split(",")):
                visit(dependency)
        order.append(path)

    for name in wanted:
        visit(name)
    return order


def initrd(modules: Path, busybox: bytes, applets: Iterable[str], work: Path) -> bytes:
    """The compressed initial file system. ``work`` is an empty folder to build it in."""
    for folder in ("bin", "sbin", "dev", "etc/acpi/PWRF", "modules", "proc", "root", "run", "sys"):
        (work / folder).mkdir(parents=True)
    for name, mode in (("init", 0o755), ("setup", 0o755), ("inittab", 0o644), ("udhcpc", 0o755)):
        target = work / ("init" if name == "init" else f"etc/{name}")
        shutil.copyfile(HERE / name, target)
        target.chmod(mode)
    (work / "bin/busybox").write_bytes(busybox)
    (work / "bin/busybox").chmod(0o755)
    for path in applets:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        if path != "bin/busybox":
            (work / path).symlink_to("/bin/busybox")
    # busybox's acpid runs every file below the folder that is named after the button.
    power = work / "etc/acpi/PWRF/00000080"
    power.write_text("#!/bin/sh\npoweroff\n")
    power.chmod(0o755)
    (work / "etc/passwd").write_text("root::0:0:root:/root:/bin/sh\n")
    (work / "etc/group").write_text("root:x:0:\n")
    order = load_order(modules, MODULES)
    for module in order:
        shutil.copyfile(module, work / "modules" / module.name)
    (work / "modules/order").write_text("".join(f"{module.stem}\n" for module in order))
    names = sorted(os.fspath(path.relative_to(work)) for path in work.rglob("*"))
    archive = subprocess.run(
        [shutil.which("cpio") or "cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"],
        cwd=work, input="\n".join(names).encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    return gzip.compress(archive, compresslevel=6, mtime=0)


def disk(kernel: bytes, initrd: bytes, work: Path) -> bytes:
    """A qcow2 disk that boots by BIOS: one FAT partition with syslinux, the kernel and the initrd."""
    sectors = (len(kernel) + len(initrd) + (2 << 20)) // SECTOR
    raw, qcow2 = work / "disk.raw", work / "disk.qcow2"
    offset = PARTITION_START * SECTOR
    # One active FAT16 partition; the boot code comes from Debian's syslinux.
    entry = struct.pack("<B3sB3sII", 0x80, b"\0\2\0", 0x0E, b"\0\2\0", PARTITION_START, sectors)
    code = Path("/usr/lib/SYSLINUX/mbr.bin").read_bytes().ljust(446, b"\0")
    raw.write_bytes(code + entry + bytes(48) + b"\x55\xaa")
    os.truncate(raw, offset + sectors * SECTOR)
    for name, content in (("vmlinuz", kernel), ("initrd", initrd)):
        (work / name).write_bytes(content)
    partition = f"{raw}@@{offset}"
    for command in (
        ["mformat", "-i", partition, "-T", str(sectors), "-h", "64", "-s", "32", "-H", str(PARTITION_START), "::"],
        ["mcopy", "-i", partition, f"{work}/vmlinuz", f"{work}/initrd", f"{HERE}/syslinux.cfg", "::"],
        ["syslinux", "--install", "--offset", str(offset), str(raw)],
        ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)],
    ):  # fmt: skip
        subprocess.run(command, check=True)
    return qcow2.read_bytes()
