"""What a container is given, on a real containerd: mounts, identity, limits, last words, ports."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import ImagePullError, InvalidSpec, TandemError
from tandem.runtimes.adapter import Phase, RuntimeStatus
from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.cri.adapter import ContainerAdapter
from tests import world
from tests.integration.containers import (
    FOREVER,
    PATIENCE,
    call,
    container,
    ended,
    opened,
    output,
    pod,
    until,
)

pytestmark = pytest.mark.containerd


@pytest.fixture
async def adapter(containerd: str, tmp_path: Path) -> AsyncIterator[ContainerAdapter]:
    async with opened(containerd, tmp_path, seccomp_dir=tmp_path / "seccomp") as adapter:
        yield adapter


async def start(
    adapter: ContainerAdapter, script: str, name: str = "main", *, attempt: int = 0, **fields: Any
) -> RuntimeStatus:
    return await adapter.start_container("p", container(script, name, **fields), attempt=attempt)


async def message(adapter: ContainerAdapter, name: str) -> str:
    status = await ended(adapter, "p")
    return next(item.message for item in status.containers if item.name == name)


async def test_a_start_asks_the_runtime_for_nothing_beside_it(
    adapter: ContainerAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await adapter.create(pod("p"))
    await adapter.pull_image(world.BUSYBOX)
    asked: list[str] = []
    original = adapter._client.call

    async def call(rpc: Any, *args: Any, **options: Any) -> Any:
        asked.append(rpc.path.rpartition("/")[2])
        return await original(rpc, *args, **options)

    monkeypatch.setattr(adapter._client, "call", call)
    await start(adapter, FOREVER)
    assert asked == ["CreateContainer", "StartContainer", "ContainerStatus"]


async def test_last_words(adapter: ContainerAdapter) -> None:
    await adapter.create(pod("p"))
    path: Any = {"terminationMessagePath": "/dev/termination-log"}
    logs: Any = {**path, "terminationMessagePolicy": "FallbackToLogsOnError"}
    user: Any = {"securityContext": {"runAsUser": 1234, "readOnlyRootFilesystem": True}}
    await start(adapter, "echo good >/dev/termination-log", "good", **path, **user)
    await start(adapter, "yes | head -c 9000 >/dev/termination-log; exit 1", "long", **path)
    await start(adapter, "seq 100; exit 1", "log", **logs)
    await start(adapter, "seq 100", "well", **logs)
    await start(adapter, "echo log; echo file >/dev/termination-log; exit 1", "both", **logs)
    await start(adapter, "echo nothing", "none", **path)
    assert await message(adapter, "good") == "good\n"
    assert await message(adapter, "long") == "y\n" * 2048
    assert await message(adapter, "log") == "".join(f"{n}\n" for n in range(21, 101))
    assert await message(adapter, "well") == ""
    assert await message(adapter, "both") == "file\n"
    assert await message(adapter, "none") == ""
    # Each attempt has words of its own, also when another process starts it.
    async with ContainerAdapter(adapter.endpoint, log_dir=adapter._log_dir) as later:
        assert isinstance(later, ContainerAdapter)
        await start(later, "exit 3", "good", attempt=1, **path)
        assert await message(later, "good") == ""
        assert await message(later, "long") == "y\n" * 2048


async def test_paths_of_the_host_are_mounted_as_they_are_given(
    adapter: ContainerAdapter, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("content")
    mounts = [
        {"name": "a", "mountPath": "/rw", "hostPath": str(tmp_path / "folder"), "subPath": "x"},
        {"name": "a", "mountPath": "/ro", "hostPath": str(tmp_path / "folder"), "readOnly": True},
        {"name": "b", "mountPath": "/etc/one", "hostPath": str(tmp_path / "folder" / "file")},
    ]
    await adapter.create(pod("p"))
    script = "cat /etc/one; echo new >/rw/new; cat /ro/new; touch /ro/x || echo read-only"
    await start(adapter, script, volumeMounts=mounts)
    await ended(adapter, "p")
    said = await output(adapter, "p")
    assert b"contentnew\n" in said
    assert b"read-only\n" in said
    assert (tmp_path / "folder" / "new").read_text() == "new\n"
    absent = [{"name": "a", "mountPath": "/a", "hostPath": str(tmp_path / "absent" / "x")}]
    (tmp_path / "absent").write_text("a file, below which nothing can be")
    with pytest.raises(TandemError) as caught:
        await start(adapter, "true", "bad", volumeMounts=absent)
    assert caught.value.details == {"container": "bad", "reason": "CreateContainerError"}
    assert [item.name for item in (await adapter.get_status("p")).containers] == ["main"]


async def test_an_image_is_a_directory_that_outlives_us(
    containerd: str, adapter: ContainerAdapter, tmp_path: Path
) -> None:
    before = await _snapshots()
    adapters = [
        ContainerAdapter(containerd, log_dir=tmp_path / "pods", image_dir=tmp_path / "images")
        for _ in range(2)
    ]
    first, second = adapters
    image = world.BUSYBOX
    found = await asyncio.gather(*(first.image_directory(image, holder="a") for _ in range(3)))
    path = found[0]
    assert set(found) == {path}
    assert (path / "bin" / "sh").exists()
    with pytest.raises(OSError, match="Read-only"):
        (path / "new").touch()
    assert await second.image_directory(image, holder="b") != path
    mounts = [{"name": "i", "mountPath": "/image", "hostPath": str(path), "readOnly": True}]
    await adapter.create(pod("p"))
    await start(adapter, "ls /image/bin/sh; touch /image/x", volumeMounts=mounts)
    await ended(adapter, "p")
    said = await output(adapter, "p")
    assert b"/image/bin/sh\n" in said
    assert b"Read-only file system" in said
    await call("umount", str(path))  # as a reboot does
    assert await second.image_directory(image, holder="a") == path
    assert (path / "bin" / "sh").exists()
    assert set(await second.image_directory_holders()) == {"a", "b"}
    for holder in ("a", "a", "b", "nobody"):
        await second.release_image_directories(holder)
    assert await second.image_directory_holders() == []
    assert await _snapshots() == before
    absent = f"{world.REGISTRY}/tandem/absent:1"
    with pytest.raises(ImagePullError):
        await first.image_directory(absent, holder="a")
    for item in adapters:
        await item.close()


async def test_identity_and_powers(adapter: ContainerAdapter, tmp_path: Path) -> None:
    (tmp_path / "seccomp").mkdir()
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "seccomp" / "no-mkdir.json").write_text(json.dumps(profile))
    shared = {
        "runAsUser": 1000,
        "runAsGroup": 3000,
        "fsGroup": 2000,
        "supplementalGroups": [4000],
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}],
    }
    await adapter.create(pod("p", securityContext=shared, hostname="box", subdomain="sub"))
    facts = "id -u; id -g; id -G; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    await start(adapter, facts, "who")
    localhost = {"type": "Localhost", "localhostProfile": "no-mkdir.json"}
    unmasked = {"procMount": "Unmasked", "runAsUser": 0, "seccompProfile": localhost}
    await start(adapter, "wc -c </proc/timer_list; mkdir /tmp/x", "odd", securityContext=unmasked)
    added = {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}
    await start(adapter, "grep CapEff /proc/self/status", "caps", securityContext=added)
    await ended(adapter, "p")
    assert (await output(adapter, "p", "who")).decode().split("\n")[:5] == [
        "1000", "3000", "3000 2000 4000", "box", "80",
    ]  # fmt: skip
    assert b"Operation not permitted" in await output(adapter, "p", "odd")
    assert b"%016x" % (1 << 12) in await output(adapter, "p", "caps")
    missing = {"seccompProfile": {"type": "Localhost", "localhostProfile": "absent.json"}}
    with pytest.raises(TandemError, match=r"absent\.json: no such file"):
        await start(adapter, "true", "bad", securityContext=missing)
    root = {"runAsUser": 0, "runAsNonRoot": True}
    with pytest.raises(InvalidSpec, match="runAsUser breaks non-root policy") as caught:
        await start(adapter, "true", "root", securityContext=root)
    assert caught.value.details["reason"] == "CreateContainerConfigError"


async def test_namespaces_are_shared_as_asked(adapter: ContainerAdapter) -> None:
    await adapter.create(pod("p"))
    await start(adapter, FOREVER, "main")
    look = "ps | grep -c 'sleep 100[0]'"
    await start(adapter, look, "sees", targetContainerName="main")
    await start(adapter, look, "blind")
    await until(adapter, "p", lambda status: all(c.finished_at for c in status.containers[1:]))
    assert await output(adapter, "p", "sees") == b"2\n"  # and its shell
    assert await output(adapter, "p", "blind") == b"0\n"
    with pytest.raises(TandemError, match="unable to find target container nobody"):
        await start(adapter, "true", "lost", targetContainerName="nobody")
    host = pod("host", container(FOREVER), hostPID=True, hostIPC=True, hostNetwork=True)
    status = await adapter.create(host)
    pid = int(await _pid(status.containers[0].container_id))
    for kind in ("pid", "ipc", "net"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")


async def test_a_pods_own_stop_signal_ends_it(adapter: ContainerAdapter) -> None:
    await adapter.create(pod("p"))
    script = "trap 'exit 7' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    await start(adapter, script, lifecycle={"stopSignal": "SIGUSR1"})
    await start(adapter, script, "deaf", lifecycle={"stopSignal": "SIGTERM"})
    for name in ("main", "deaf"):
        log = adapter.logs("p", container=name, options=LogOptions(follow=True))
        async with asyncio.timeout(PATIENCE):
            assert await anext(log) == b"ready\n"
        await log.aclose()  # type: ignore[attr-defined]
    await adapter.stop_container("p", "main", grace_seconds=60)
    await adapter.stop_container("p", "deaf", grace_seconds=1)
    codes = {c.name: c.exit_code for c in (await adapter.get_status("p")).containers}
    assert codes == {"main": 7, "deaf": 137}


async def test_limits_reach_the_kernel(adapter: ContainerAdapter) -> None:
    resources = {
        "requests": {"cpu": "100m", "memory": "16Mi"},
        "limits": {"cpu": "500m", "memory": "32Mi", "ephemeral-storage": "1Gi"},
    }
    planned = [{"name": "main", "resources": resources}]
    with pytest.raises(TandemError, match='no runtime for "absent" is configured'):
        await adapter.create(pod("p", runtimeHandler="absent"))
    await adapter.create(pod("p", plannedContainers=planned, runtimeHandler="runc"))
    status = await start(adapter, FOREVER, resources=resources)
    groups = _groups(await _pid(status.containers[0].container_id))
    if "memory" in groups:  # version 1
        assert (groups["memory"] / "memory.limit_in_bytes").read_text() == f"{32 << 20}\n"
        assert (groups["cpu"] / "cpu.shares").read_text() == "102\n"
        assert (groups["cpu"] / "cpu.cfs_quota_us").read_text() == "50000\n"
    else:
        assert (groups[""] / "memory.max").read_text() == f"{32 << 20}\n"
        assert (groups[""] / "cpu.max").read_text() == "50000 100000\n"
    # A child that is killed for its memory is what the container ended for.
    await start(adapter, "tail /dev/zero; exit 9", "child", resources=resources)
    status = await until(adapter, "p", lambda status: bool(status.containers[1].finished_at))
    assert (status.containers[1].reason, status.containers[1].exit_code) == ("OOMKilled", 9)


async def test_a_port_of_the_host_leads_to_the_pod(adapter: ContainerAdapter) -> None:
    ports = [
        {"containerPort": 80, "hostPort": 18080},
        {"containerPort": 80, "hostPort": 18081, "hostIP": "127.0.0.1"},
    ]
    planned = [{"name": "main", "ports": ports}]
    await adapter.create(pod("p", plannedContainers=planned))
    serve = "mkdir /www; echo hello >/www/index.html; exec httpd -f -h /www"
    status = await start(adapter, serve, ports=ports)
    for port in (18080, 18081):
        assert await _fetch(f"http://127.0.0.1:{port}/") == b"hello\n"
    assert await _fetch(f"http://{status.addresses[0]}/") == b"hello\n"
    await adapter.delete("p", grace_seconds=0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", 18080)
    assert (await adapter.create(pod("p", plannedContainers=planned))).phase is Phase.RUNNING


async def _fetch(url: str) -> bytes:
    """What is served there, once something is."""

    def fetch() -> bytes:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            body: bytes = answer.read()
            return body

    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await asyncio.to_thread(fetch)
            except OSError:
                await asyncio.sleep(0.05)


async def _snapshots() -> set[str]:
    """The views that are ours."""
    listed = await call("ctr", "--namespace", "k8s.io", "snapshots", "list")
    return {line.split()[0] for line in listed.splitlines() if line.startswith("tandem-")}


async def _pid(container: str) -> str:
    said = await call("ctr", "--namespace", "k8s.io", "tasks", "list")
    return next(line.split()[1] for line in said.splitlines() if line.startswith(container))


def _groups(pid: str) -> dict[str, Path]:
    """The control groups of a process by controller; of version 2 with an empty name."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            folder = name or ("unified" if Path("/sys/fs/cgroup/unified").is_dir() else "")
            found[name] = Path("/sys/fs/cgroup", folder, path.lstrip("/"))
    return found
