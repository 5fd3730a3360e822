"""Examples of the Kubernetes documentation, unchanged, on the real container runtime.

``docs/pods.md`` has a row for each, and tells the same as ``EXPECTED`` does here. They all run at
once, each in a namespace of its own; one that names its namespace runs there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import world
from tests.daemon import Daemon

MANIFESTS = world.ROOT / "tests" / "manifests" / "k8s-docs"
PAGE = world.ROOT / "docs" / "pods.md"

Doc = dict[str, Any]

NEEDED = """
apiVersion: v1
kind: ConfigMap
metadata: {name: game-demo}
data: {player_initial_lives: "3", ui_properties_file_name: ui, game.properties: a, user-interface.properties: b}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: myconfigmap}
data: {config: hello, GREETING: hello}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: special-config}
data: {SPECIAL_LEVEL: very, SPECIAL_TYPE: charm, special.how: very}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: env-config}
data: {log_level: INFO}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: example-redis-config}
data: {redis-config: maxmemory 2mb}
---
apiVersion: v1
kind: Secret
metadata: {name: mysecret}
stringData: {username: admin}
---
apiVersion: v1
kind: Secret
metadata: {name: mysecret2}
stringData: {password: secret}
---
apiVersion: v1
kind: Secret
metadata: {name: mysql-pass}
stringData: {password: secret}
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
"""What the pages of the documentation have their readers make before."""


@dataclass
class Example:
    """One manifest in its namespace, and the objects that are there by now."""

    daemon: Daemon
    path: str
    namespace: str
    answer: str = ""
    objects: list[Doc] = field(default_factory=list)

    def kubectl(self, *words: str) -> str:
        done = self.daemon.kubectl("--namespace", self.namespace, *words, check=False)
        return done.stdout + done.stderr

    def all(self, kind: str) -> list[Doc]:
        return [doc for doc in self.objects if doc["kind"] == kind]

    @property
    def pod(self) -> Doc:
        """The Pod of a manifest that has one."""
        name = self.answer.split()[0].partition("/")[2]
        return next(
            (doc for doc in self.all("Pod") if doc["metadata"]["name"] == name), {"status": {}}
        )

    @property
    def waiting(self) -> str:
        """Why the Pod's first container does not run."""
        [status] = self.pod["status"].get("containerStatuses") or [{}]
        return str(status.get("state", {}).get("waiting", {}).get("reason", ""))


Expected = Callable[[Example], object]


def ready(example: Example) -> object:
    """All containers of the Pod, sidecars among them, are ready and none was started twice."""
    status = example.pod["status"]
    started = [
        *status.get("containerStatuses", []),
        *(entry for entry in status.get("initContainerStatuses", []) if entry.get("started")),
    ]
    return status.get("phase") == "Running" and all(
        entry["ready"] and not entry["restartCount"] for entry in started
    )


def logs(text: str, *words: str) -> Expected:
    """It runs, or has run to its end, and wrote this."""
    return lambda example: (
        example.pod["status"].get("phase") in ("Running", "Succeeded")
        and re.search(text, example.kubectl("logs", example.pod["metadata"]["name"], *words))
    )


def prints(text: str, *command: str) -> Expected:
    """It runs, and a command in it writes this."""

    def look(example: Example) -> object:
        name = example.pod.get("metadata", {}).get("name")
        return ready(example) and re.search(text, example.kubectl("exec", name, "--", *command))

    return look


def unschedulable(text: str) -> Expected:
    """The Pod waits for a node, and says why."""

    def look(example: Example) -> object:
        for condition in example.pod["status"].get("conditions", []):
            if condition["type"] == "PodScheduled":
                return condition["reason"] == "Unschedulable" and text in condition["message"]
        return False

    return look


def stuck(reason: str) -> Expected:
    """The Pod's container does not run, and says why."""
    return lambda example: example.waiting == reason


def refused(text: str) -> Expected:
    """Nothing is created, and the answer says why."""
    return lambda example: text in example.answer and "created" not in example.answer


def no_kind(kind: str) -> Expected:
    return lambda example: f'no matches for kind "{kind}"' in example.answer


def available(replicas: int) -> Expected:
    return lambda example: any(
        doc["status"].get("availableReplicas") == replicas
        for kind in ("Deployment", "ReplicationController")
        for doc in example.all(kind)
    )


def bound(example: Example) -> object:
    return [doc["status"].get("phase") for doc in example.all("PersistentVolumeClaim")] == ["Bound"]


def job(condition: str, **status: object) -> Expected:
    def look(example: Example) -> object:
        for doc in example.all("Job"):
            told = {entry["type"]: entry for entry in doc["status"].get("conditions", [])}
            if told.get(condition, {}).get("status") == "True":
                reached = {name: doc["status"].get(name) for name in status}
                return reached == status or pytest.fail(f"{reached}, not {status}")
        return False

    return look


