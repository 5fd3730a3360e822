"""Pods through the API on the real container runtime, by each kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.containerd, pytest.mark.slow]


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": list(containers), **spec},
    }
    return json.dumps(document)


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": world.BUSYBOX, "command": ["sh", "-c", script], **more}


class Client:
    """kubectl in the test's namespace."""

    def __init__(self, daemon: Daemon, namespace: str, binary: Path | None = None) -> None:
        self.daemon, self.namespace, self.binary = daemon, namespace, binary

    def __call__(self, *words: str, stdin: str = "", check: bool = True) -> str:
        words = ("--namespace", self.namespace, *words)
        done = self.daemon.kubectl(*words, binary=self.binary, stdin=stdin, check=check)
        return done.stdout + (done.stderr if not check else "")

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self("get", "pod", name, "-o", "json"))["status"]
        return status

    def phase(self, name: str) -> str:
        return str(self.status(name).get("phase"))


@pytest.fixture
def k(daemon: Daemon, namespace: str) -> Client:
    return Client(daemon, namespace)


def test_the_verbs_of_kubectl(daemon: Daemon, namespace: str, kubectl: Path) -> None:
    k = Client(daemon, namespace, kubectl)
    manifest = pod("one", container("main", "echo hello; exec sleep 600"))
    assert k("create", "-f", "-", stdin=manifest) == "pod/one created\n"
    k("wait", "--for=condition=Ready", "--timeout=30s", "pod/one")

    header, row = k("get", "pods").splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["one", "1/1", "Running", "0"]
    address = k.status("one")["podIP"]
    assert address in k("get", "pod", "one", "-o", "wide")
    assert k("logs", "one") == "hello\n"

    k("label", "pod", "one", "tier=front")
    assert k("get", "pods", "--selector", "tier=front", "-o", "name") == "pod/one\n"
    assert k("get", "pods", "--selector", "tier=back", "-o", "name") == ""
    k("patch", "pod", "one", "--type=merge", "--patch", '{"metadata":{"annotations":{"a":"b"}}}')
    k("annotate", "pod", "one", "a-")
    described = k("describe", "pod", "one")
    for words in ("Name:", "tier=front", "Pulled", "Started", address):
        assert words in described

    k("delete", "pod", "one")
    assert "not found" in k("get", "pod", "one", check=False)


def test_apply_changes_what_it_may_and_says_what_it_may_not(k: Client) -> None:
    first = pod("one", container("main", "exec sleep 600"))
    k("apply", "-f", "-", stdin=first)
    assert "unchanged" in k("apply", "-f", "-", stdin=first)
    labelled = json.loads(first)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert "configured" in k("apply", "-f", "-", stdin=json.dumps(labelled))
    other = first.replace("sleep 600", "sleep 601")
    assert "may not change fields" in k("apply", "-f", "-", stdin=other, check=False)


def test_containers_of_a_pod_share_its_network_and_get_their_environment(k: Client) -> None:
    server = container("server", "exec httpd -f -p 8080 -h /www")
    script = (
        "until wget -q -O - http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.1; done;"
        "echo $GREETING $(cat /proc/sys/kernel/hostname); exec sleep 600"
    )
    client = container("client", script, env=[{"name": "GREETING", "value": "hi $$ $(NOT)"}])
    k("apply", "-f", "-", stdin=pod("two", server, client))
    k("wait", "--for=condition=Ready", "--timeout=30s", "pod/two")
    expected = "hello from busybox\nhi $ $(NOT) two\n"
    k.daemon.eventually(lambda: k("logs", "two", "-c", "client", check=False) == expected)


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 7, "Failed"), ("OnFailure", 0, "Succeeded")],
)
def test_a_container_that_ends_ends_its_pod_as_its_policy_says(
    k: Client, policy: str, code: int, phase: str
) -> None:
    manifest = pod("ends", container("main", f"echo done; exit {code}"), restartPolicy=policy)
    k("apply", "-f", "-", stdin=manifest)
    k.daemon.eventually(lambda: k.phase("ends") == phase)
    (status,) = k.status("ends")["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == code
    assert k("logs", "ends") == "done\n"


def test_a_container_that_fails_is_started_again_and_its_earlier_log_kept(k: Client) -> None:
    k("apply", "-f", "-", stdin=pod("again", container("main", "echo try; sleep 1; exit 3")))
    k.daemon.eventually(lambda: k.status("again")["containerStatuses"][0]["restartCount"] >= 1)
    (status,) = k.status("again")["containerStatuses"]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert k("logs", "again", "--previous") == "try\n"


def test_delete_gives_the_container_its_grace(k: Client) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    k(
        "apply",
        "-f",
        "-",
        stdin=pod("kind", container("main", script), terminationGracePeriodSeconds=20),
    )
    k.daemon.eventually(lambda: k("logs", "kind", check=False) == "up\n")
    k("delete", "pod", "kind", "--timeout=15s")


def test_pods_reach_each_other_by_address(k: Client) -> None:
    k("apply", "-f", "-", stdin=pod("server", container("main", "exec httpd -f -p 80 -h /www")))
    k("wait", "--for=condition=Ready", "--timeout=30s", "pod/server")
    address = k.status("server")["podIP"]
    script = f"until wget -q -O - http://{address}/; do sleep 0.1; done"
    k("apply", "-f", "-", stdin=pod("client", container("main", script), restartPolicy="Never"))
    k.daemon.eventually(lambda: k.phase("client") == "Succeeded")
    assert k("logs", "client") == "hello from busybox\n"


def test_an_image_that_cannot_be_had_is_told_and_the_pod_can_be_deleted(k: Client) -> None:
    manifest = pod("none", {"name": "main", "image": f"{world.REGISTRY}/no/such:1"})
    k("apply", "-f", "-", stdin=manifest)

    def reason() -> Any:
        (status,) = k.status("none").get("containerStatuses") or [{}]
        return status.get("state", {}).get("waiting", {}).get("reason")

    k.daemon.eventually(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"))
    assert "no/such:1" in k("describe", "pod", "none")
    k("delete", "pod", "none", "--timeout=20s")
