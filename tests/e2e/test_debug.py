"""``kubectl debug``, by each kubectl, and what else changes a Pod from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.containerd, pytest.mark.slow]


def pod(name: str) -> str:
    sleeping = {"image": world.BUSYBOX, "command": ["sleep", "1000"]}
    spec = {
        "terminationGracePeriodSeconds": 0,
        "initContainers": [{"name": "side", "restartPolicy": "Always", **sleeping}],
        "containers": [{"name": "main", **sleeping}],
    }
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    return json.dumps(document)


def test_a_container_is_added_to_a_running_pod(
    daemon: Daemon, namespace: str, kubectl: Path
) -> None:
    def k(*words: str, stdin: str = "") -> str:
        words = ("--namespace", namespace, *words)
        return daemon.kubectl(*words, binary=kubectl, stdin=stdin).stdout

    k("create", "-f", "-", stdin=pod("web"))
    k("wait", "--for=condition=Ready", "--timeout=30s", "pod/web")
    script = "echo hello; ps; sleep 1000"
    debug = ("debug", "web", f"--image={world.BUSYBOX}")
    k(*debug, "--container=look", "--target=main", "--", "sh", "-c", script)

    def output() -> str:
        done = daemon.kubectl("-n", namespace, "logs", "web", "-c", "look", check=False)
        return done.stdout if done.returncode == 0 else ""

    daemon.eventually(lambda: "echo hello" in output())
    # It sees the processes of the container that it is for, and that one is left as it was.
    assert "hello" in output()
    assert "sleep 1000" in output()
    pod_ = daemon.get("--namespace", namespace, "pod", "web")
    [status] = pod_["status"]["ephemeralContainerStatuses"]
    assert "running" in status["state"]
    assert [entry["restartCount"] for entry in pod_["status"]["containerStatuses"]] == [0]
    _, row = k("get", "pods").splitlines()
    assert row.split()[:3] == ["web", "2/2", "Running"]
    assert "Ephemeral Containers:" in k("describe", "pod", "web")


def test_a_pod_is_evicted(daemon: Daemon, namespace: str) -> None:
    daemon.kubectl("--namespace", namespace, "create", "-f", "-", stdin=pod("web"))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
    path = f"/api/v1/namespaces/{namespace}/pods/web/eviction"
    daemon.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    words = ("--namespace", namespace, "wait", "--for=delete", "pod/web", "--timeout=30s")
    daemon.kubectl(*words)
