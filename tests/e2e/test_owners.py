"""A Deployment that is rolled and a Job that completes, with real containers in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.containerd, pytest.mark.slow]


def owner(kind: str, name: str, script: str, *, restart: str = "Always", **spec: Any) -> str:
    container = {"name": "main", "image": world.BUSYBOX, "command": ["sh", "-c", script]}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "containers": [container],
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 0,
        },
    }
    group = "apps" if kind == "Deployment" else "batch"
    document = {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }
    return json.dumps(document)


def test_a_deployment_is_rolled_back_and_goes_with_its_pods(daemon: Daemon, namespace: str) -> None:
    def k(*words: str, stdin: str = "") -> str:
        return daemon.kubectl("--namespace", namespace, *words, stdin=stdin).stdout

    def logs() -> list[str]:
        return sorted(k("logs", "--selector=app=web", "--tail=-1").split())

    selector = {"matchLabels": {"app": "web"}}
    manifest = owner("Deployment", "web", "echo one; sleep 600", replicas=2, selector=selector)
    k("apply", "-f", "-", stdin=manifest)
    k("rollout", "status", "deployment/web", "--timeout=60s")
    assert logs() == ["one", "one"]
    k("apply", "-f", "-", stdin=manifest.replace("one", "two"))
    k("rollout", "status", "deployment/web", "--timeout=60s")
    daemon.eventually(lambda: logs() == ["two", "two"])
    k("rollout", "undo", "deployment/web")
    k("scale", "deployment/web", "--replicas=1")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    daemon.eventually(lambda: logs() == ["one"])
    k("delete", "deployment", "web", "--cascade=foreground")
    assert k("get", "replicasets,pods", "-o", "name") == ""


def test_an_indexed_job_completes_and_another_fails(daemon: Daemon, namespace: str) -> None:
    def k(*words: str, stdin: str = "") -> str:
        return daemon.kubectl("--namespace", namespace, *words, stdin=stdin).stdout

    script = "echo $JOB_COMPLETION_INDEX $HOSTNAME $(cat /proc/sys/kernel/hostname)"
    indexed = {"completions": 3, "parallelism": 2, "completionMode": "Indexed"}
    k("apply", "-f", "-", stdin=owner("Job", "count", script, restart="Never", **indexed))
    fails = owner("Job", "fails", "exit 42", restart="Never", backoffLimit=0)
    k("apply", "-f", "-", stdin=fails)
    k("wait", "--for=condition=Complete", "job/count", "--timeout=60s")
    k("wait", "--for=condition=Failed", "job/fails", "--timeout=60s")
    lines = sorted(k("logs", "--selector=job-name=count", "--tail=-1").splitlines())
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    assert [line.split()[-1] for line in lines] == ["count-0", "count-1", "count-2"]
    status = json.loads(k("get", "job", "count", "-o", "json"))["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    k("delete", "job", "count", "fails")
    daemon.eventually(lambda: k("get", "pods", "-o", "name") == "")
