"""Probes on the real container runtime: what they find out, and what becomes of the containers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.e2e.test_pods import Client, container, pod

pytestmark = [pytest.mark.containerd, pytest.mark.slow]

SERVE = "mkdir /site; httpd -p 8080 -h /site; while :; do nc -l -p 9090 </dev/null; done"

GRPC = r"""
printf '\0' > /tmp/health
cat > /tmp/answer <<'END'
#!/bin/sh
# Settings; when the request has come: its settings acknowledged, headers, a message, trailers.
printf '\0\0\0\4\0\0\0\0\0'
sleep 0.3
printf '\0\0\0\4\1\0\0\0\0'
printf '\0\0\24\1\4\0\0\0\1\210\17\20\20application/grpc'
printf '\0\0\7\0\0\0\0\0\1\0\0\0\0\2\10'; cat /tmp/health
printf '\0\0\17\1\5\0\0\0\1\0\13grpc-status\0010'
sleep 1
END
chmod +x /tmp/answer
exec nc -ll -p 50051 -e /tmp/answer
"""
"""As much of a gRPC server as a health check needs. It says what is in /tmp/health: 1 is SERVING."""


@pytest.fixture
def k(daemon: Daemon, namespace: str) -> Client:
    return Client(daemon, namespace)


def probe(handler: str, timeout: int = 5, failures: int = 3, **action: Any) -> dict[str, Any]:
    numbers = {"periodSeconds": 1, "timeoutSeconds": timeout, "failureThreshold": failures}
    return {handler: action, **numbers}


def statuses(k: Client, name: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in k.status(name)["containerStatuses"]}


def running(k: Client, name: str, container: str) -> dict[str, Any] | None:
    """The container's status, if it runs."""
    for entry in k.status(name).get("containerStatuses", []):
        if entry["name"] == container and "running" in entry["state"]:
            return dict(entry)
    return None


def restarts(k: Client, name: str, container: str) -> int:
    entries = k.status(name).get("containerStatuses", [])
    return sum(entry["restartCount"] for entry in entries if entry["name"] == container)


def messages(k: Client, name: str) -> set[tuple[str, str]]:
    events = json.loads(k("get", "events", "-o", "json"))["items"]
    return {(e["reason"], e["message"]) for e in events if e["involvedObject"]["name"] == name}


def test_a_pod_is_ready_when_the_probes_of_all_its_containers_say_so(k: Client) -> None:
    ports = [{"name": "web", "containerPort": 8080}]
    ready = probe("httpGet", failures=1, port="web", path="/ready")
    connects = probe("tcpSocket", failures=100, port=9090)
    serves = probe("grpc", failures=1, port=50051)
    manifest = pod(
        "probed",
        container("web", SERVE, ports=ports, readinessProbe=ready, livenessProbe=connects),
        container("rpc", GRPC, readinessProbe=serves),
        container("plain", "exec sleep 600"),
    )
    k("apply", "-f", "-", stdin=manifest)
    not_found = "Readiness probe failed: HTTP probe failed with statuscode: 404"
    k.daemon.eventually(lambda: ("Unhealthy", not_found) in messages(k, "probed"))
    unknown = 'Readiness probe failed: service unhealthy (responded with "UNKNOWN")'
    k.daemon.eventually(lambda: ("Unhealthy", unknown) in messages(k, "probed"))
    found = statuses(k, "probed")
    assert {name: (entry["started"], entry["ready"]) for name, entry in found.items()} == {
        "web": (True, False),
        "rpc": (True, False),
        "plain": (True, True),
    }

    k("exec", "probed", "-c", "web", "--", "touch", "/site/ready")
    k.daemon.eventually(lambda: statuses(k, "probed")["web"]["ready"])
    assert not statuses(k, "probed")["rpc"]["ready"]
    k("exec", "probed", "-c", "rpc", "--", "sh", "-c", r"printf '\1' > /tmp/health")
    k("wait", "--for=condition=Ready", "--timeout=60s", "pod/probed")

    k("exec", "probed", "-c", "web", "--", "rm", "/site/ready")
    k("wait", "--for=condition=Ready=false", "--timeout=60s", "pod/probed")
    assert all(entry["restartCount"] == 0 for entry in statuses(k, "probed").values())


