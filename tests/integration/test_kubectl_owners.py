"""Deployments, ReplicaSets and Jobs by each kubectl: what people do with them all day."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.integration.test_kubectl_memory import Cluster, certificates, kube

__all__ = ["certificates", "kube"]

pytestmark = pytest.mark.slow

PATIENCE = "--timeout=25s"


def job(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", *command]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


async def eventually(kube: Cluster, words: str, expected: str) -> None:
    """Wait until kubectl prints that."""
    async with asyncio.timeout(25):
        while (await kube.run(*words.split(), code=None))[0] != expected:
            pass


async def test_a_deployment_is_rolled_and_rolled_back(kube: Cluster) -> None:
    out = await kube("create", "deployment", "web", "--image=demo:1")
    assert out == "deployment.apps/web created\n"
    assert await kube("scale", "deployment/web", "--replicas=3") == "deployment.apps/web scaled\n"
    done = 'deployment "web" successfully rolled out\n'
    assert (await kube("rollout", "status", "deployment/web", PATIENCE)).endswith(done)
    await kube("wait", "--for=condition=Available", "deployment/web", PATIENCE)
    header, row = (await kube("get", "deployments")).splitlines()
    assert header.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:4] == ["web", "3/3", "3", "3"]
    wide = (await kube("get", "deploy", "-o", "wide")).splitlines()
    assert wide[0].split()[5:] == ["CONTAINERS", "IMAGES", "SELECTOR"]
    assert wide[1].split()[5:] == ["demo", "demo:1", "app=web"]
    header, row = (await kube("get", "rs")).splitlines()
    assert header.split() == ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]
    assert row.split()[1:4] == ["3", "3", "3"]

    out = await kube("set", "image", "deployment/web", "demo=demo:2")
    assert out == "deployment.apps/web image updated\n"
    await kube("annotate", "deployment/web", "kubernetes.io/change-cause=second")
    assert done in await kube("rollout", "status", "deployment/web", PATIENCE)
    history = await kube("rollout", "history", "deployment/web")
    assert re.search(r"^1\s+<none>$", history, re.M), history
    assert re.search(r"^2\s+second$", history, re.M), history
    assert "demo:1" in await kube("rollout", "history", "deployment/web", "--revision=1")

    assert "rolled back" in await kube("rollout", "undo", "deployment/web")
    assert done in await kube("rollout", "status", "deployment/web", PATIENCE)
    images = "jsonpath={.items[*].spec.containers[0].image}"
    await eventually(kube, f"get pods -l app=web -o {images}", "demo:1 demo:1 demo:1")
    history = await kube("rollout", "history", "deployment/web")
    assert re.findall(r"^\d+", history, re.M) == ["2", "3"]

    before = await kube("get", "pods", "-o", "name")
    assert "restarted" in await kube("rollout", "restart", "deployment/web")
    assert done in await kube("rollout", "status", "deployment/web", PATIENCE)
    assert not set(before.split()) & set((await kube("get", "pods", "-o", "name")).split())

    assert "paused" in await kube("rollout", "pause", "deployment/web")
    await kube("set", "image", "deployment/web", "demo=demo:3")
    await eventually(kube, f"get pods -l app=web -o {images}", "demo:1 demo:1 demo:1")
    assert "resumed" in await kube("rollout", "resume", "deployment/web")
    assert done in await kube("rollout", "status", "deployment/web", PATIENCE)
    await eventually(kube, f"get pods -l app=web -o {images}", "demo:3 demo:3 demo:3")

    story = await kube("describe", "deployment", "web")
    assert re.search(r"Replicas:\s+3 desired \| 3 updated \| 3 total \| 3 available", story), story
    assert re.search(r"RollingUpdateStrategy:\s+25% max unavailable, 25% max surge", story)
    assert re.search(r"Available\s+True\s+MinimumReplicasAvailable", story)
    assert re.search(r"NewReplicaSet:\s+web-\w+ \(3/3 replicas created\)", story)
    assert re.search(
        r"Normal\s+ScalingReplicaSet\s.*Scaled up replica set web-\w+ from 0 to 1", story
    )
    sets = await kube("describe", "rs")
    assert re.search(r"Controlled By:\s+Deployment/web", sets)
    assert re.search(r"Normal\s+SuccessfulCreate\s.*Created pod: web-", sets)


async def test_what_is_wrong_with_a_deployment_is_told_by_field(kube: Cluster) -> None:
    spec = {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "b"}},
            "spec": {"containers": [{"name": "main", "image": "x"}], "restartPolicy": "Never"},
        },
    }
    bad = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bad"},
        "spec": spec,
    }
    error = await kube.refused("apply", "-f", "-", stdin=bad)
    assert "`selector` does not match template `labels`" in error
    assert 'Unsupported value: "Never": supported values: "Always"' in error
    await kube("create", "deployment", "web", "--image=demo:1")
    patch = '{"spec":{"selector":{"matchLabels":{"app":"other"}}}}'
    error = await kube.refused("patch", "deployment", "web", "-p", patch)
    assert "field is immutable" in error


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
async def test_what_is_owned_goes_as_is_said(kube: Cluster, cascade: str) -> None:
    await kube("create", "deployment", "web", "--image=demo:1")
    await kube("scale", "deployment", "web", "--replicas=2")
    await kube("rollout", "status", "deployment/web", PATIENCE)
    await kube("delete", "deployment", "web", f"--cascade={cascade}")
    assert await kube("get", "deployments", "-o", "name") == ""
    if cascade != "orphan":
        await eventually(kube, "get rs,pods -o name", "")
        return
    left = (await kube("get", "rs,pods", "-o", "name")).split()
    assert [name.split("/")[0] for name in left] == ["replicaset.apps", "pod", "pod"]
    # Its successor takes up what it finds.
    await kube("create", "deployment", "web", "--image=demo:1")
    await kube("scale", "deployment", "web", "--replicas=2")
    await kube("rollout", "status", "deployment/web", PATIENCE)
    await eventually(kube, "get rs -o name", f"{left[0]}\n")
    if kube.version < (1, 21):  # the older words for the same
        await kube.run("delete", "deployment", "web", "--cascade=false")
        assert await kube("get", "rs", "-o", "name") == f"{left[0]}\n"


async def test_jobs_complete_and_fail(kube: Cluster) -> None:
    assert await kube("create", "job", "made", "--image=busybox", "--", "true") == (
        "job.batch/made created\n"
    )
    await kube("wait", "--for=condition=Complete", "job/made", PATIENCE)
    await kube.apply(job("bad", "exit 3", backoffLimit=0), job("many", "true", completions=3))
    await kube("wait", "--for=condition=Failed", "job/bad", PATIENCE)
    await kube("wait", "--for=condition=Complete", "job/many", PATIENCE)
    rows = {row.split()[0]: row.split() for row in (await kube("get", "jobs")).splitlines()}
    assert rows["NAME"] == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    assert rows["many"][1:3] == ["Complete", "3/3"]
    assert rows["bad"][1:3] == ["Failed", "0/1"]
    story = await kube("describe", "job", "bad")
    assert re.search(r"0 (Active \(0 Ready\)|Running) / 0 Succeeded / 1 Failed", story), story
    assert re.search(
        r"Warning\s+BackoffLimitExceeded\s.*reached the specified backoff limit", story
    )
    assert re.search(r"Normal\s+Completed\s.*Job completed", await kube("describe", "job", "many"))
    pods = (await kube("get", "pods", "-l", "job-name=many", "-o", "name")).split()
    assert len(pods) == 3
    assert await kube("logs", "job/made") == ""
    await kube("delete", "job", "many", "bad")
    await eventually(kube, "get pods -l job-name=many -o name", "")
    if kube.version >= (1, 21):
        await kube("create", "job", "stays", "--image=busybox", "--", "sleep", "1000")
        await kube("wait", "--for=condition=Ready", "pod", "-l", "job-name=stays", PATIENCE)
        await kube("delete", "job", "stays", "--cascade=orphan")
        assert "stays-" in await kube("get", "pods", "-o", "name")


async def test_a_replication_controller_is_scaled_and_found(kube: Cluster) -> None:
    await kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ReplicationController",
            "metadata": {"name": "old"},
            "spec": {
                "replicas": 2,
                "selector": {"app": "old"},
                "template": {
                    "metadata": {"labels": {"app": "old"}},
                    "spec": {"containers": [{"name": "main", "image": "demo:1"}]},
                },
            },
        }
    )
    await kube("scale", "rc", "old", "--replicas=1", "--current-replicas=2")
    path = "jsonpath={.status.readyReplicas}"
    await eventually(kube, f"get rc old -o {path}", "1")
    error = await kube.refused("scale", "rc", "old", "--replicas=3", "--current-replicas=2")
    assert "Expected replicas to be 2, was 1" in error
    assert re.search(r"Replicas:\s+1 current / 1 desired", await kube("describe", "rc", "old"))