def qos(name: str) -> Expected:
    return lambda example: ready(example) and example.pod["status"]["qosClass"] == name


def both(*expectations: Expected) -> Expected:
    return lambda example: all(expected(example) for expected in expectations)


def created(example: Example) -> object:
    return example.answer.endswith("created")


def ran(example: Example) -> object:
    """Its command ended well, and is started again, as the default policy has it."""
    for entry in example.pod["status"].get("containerStatuses", []):
        ended = (entry.get("lastState") or entry["state"]).get("terminated", {})
        return ended.get("exitCode") == 0
    return False


WORKS, REFUSED, NO_KIND = "works", "refused", "needs a kind that does not exist yet"

EXPECTED: dict[str, tuple[str, Expected]] = {
    "access/simple-clusterrole": (NO_KIND, no_kind("ClusterRole")),
    "admin/logging/two-files-counter-pod-streaming-sidecar": (
        WORKS,
        both(ready, logs(r"INFO 1\b", "--container=count-log-2")),
    ),
    "admin/namespace-dev": (WORKS, created),
    "admin/resource/memory-defaults": (NO_KIND, no_kind("LimitRange")),
    "admin/resource/memory-defaults-pod": (WORKS, ready),
    "application/basic-daemonset": (NO_KIND, no_kind("DaemonSet")),
    "application/deployment-sidecar": (WORKS, available(1)),
    "application/guestbook/frontend-service": (NO_KIND, no_kind("Service")),
    "application/guestbook/redis-follower-deployment": (WORKS, available(2)),
    "application/job/cronjob": (NO_KIND, no_kind("CronJob")),
    "application/job/indexed-job-vol": (
        WORKS,
        job("Complete", succeeded=5, completedIndexes="0-4"),
    ),
    "application/mysql/mysql-deployment": (NO_KIND, both(no_kind("Service"), available(1))),
    "application/mysql/mysql-pv": (WORKS, bound),
    "application/web/web": (NO_KIND, both(no_kind("Service"), no_kind("StatefulSet"))),
    "application/wordpress/mysql-deployment": (
        NO_KIND,
        both(no_kind("Service"), bound, available(1)),
    ),
    "configmap/configure-pod": (WORKS, prints("user-interface.properties", "ls", "/config")),
    "configmap/env-configmap": (WORKS, ran),
    "controllers/job-backoff-limit-per-index-example": (
        WORKS,
        job("Failed", succeeded=5, completedIndexes="1,3,5,7,9", failedIndexes="0,2,4,6,8"),
    ),
    "controllers/job-pod-failure-policy-failjob": (WORKS, job("Failed")),
    "controllers/replication": (WORKS, available(3)),
    "debug/counter-pod": (WORKS, logs("1: .*2026|1: ")),
    "pods/config/redis-pod": (WORKS, prints("maxmemory", "cat", "/usr/local/etc/redis/redis.conf")),
    "pods/image-volumes": (WORKS, prints("2", "cat", "/volume/dir/file")),
    "pods/inject/dapi-envars-pod": (WORKS, logs(r"dapi-envars-fieldref\n[^\n]*\n10\.")),
    "pods/inject/dapi-volume-resources": (WORKS, logs("32")),
    "pods/inject/envars": (WORKS, prints("Such a sweet sorrow", "env")),
    "pods/inject/envars-file-container": (
        REFUSED,
        refused('unknown field "spec.containers[0].env[0].valueFrom.fileKeyRef"'),
    ),
    "pods/inject/secret": (WORKS, created),
    "pods/lifecycle-events": (
        WORKS,
        prints("Hello from the postStart", "cat", "/usr/share/message"),
    ),
    "pods/multi-container/startup-coordination": (
        WORKS,
        both(ready, logs("greeting=hello", "--container=main-app")),
    ),
    "pods/pod-configmap-env-var-valueFrom": (WORKS, logs("very charm")),
    "pods/pod-multiple-configmap-env-variable": (WORKS, logs("LOG_LEVEL=INFO")),
    "pods/pod-nginx": (WORKS, unschedulable("didn't match Pod's node affinity/selector")),
    "pods/pod-with-toleration": (WORKS, ready),
    "pods/private-reg-pod": (WORKS, stuck("InvalidImageName")),
    "pods/probe/pod-with-http-healthcheck": (WORKS, ready),
    "pods/probe/pod-with-tcp-socket-healthcheck": (WORKS, ready),
    "pods/qos/qos-pod-4": (WORKS, qos("Burstable")),
    "pods/qos/qos-pod-5": (WORKS, qos("Guaranteed")),
    "pods/resource/memory-request-limit": (WORKS, ready),
    "pods/resource/memory-request-limit-3": (WORKS, unschedulable("1 Insufficient memory.")),
    "pods/security/seccomp/ga/audit-pod": (WORKS, stuck("CreateContainerError")),
    "pods/security/seccomp/ga/default-pod": (WORKS, ready),
    "pods/security/security-context-5": (WORKS, prints("uid=1000 gid=3000 groups=.*4000", "id")),
    "pods/security/security-context-6": (REFUSED, stuck("CreateContainerConfigError")),
    "pods/storage/projected-secret-downwardapi-configmap": (
        WORKS,
        prints("my-config", "ls", "/projected-volume/my-group"),
    ),
    "pods/storage/projected-secrets-nondefault-permission-mode": (
        WORKS,
        prints("-rwxrwxrwx", "ls", "-lL", "/projected-volume/my-group/my-password"),
    ),
    "pods/storage/pv-duplicate": (WORKS, prints("nginx.conf", "ls", "/etc/nginx")),
    "pods/storage/pv-pod": (WORKS, ready),
    "pods/user-namespaces-stateless": (
        REFUSED,
        refused("spec.hostUsers: Unsupported value: false: not supported by Tandem"),
    ),
    "secret/basicauth-secret": (WORKS, created),
    "service/access/backend-deployment": (WORKS, available(3)),
    "service/access/backend-service": (NO_KIND, no_kind("Service")),
    "service/networking/nginx-svc": (NO_KIND, no_kind("Service")),
    "service/networking/run-my-nginx": (WORKS, available(2)),
}