def test_a_container_that_does_not_live_is_restarted_and_one_that_starts_is_waited_for(
    k: Client,
) -> None:
    alive = probe("exec", command=["cat", "/tmp/alive"], failures=2)
    short = {**alive, "terminationGracePeriodSeconds": 1}
    # Liveness would end it after its first second, if it were asked before startup has succeeded.
    begins = probe("exec", command=["test", "-e", "/tmp/alive"], failures=100)
    strict = probe("exec", command=["cat", "/tmp/alive"], failures=1)
    stubborn = "trap '' TERM; while :; do sleep 0.2; done"
    late = "sleep 4; touch /tmp/alive; exec sleep 600"
    hangs = probe("exec", command=["sleep", "600"], timeout=1)
    absent = probe("exec", command=["no-such-program"])
    manifest = pod(
        "watched",
        container("dies", stubborn, livenessProbe=short, readinessProbe=absent),
        container("late", late, startupProbe=begins, livenessProbe=strict, readinessProbe=hangs),
        # The containers come when the sidecar has started, which is when its probe says so.
        initContainers=[container("side", late, startupProbe=begins, restartPolicy="Always")],
        # Far more than the probe's own, which is what counts.
        terminationGracePeriodSeconds=3000,
    )
    k("apply", "-f", "-", stdin=manifest)
    first = k.daemon.eventually(lambda: running(k, "watched", "dies"))
    (side,) = k.status("watched")["initContainerStatuses"]
    assert side["started"]
    assert side["state"]["running"]["startedAt"] < first["state"]["running"]["startedAt"]
    k.daemon.eventually(lambda: restarts(k, "watched", "dies") >= 1)
    assert statuses(k, "watched")["dies"]["lastState"]["terminated"]["exitCode"] == 137
    k.daemon.eventually(lambda: (running(k, "watched", "late") or {}).get("started"))
    missing = "cat: can't open '/tmp/alive': No such file or directory\n"
    hung = 'command timed out: "sleep 600" timed out after 1s'
    told = {
        ("Unhealthy", f"Liveness probe failed: {missing}"),
        ("Killing", "Container dies failed liveness probe, will be restarted"),
        ("Unhealthy", "Startup probe failed: "),
        ("Unhealthy", f"Readiness probe failed: {hung}"),
    }
    k.daemon.eventually(lambda: told <= messages(k, "watched"))
    said = messages(k, "watched")
    assert any(message.startswith("Readiness probe errored: ") for _, message in said)
    assert statuses(k, "watched")["late"]["restartCount"] == 0
    k("delete", "pod", "watched", "--grace-period=0", "--force")


def test_hooks_run_after_the_start_and_before_the_end(k: Client) -> None:
    connects = probe("tcpSocket", port=8080)
    ends = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
    hello = {"httpGet": {"port": 8080, "path": "/hello"}}
    bye = {"exec": {"command": ["wget", "-q", "-O", "-", "http://127.0.0.1:8080/bye"]}}
    fails = {"exec": {"command": ["sh", "-c", "echo no; exit 3"]}}
    dies = probe("exec", command=["false"], failures=1)
    web = container("web", "exec httpd -f -vv -p 8080", startupProbe=connects)
    manifest = pod(
        "hooked",
        container("main", ends, lifecycle={"postStart": hello, "preStop": bye}, livenessProbe=dies),
        container("broken", ends, lifecycle={"postStart": fails}),
        initContainers=[{**web, "restartPolicy": "Always"}],
        terminationGracePeriodSeconds=20,
    )
    k("apply", "-f", "-", stdin=manifest)
    k.daemon.eventually(lambda: restarts(k, "hooked", "main") >= 1)
    served = k("logs", "hooked", "-c", "web")
    assert served.index("/hello") < served.index("/bye")
    assert statuses(k, "hooked")["main"]["lastState"]["terminated"]["exitCode"] == 0
    told = {
        ("FailedPostStartHook", "PostStartHook failed"),
        ("FailedPreStopHook", "PreStopHook failed"),  # there is no /bye
    }
    k.daemon.eventually(lambda: told <= messages(k, "hooked"))
    k("delete", "pod", "hooked", "--grace-period=0", "--force")
