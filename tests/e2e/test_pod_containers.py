"""The containers of a Pod from their first image to their last log, on the real container runtime."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import world
from tests.daemon import Daemon
from tests.e2e.test_pods import Client, container, pod

pytestmark = [pytest.mark.containerd, pytest.mark.slow]

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture
def k(daemon: Daemon, namespace: str) -> Client:
    return Client(daemon, namespace)


def entry(k: Client, pod: str, name: str) -> dict[str, Any]:
    status = k.status(pod)
    fields = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    entries = [item for field in fields for item in status.get(field, [])]
    return next((item for item in entries if item["name"] == name), {})


def waiting(k: Client, pod: str, name: str) -> str:
    return str(entry(k, pod, name).get("state", {}).get("waiting", {}).get("reason", ""))


def reasons(k: Client, pod: str) -> list[tuple[str, str]]:
    events = k.daemon.get("events", "--namespace", k.namespace)["items"]
    return [(e["reason"], e["message"]) for e in events if e["involvedObject"]["name"] == pod]


def test_init_containers_sidecars_and_containers_in_their_order(k: Client) -> None:
    """One Pod that ends: its parts begin and end in order, and its logs outlive its network."""
    shared = [{"name": "shared", "mountPath": "/shared"}]

    def part(name: str, script: str, **more: Any) -> dict[str, Any]:
        return container(name, script, volumeMounts=shared, **more)

    beat = f"trap 'echo {{}} >> /shared/order; exit 0' TERM; echo begin {{}} >> /shared/order; {FOREVER.partition(';')[2]}"
    side = {"restartPolicy": "Always"}
    manifest = pod(
        "parts",
        part("main", "cat /shared/order; sleep 1; echo main >> /shared/order"),
        initContainers=[
            part("first", "echo first >> /shared/order"),
            part("one", beat.format("one", "one"), **side),
            part("second", "sleep 0.5; echo second >> /shared/order"),
            part("two", beat.format("two", "two"), **side),
        ],
        volumes=[{"name": "shared", "emptyDir": {}}],
        restartPolicy="Never",
        terminationGracePeriodSeconds=30,
    )
    k("apply", "-f", "-", stdin=manifest)
    k.daemon.eventually(lambda: k.phase("parts") == "Succeeded")
    lines = k("logs", "parts", "-c", "main").splitlines()
    # A sidecar has started when it runs: it need not have come to its first line.
    assert [line for line in lines if not line.startswith("begin")] == ["first", "second"]
    ends = {n: entry(k, "parts", n)["state"]["terminated"] for n in ("first", "one", "two", "main")}
    assert {name: end["exitCode"] for name, end in ends.items()} == dict.fromkeys(ends, 0)
    assert ends["main"]["finishedAt"] <= ends["two"]["finishedAt"] <= ends["one"]["finishedAt"]
    conditions = {c["type"]: c for c in k.status("parts")["conditions"]}
    assert conditions["Initialized"]["reason"] == "PodCompleted"
    assert conditions["Ready"]["reason"] == "PodCompleted"
    # Its network is gone and its logs are not.
    k.daemon.eventually(lambda: not _interfaces())
    assert "second" in k("logs", "parts", "-c", "main")


def _interfaces() -> set[str]:
    return {item for item in world.leftovers() if item.startswith("interface:")}


def test_containers_fail_each_on_its_own(k: Client) -> None:
    """A crash loop, a bad image, a program that is not there, a configuration that comes late, and one
    that does not care."""
    missing = {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "color"}}}
    manifest = pod(
        "mixed",
        container("loops", "echo try; exit 3"),
        {"name": "absent", "image": f"{world.REGISTRY}/no/such:1"},
        {"name": "nothing", "image": world.BUSYBOX, "command": ["/no/such/program"]},
        container("late", "echo $COLOR; exec sleep 600", env=[missing]),
        container("fine", "exec sleep 600"),
    )
    k("apply", "-f", "-", stdin=manifest)
    k.daemon.eventually(lambda: entry(k, "mixed", "fine").get("ready"))
    k.daemon.eventually(lambda: waiting(k, "mixed", "loops") == "CrashLoopBackOff")
    k.daemon.eventually(lambda: waiting(k, "mixed", "absent") == "ImagePullBackOff")
    k.daemon.eventually(lambda: waiting(k, "mixed", "nothing") == "CrashLoopBackOff")
    assert waiting(k, "mixed", "late") == "CreateContainerConfigError"
    loops, nothing = entry(k, "mixed", "loops"), entry(k, "mixed", "nothing")
    assert loops["restartCount"] == 1
    assert loops["lastState"]["terminated"]["exitCode"] == 3
    assert k("logs", "mixed", "-c", "loops", "--previous") == "try\n"
    assert nothing["lastState"]["terminated"]["reason"] == "StartError"
    assert nothing["lastState"]["terminated"]["exitCode"] == 128
    assert "/no/such/program" in nothing["lastState"]["terminated"]["message"]
    assert k.phase("mixed") == "Pending"
    k("create", "configmap", "late", "--from-literal=color=red")
    k.daemon.eventually(lambda: k("logs", "mixed", "-c", "late", check=False) == "red\n")
    found = reasons(k, "mixed")
    assert ("Failed", "Error: ErrImagePull") in found
    assert ("Failed", 'Error: configmap "late" not found') in found
    assert any(reason == "BackOff" and "restarting failed" in text for reason, text in found)
    assert ("Pulled", f'Container image "{world.BUSYBOX}" already present on machine') in found


def test_one_container_is_replaced_debugged_and_ended_with_its_hooks(k: Client) -> None:
    """An allowed change of image, ``kubectl debug``, both hooks, and a delete that waits for them."""
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "sleep 0.3; echo started > /shared/hook"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping; touch /shared/stopping"]}},
    }
    shared = [{"name": "shared", "mountPath": "/shared"}]
    script = "trap 'ls /shared; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    manifest = pod(
        "changes",
        container("hooked", script, lifecycle=hooks, volumeMounts=shared),
        container("other", "exec sleep 600"),
        volumes=[{"name": "shared", "emptyDir": {}}],
        terminationGracePeriodSeconds=30,
    )
    k("apply", "-f", "-", stdin=manifest)
    k("wait", "--for=condition=Ready", "--timeout=60s", "pod/changes")
    other = entry(k, "changes", "other")["containerID"]
    assert k("exec", "changes", "-c", "hooked", "--", "cat", "/shared/hook") == "started\n"

    alias = world.BUSYBOX.replace(world.REGISTRY, "docker.io")
    k("set", "image", "pod/changes", f"hooked={alias}")
    k.daemon.eventually(
        lambda: (now := entry(k, "changes", "hooked"))["restartCount"] == 1 and now["ready"]
    )
    assert entry(k, "changes", "other")["containerID"] == other
    assert "stopping" in k("logs", "changes", "-c", "hooked", "--previous")
    message = "Container hooked definition changed, will be restarted"
    assert ("Killing", message) in reasons(k, "changes")

    k(
        "debug", "changes", f"--image={world.BUSYBOX}", "--container=look", "--target=other",
        "--", "sh", "-c", "echo looked; exit 4",
    )  # fmt: skip
    k.daemon.eventually(lambda: "terminated" in entry(k, "changes", "look").get("state", {}))
    assert entry(k, "changes", "look")["state"]["terminated"]["exitCode"] == 4
    assert k("logs", "changes", "-c", "look") == "looked\n"
    assert k.phase("changes") == "Running"

    k("delete", "pod", "changes", "--timeout=40s")
    found = reasons(k, "changes")
    assert ("Killing", "Stopping container hooked") in found
    assert not [reason for reason, _ in found if reason.startswith("Failed")]


def test_a_pod_has_its_time(k: Client) -> None:
    """A deadline ends a Pod, a failing hook its container, and the log of either can still be read."""
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "exit 1"]}}}
    late = pod(
        "late",
        container("main", f"echo here; {FOREVER}"),
        activeDeadlineSeconds=3600,
        terminationGracePeriodSeconds=10,
    )
    hooked = pod(
        "hooked",
        container("main", f"echo here; {FOREVER.replace('exit 0', 'exit 5')}", lifecycle=hook),
        restartPolicy="Never",
        terminationGracePeriodSeconds=10,
    )
    k(
        "apply",
        "-f",
        "-",
        stdin=json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": [json.loads(late), json.loads(hooked)]}
        ),
    )
    k.daemon.eventually(lambda: k("logs", "late", check=False) == "here\n")
    k("patch", "pod", "late", "--patch", '{"spec":{"activeDeadlineSeconds":1}}')
    k.daemon.eventually(lambda: k.phase("late") == "Failed" and k.phase("hooked") == "Failed")
    assert k.status("late")["reason"] == "DeadlineExceeded"
    assert entry(k, "late", "main")["state"]["terminated"]["exitCode"] == 0
    assert entry(k, "hooked", "main")["state"]["terminated"]["exitCode"] == 5
    assert ("FailedPostStartHook", "PostStartHook failed") in reasons(k, "hooked")
    for name in ("late", "hooked"):
        assert k("logs", name) == "here\n"


def test_a_daemon_that_is_killed_leaves_a_pod_to_the_next(make_daemon: Any) -> None:
    """Killed with init containers, a hook and a back-off under way: the next one goes on."""
    daemon = make_daemon()
    k = Client(daemon, "default")
    manifest = pod(
        "half",
        container("main", "exec sleep 600"),
        initContainers=[
            container("slow", "sleep 2"),
            container("side", "exec sleep 600", restartPolicy="Always"),
        ],
    )
    k("apply", "-f", "-", stdin=manifest)
    k.daemon.eventually(lambda: "running" in entry(k, "half", "slow").get("state", {}))
    daemon.end(9)
    daemon.start()
    k("wait", "--for=condition=Ready", "--timeout=60s", "pod/half")
    assert entry(k, "half", "slow")["restartCount"] == 0
    k("delete", "pod", "half", "--grace-period=0", "--force")
    k.daemon.eventually(lambda: "half" not in k("get", "pods", check=False))
