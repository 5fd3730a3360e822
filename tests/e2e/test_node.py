"""The host as a Node, and what is used of it, on the real runtimes."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.api.quantity import to_bytes, to_millis
from tests import world
from tests.daemon import Daemon
from tests.e2e.test_pods import Client, container, pod

pytestmark = [pytest.mark.containerd, pytest.mark.kubectl, pytest.mark.slow]


def test_top_tells_who_is_busy(daemon: Daemon, namespace: str) -> None:
    k = Client(daemon, namespace)
    fill = "head -c 33554432 /dev/zero | tail -c 33554432 | (sleep 600; cat >/dev/null)"
    k("apply", "-f", "-", stdin=pod("busy", container("main", "while :; do :; done")))
    k(
        "apply",
        "-f",
        "-",
        stdin=pod("full", container("main", fill), container("idle", "sleep 600")),
    )
    k("wait", "--for=condition=Ready", "--timeout=60s", "pod/busy", "pod/full")

    def used(container: str) -> tuple[int, int]:
        rows = [row.split() for row in k("top", "pod", "--containers", "--no-headers").splitlines()]
        found = {row[1] if row[0] == "full" else row[0]: row[2:] for row in rows}
        cpu, memory = found.get(container, ["0m", "0Mi"])
        return to_millis(cpu), to_bytes(memory)

    daemon.eventually(lambda: used("busy")[0] > 20)
    daemon.eventually(lambda: used("main")[1] > 24 << 20)
    cpu, memory = used("idle")
    assert cpu < 20
    assert memory < 8 << 20
    for version in world.KUBECTL_VERSIONS:
        old = Client(daemon, namespace, world.kubectl(version))
        name, cpu_used, memory_used = old("top", "pod", "busy", "--no-headers").split()
        assert (name, cpu_used[-1], memory_used[-2:]) == ("busy", "m", "Mi")
        assert re.search(r"\d+m\s+\d+%\s+\d+Mi\s+\d+%", old("top", "node"))


def test_the_node_follows_its_runtime(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    endpoint = tmp_path / "containerd.sock"
    daemon = make_daemon(container_endpoint=str(endpoint))
    k = Client(daemon, "default")
    (name,) = k("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
    k("wait", "--for=condition=Ready=false", "--timeout=60s", f"node/{name}")
    daemon.eventually(lambda: "container runtime is down" in k("describe", "node", name))
    endpoint.symlink_to(world.containerd())
    k("wait", "--for=condition=Ready", "--timeout=60s", f"node/{name}")
    assert "containerd://1." in k("get", "nodes", "-o", "wide")
    daemon.eventually(lambda: "NodeReady" in k("describe", "node", name))

    k("label", "node", name, "disk=ssd")
    k("cordon", name)
    daemon.end(signal.SIGKILL)
    daemon.start()
    assert "Ready,SchedulingDisabled" in k("get", "node", name)
    assert k("get", "nodes", "--selector=disk=ssd", "-o", "name") == f"node/{name}\n"
