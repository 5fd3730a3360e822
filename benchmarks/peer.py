"""A Pod through the API against podman's ``kube play``, the peer for one host without a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.daemon import Served
from benchmarks.figures import Row, in_turn, latency_row
from benchmarks.pods import pod, watched

_RUNS = 10
_UNPACKED = (
    Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tandem-build" / "podman"
)
"""Where ``scripts/install bench`` puts it: unpacked, so that its own CNI network, which every runtime
of a host would take for theirs, comes nowhere near them."""

_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
seccomp_profile = "{unpacked}/usr/share/containers/seccomp.json"
[engine]
conmon_path = ["{unpacked}/usr/bin/conmon"]
helper_binaries_dir = ["{unpacked}/usr/bin"]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "cni"
network_config_dir = "{unpacked}/etc/cni/net.d"
cni_plugin_dirs = ["/usr/lib/cni"]
"""


class Podman:
    """Podman with files of its own in ``folder``, on runc and a CNI bridge, as Tandem is here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        settings = folder / ".config" / "containers"
        settings.mkdir(parents=True)
        conf = folder / "containers.conf"
        conf.write_text(_CONTAINERS_CONF.format(unpacked=_UNPACKED))
        accept = {"default": [{"type": "insecureAcceptAnything"}]}
        (settings / "policy.json").write_text(json.dumps(accept))
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CONTAINERS_CONF": str(conf),
            "LD_LIBRARY_PATH": str(_UNPACKED / "usr/lib/x86_64-linux-gnu"),
        }

    async def run(self, *arguments: str) -> None:
        """``podman ARGUMENTS``; raises ``RuntimeError`` with what it said when it fails."""
        folder = str(self._folder)
        stores = ("--root", folder + "/root", "--runroot", folder + "/run")
        command = (str(_UNPACKED / "usr/bin/podman"), *stores, "--storage-driver", "overlay")
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"podman {arguments[0]}: {said.decode()}")


async def rows(served: Served, image: str) -> list[Row]:
    """One Pod at a time, the image there already."""
    with tempfile.TemporaryDirectory(prefix="bench-podman-", dir="/run") as name:
        podman = Podman(Path(name))
        manifest = Path(name) / "pod.json"
        manifest.write_text(json.dumps(pod("peer", image)))
        await podman.run("pull", "--quiet", "--tls-verify=false", image)
        async with watched(served, "pods") as phases:

            async def ours(number: int) -> float:
                began = time.monotonic()
                await served.api.create("pods", pod(f"peer-{number}", image))
                await phases.until("Running", f"peer-{number}")
                taken = (time.monotonic() - began) * 1000
                await served.api.delete("pods", f"peer-{number}")
                await phases.until("", f"peer-{number}")
                return taken

            async def theirs(_number: int) -> float:
                began = time.monotonic()
                await podman.run("kube", "play", str(manifest))
                taken = (time.monotonic() - began) * 1000
                await podman.run("kube", "down", str(manifest))
                return taken

            pair = await in_turn(_RUNS, ours, theirs)
            await podman.run("system", "reset", "--force")
    return [latency_row("Pod: create to Running (podman kube play)", pair, "")]
