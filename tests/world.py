"""The real runtimes that tests run against, and the proof that a test left nothing in them.

Inside ``scripts/world`` (which ``scripts/test`` uses) every process of a test run sees the same
containerd, libvirtd and registry; they are started when a test first asks, by the product's own
:mod:`tandem.host.services`, and end with the world. Outside of it there are none, and asking fails.

For fixtures see ``conftest.py``; a suite that cannot use fixtures calls these functions.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tandem.host import cni
from tandem.host.services import HostServices

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem-build"

REGISTRY = "localhost:5000"
BUSYBOX = f"{REGISTRY}/tandem/busybox:1"
MACHINE = f"{REGISTRY}/tandem/machine:1"
MACHINE_KERNEL = f"{REGISTRY}/tandem/machine-kernel:1"

KUBECTL_VERSIONS = ("1.32", "1.20")

_MIRRORED = (
    *(REGISTRY, "registry:5000", "docker.io", "quay.io", "registry.k8s.io", "gcr.io"),
    "us-docker.pkg.dev",
)
"""All answered by our registry, so that manifests written for these run unchanged."""

_SETTLE_SECONDS = 5.0
"""How long the kernel and the runtimes may take to let go of what a test has deleted."""


def require() -> None:
    """Fail the test that needs the real runtimes where there are none."""
    if os.environ.get("TANDEM_WORLD") != "1":
        pytest.fail("needs the real runtimes: run it by scripts/test", pytrace=False)


@functools.cache
def services() -> HostServices:
    """The runtime services of this world, as ``tandem up`` would start them."""
    require()
    mirrors = dict.fromkeys(_MIRRORED, "http://127.0.0.1:5000")
    return HostServices(registry_mirrors=mirrors)


@functools.cache
def registry() -> str:
    """The address of a running registry with the test images."""
    require()
    command = [sys.executable, str(ROOT / "images" / "serve.py"), "127.0.0.1:5000"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return REGISTRY


@functools.cache
def containerd() -> str:
    """The endpoint of a running containerd that can pull the test images."""
    registry()
    return str(services().ensure_containerd().socket)


@functools.cache
def libvirt() -> str:
    """The URI of a running libvirtd."""
    services().ensure_libvirt()
    return services().libvirt_uri


@functools.cache
def images() -> Path:
    """The folder with the test images as files: ``machine.qcow2``, ``vmlinuz``, ``initrd``."""
    command = [sys.executable, str(ROOT / "images" / "build.py")]
    return Path(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    )


def kubectl(version: str) -> Path:
    """A kubectl of this version, as ``scripts/install test`` has put it there."""
    path = CACHE / "kubectl" / version / "kubectl"
    if not path.exists():
        pytest.fail(f"no kubectl {version}: run scripts/install test", pytrace=False)
    return path


# What is left -----------------------------------------------------------------------------------


def leftovers() -> set[str]:
    """Every trace of a workload in this world, each as ``what: name``."""
    return {
        *_runtime_objects(),
        *(
            f"mount: {line.split()[1]}"
            for line in _lines("/proc/self/mounts")
            if _is_workload(line)
        ),
        *(f"interface: {path.name}" for path in Path("/sys/class/net").iterdir() if _is_link(path)),
        *(f"process: {name}" for name in _processes()),
        *(f"cgroup: {path}" for path in _cgroups()),
        *(f"file: {path}" for path in _files()),
    }


def settled(expected: set[str]) -> set[str]:
    """What is left beyond ``expected``, once nothing more goes away by itself."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (left := leftovers() - expected) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _runtime_objects() -> list[str]:
    found: list[str] = []
    if Path("/run/containerd/containerd.sock").exists():
        for what in ("containers", "tasks"):
            names = _output("ctr", "--namespace", "k8s.io", what, "list", "--quiet").split()
            found += [f"{what}: {name}" for name in names]
    if Path("/run/libvirt/libvirt-sock").exists():
        names = _output("virsh", "--connect", "qemu:///system", "list", "--all", "--name").split()
        found += [f"domain: {name}" for name in names]
    return found


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout if done.returncode == 0 else f"{command[0]}-failed:{done.stderr[:200]}"


def _is_workload(mount: str) -> bool:
    point = mount.split()[1]
    ours = point.startswith(("/run/netns/", "/run/containerd/io.containerd", "/var/lib/tandem/"))
    return ours or "/data/pods/" in point


def _is_link(path: Path) -> bool:
    return path.name not in ("lo", "bonding_masters", cni.BRIDGE)


def _processes() -> list[str]:
    names = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text(encoding="utf-8").strip()
            except OSError:  # it has just ended
                continue
            if name.startswith(("qemu-", "containerd-shim", "runc")):
                names.append(f"{name} {entry.name}")
    return names


def _cgroups() -> list[Path]:
    """Groups of workloads: none lives at the top, where the runtimes keep folders of their own."""
    return [
        folder
        for hierarchy in Path("/sys/fs/cgroup").iterdir()
        if hierarchy.is_dir()
        for parent in hierarchy.iterdir()
        if parent.is_dir()
        for folder in parent.iterdir()
        if folder.is_dir()
    ]


def _files() -> list[Path]:
    folders = (
        "/var/lib/cni/networks/tandem", "/var/lib/libvirt/images", "/etc/libvirt/qemu",
        "/var/lib/libvirt/qemu/save", "/var/lib/libvirt/qemu/nvram", "/var/lib/libvirt/swtpm",
        "/run/libvirt/qemu", "/var/lib/tandem/machines", "/var/lib/tandem/machine-state",
        "/var/log/tandem/pods", "/var/log/tandem/machines",
    )  # fmt: skip
    bookkeeping = {
        "last_reserved_ip.0",
        "lock",
        "networks",
        "autostart",
        "driver.pid",
        "autostarted",
    }
    return [
        path
        for folder in map(Path, folders)
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name not in bookkeeping and not (path.is_dir() and not any(path.iterdir()))
    ]
