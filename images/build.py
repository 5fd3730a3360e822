#!/usr/bin/env python3
"""Builds the images that the tests and the demo run, from Debian's packages and nothing else.

    images/build.py                 build what is missing; prints the folder that holds it

The folder is named after these sources, so an image is built once for each of their versions, and
runs side by side share it. In it:

    registry/       storage of a docker-registry, with the repositories
                      tandem/busybox:1         a container's image: busybox, with a shell
                      tandem/machine:1         a containerDisk (/disk/machine.qcow2) that boots
                      tandem/machine-kernel:1  /boot/vmlinuz and /boot/initrd, for kernelBoot
                      library/nginx, library/redis and others, for docker.io's and other
                      registries' own (see standins.py)
    machine.qcow2, vmlinuz, initrd             the same, as files

Needs apt-get, dpkg-deb, cpio, qemu-img, syslinux and mtools.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import standins
from oci import Entry, Storage, files_below, layer

HERE = Path(__file__).parent
QEMU_USER = 107  # the owner of a containerDisk's file, as KubeVirt has it
KEEP_SECONDS = 7 * 86400  # since the last use; another checkout may be using an older version


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tandem-build"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def unpack(package: str, folder: Path, *members: str) -> None:
    """Download a Debian package and unpack those of its files that match ``members``. It is not
    installed: a kernel has no business in the host's /boot."""
    with tempfile.TemporaryDirectory() as downloads:
        os.chmod(downloads, 0o755)
        subprocess.run(
            ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package],
            cwd=downloads, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (file,) = Path(downloads).glob("*.deb")
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                ["tar", "-x", "-C", folder, "--wildcards", *members], stdin=tar.stdout, check=True
            )


def kernel_package() -> str:
    """The package behind Debian's current kernel. The one for clouds is no smaller, and has no driver
    for SATA, which is what a disk without a bus gets."""
    listed = subprocess.run(
        ["apt-cache", "depends", "--important", "linux-image-amd64"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return next(line.split()[1] for line in listed.splitlines() if "Depends: linux-image-" in line)


def build(folder: Path) -> None:
    """Fill ``folder``."""
    work = folder / "work"
    work.mkdir()
    say("images: busybox and a kernel from Debian's archive")
    unpack("busybox-static", work, "./bin/busybox")
    unpack(kernel_package(), work, "./boot/vmlinuz-*", "*.ko")
    busybox = (work / "bin/busybox").read_bytes()
    applets = subprocess.run(
        [work / "bin/busybox", "--list-full"], check=True, capture_output=True, text=True
    ).stdout.split()
    (kernel_file,) = (work / "boot").glob("vmlinuz-*")
    kernel = kernel_file.read_bytes()
    say("images: initrd and disk of the test machine")
    (work / "initrd").mkdir()
    (work / "disk").mkdir()
    initrd = machine.initrd(work / "lib/modules", busybox, applets, work / "initrd")
    disk = machine.disk(kernel, initrd, work / "disk")
    for name, content in (("vmlinuz", kernel), ("initrd", initrd), ("machine.qcow2", disk)):
        (folder / name).write_bytes(content)

    storage = Storage(folder / "registry")
    root = {
        "bin/busybox": Entry(busybox),
        "etc/passwd": Entry(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", mode=0o644),
        "etc/group": Entry(b"root:x:0:\nnogroup:x:65534:\n", mode=0o644),
        "root": Entry(),
        "tmp": Entry(mode=0o1777),
        "www/index.html": Entry(b"hello from busybox\n", mode=0o644),
    }  # fmt: skip
    for path in applets:
        root.setdefault(path, Entry(link="/bin/busybox", mode=0o777))
    path_variable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    storage.add_image("tandem/busybox", "1", layer(root), {"Cmd": ["sh"], "Env": [path_variable]})
    storage.add_image(
        "tandem/machine", "1",
        layer({"disk": Entry(), "disk/machine.qcow2": Entry(disk, mode=0o440, owner=QEMU_USER)}), {},
    )  # fmt: skip
    storage.add_image(
        "tandem/machine-kernel", "1",
        layer({"boot": Entry(), "boot/vmlinuz": Entry(kernel, mode=0o444), "boot/initrd": Entry(initrd, mode=0o444)}), {},
    )  # fmt: skip
    standins.add(storage, root, unpack, work)
    shutil.rmtree(work)


def ensure() -> Path:
    """The folder with the images, built when they were not."""
    sources = hashlib.sha256()
    for path in files_below(HERE):
        if path.suffix != ".pyc" and path.name != "serve.py":
            sources.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"images-{sources.hexdigest()[:16]}"
    with open(cache / "images.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            os.utime(folder)
        else:
            for old in cache.glob("images-*"):
                if old.stat().st_mtime < time.time() - KEEP_SECONDS:
                    shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix="new-", dir=cache) as new:
                os.chmod(new, 0o755)
                build(Path(new))
                os.rename(new, folder)
                os.mkdir(new)  # for the context manager, which removes it
    return folder


if __name__ == "__main__":
    print(ensure())
