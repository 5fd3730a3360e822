"""What breaks around running workloads, and what must not: they go on, and status is right again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.containerd, pytest.mark.libvirt, pytest.mark.slow]

EXAMPLE = str(world.ROOT / "examples" / "both.yaml")


def processes(name: str) -> dict[int, str]:
    """The processes of this name in this world: pid and start time, which tell each for good."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        if stat.partition("(")[2].startswith(name):
            found[int(entry.name)] = stat.rpartition(")")[2].split()[19]
    return found


def workload(daemon: Daemon) -> dict[str, Any]:
    """What identifies the running container and machine, and would change if they were restarted."""
    pod, vmi = daemon.get("pod", "hello"), daemon.get("vmi", "hello-vm")
    (container,) = pod["status"]["containerStatuses"]
    return {
        "container": container["containerID"],
        "restarts": container["restartCount"],
        "pod": (pod["metadata"]["uid"], pod["status"]["phase"], pod["status"]["podIP"]),
        "machine": (vmi["metadata"]["uid"], vmi["status"]["phase"]),
        "processes": (processes("httpd"), processes("qemu-system")),
    }


@pytest.fixture
def both(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon of its own with the container and the machine of the demo running."""
    daemon = make_daemon()
    daemon.kubectl("apply", "-f", EXAMPLE)
    daemon.kubectl("wait", "--for=condition=Ready", "--timeout=90s", "pod/hello", "vm/hello-vm")
    return daemon


def clear(daemon: Daemon) -> None:
    daemon.kubectl("delete", "-f", EXAMPLE, "--grace-period=0", "--force")
    daemon.eventually(lambda: not daemon.get("pods,vms,vmis")["items"])


def test_both_survive_the_daemon_s_sudden_death_and_the_next_one_adopts_them(both: Daemon) -> None:
    before = workload(both)
    assert all(before["processes"])
    both.end(signal.SIGKILL)
    assert (processes("httpd"), processes("qemu-system")) == before["processes"]

    both.start()
    both.eventually(lambda: workload(both) == before, seconds=5)
    clear(both)


def test_what_ended_while_no_daemon_ran_is_known_to_the_next_one(both: Daemon) -> None:
    before = workload(both)
    both.end(signal.SIGKILL)
    (machine,) = processes("qemu-system")
    os.kill(machine, signal.SIGKILL)
    (server,) = processes("httpd")
    os.kill(server, signal.SIGKILL)

    both.start()
    # Both are wanted: the container's policy is Always, and so is the machine's.
    both.eventually(
        lambda: both.get("pod", "hello")["status"]["containerStatuses"][0]["restartCount"] == 1
    )
    both.eventually(lambda: _runs_again(both, before["machine"][0]))
    clear(both)


def _runs_again(daemon: Daemon, uid: str) -> bool:
    done = daemon.kubectl(
        "get", "vmi", "hello-vm", "-o", "jsonpath={.metadata.uid} {.status.phase}", check=False
    )
    return done.stdout.endswith(" Running") and not done.stdout.startswith(uid)


@pytest.mark.parametrize("name", ["containerd", "libvirtd"])
def test_both_survive_the_sudden_death_of_a_runtime(both: Daemon, name: str) -> None:
    before = workload(both)
    (status,) = (s for s in world.services().status() if s.name == name)
    assert status.ours
    os.kill(status.keeper_pid, signal.SIGKILL)
    both.eventually(lambda: _back(name, status.keeper_pid))
    both.eventually(lambda: workload(both) == before)
    both.eventually(lambda: both.kubectl("get", "--raw", "/readyz", check=False).returncode == 0)
    clear(both)


def _back(name: str, dead: int) -> bool:
    (status,) = (s for s in world.services().status() if s.name == name)
    return status.running and status.ours and status.keeper_pid != dead


def test_an_absent_runtime_is_told_and_taken_up_when_it_comes(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    endpoint = tmp_path / "containerd.sock"
    daemon = make_daemon(container_endpoint=str(endpoint))
    ready = daemon.kubectl("get", "--raw", "/readyz?verbose", check=False)
    assert ready.returncode != 0
    assert "container" in ready.stdout + ready.stderr
    endpoint.symlink_to(world.containerd())
    daemon.eventually(
        lambda: daemon.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, seconds=30
    )