CLAIMS = {
    "application/mysql/mysql-deployment": "mysql-pv-claim",
    "pods/storage/pv-duplicate": "test-nfs-claim",
    "pods/storage/pv-pod": "task-pv-claim",
}
"""Claims that a manifest expects to be there."""

_OWN_NAMESPACE = re.compile(r'namespace: "?([a-z-]+)')
_SECONDS = 150.0  # on a busy machine; a Job's Pod takes 31 s to fail as it is meant to
_AT_ONCE = 4


def names() -> Iterator[str]:
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        yield path.relative_to(MANIFESTS).with_suffix("").as_posix()


def test_every_manifest_has_its_row_and_its_expectation() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)\.yaml` \| ([a-z ]+)[^|]*\|", page, re.MULTILINE))
    told = {name: outcome for name, (outcome, _) in EXPECTED.items()}
    assert sorted(told) == sorted(names())
    assert {name: row.strip() for name, row in rows.items()} == told


@pytest.fixture
def examples(daemon: Daemon) -> Iterator[list[Example]]:
    """The manifests, each in its namespace, which go in the end with all that is in them."""
    found = []
    for name in names():
        own = _OWN_NAMESPACE.search((MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8"))
        namespace = (
            own[1] if own else "doc-" + re.sub("[^a-z0-9]+", "-", name.lower())[-50:].strip("-")
        )
        found.append(Example(daemon, name, namespace))
    namespaces = sorted({example.namespace for example in found})
    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in namespaces
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": spaces}
    daemon.kubectl("create", "-f", "-", stdin=json.dumps(listed))
    yield found
    everything = (*namespaces, "development")
    daemon.kubectl("delete", "namespace", *everything, "--wait=false", "--ignore-not-found")
    daemon.kubectl(
        "delete", "pods", "--all", "--all-namespaces", "--grace-period=0", "--force", check=False
    )
    daemon.kubectl("wait", "--for=delete", "--timeout=60s", *(f"namespace/{n}" for n in everything))
    daemon.kubectl("delete", "persistentvolumes", "--all", check=False)


@pytest.mark.containerd
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_documentation_runs_unchanged(daemon: Daemon, examples: list[Example]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_apply, examples))
        waiting = list(examples)
        try:
            daemon.eventually(lambda: _done(daemon, pool, waiting), seconds=_SECONDS)
        except AssertionError:
            shown = "\n".join(
                f"{example.path}: {example.answer}\n{example.kubectl('get', 'pods')}"
                f"{example.kubectl('get', 'events')}"
                for example in waiting
            )
            pytest.fail(f"not as expected:\n{shown}")


def _apply(example: Example) -> None:
    needed = NEEDED
    if claim := CLAIMS.get(example.path):
        needed += "---" + CLAIM % claim
    example.daemon.kubectl("--namespace", example.namespace, "apply", "-f", "-", stdin=needed)
    answer = example.kubectl("apply", "--filename", str(MANIFESTS / f"{example.path}.yaml"))
    example.answer = answer.strip()


def _done(daemon: Daemon, pool: ThreadPoolExecutor, waiting: list[Example]) -> bool:
    """Take out those that are as expected; whether that is all."""
    kinds = "pods,deployments,replicationcontrollers,jobs,persistentvolumeclaims"
    objects = daemon.get(kinds, "--all-namespaces")["items"]
    for example in waiting:
        example.objects = [
            doc for doc in objects if doc["metadata"]["namespace"] == example.namespace
        ]
    found = pool.map(lambda example: EXPECTED[example.path][1](example), waiting)
    waiting[:] = [example for example, done in zip(list(waiting), found, strict=True) if not done]
    return not waiting
