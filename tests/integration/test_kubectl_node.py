"""The Node, what is used of it, and who may do what: by each kubectl, on the in-memory runtime."""

from __future__ import annotations

import re

import pytest

from tests.integration.test_kubectl_memory import POD, Cluster, certificates, kube
from tests.unit.control.plant import NODE

__all__ = ["certificates", "kube"]

pytestmark = pytest.mark.slow


async def test_the_node_is_shown_and_marked(kube: Cluster) -> None:
    header, row = (await kube("get", "nodes")).splitlines()
    assert header.split() == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert row.split()[:3] == [NODE.name, "Ready", "<none>"]
    wide = await kube("get", "no", "-o", "wide")
    assert "INTERNAL-IP" in wide
    assert NODE.address in wide
    assert "memory://1" in wide

    await kube("label", "node", NODE.name, "disk=ssd")
    await kube("taint", "nodes", NODE.name, "gpu=yes:NoSchedule")
    await kube("cordon", NODE.name)
    assert "Ready,SchedulingDisabled" in await kube("get", "node", NODE.name)
    await kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    story = await kube("describe", "node", NODE.name)
    for words in (
        r"disk=ssd",
        r"Taints:\s+gpu=yes:NoSchedule",
        r"Unschedulable:\s+true",
        r"Ready\s+True .*KubeletReady\s+kubelet is posting ready status",
        r"Kubelet Version:\s+v1.32",
        r"cpu:\s+4",
        r"NodeNotSchedulable",
    ):
        assert re.search(words, story), story
    await kube("uncordon", NODE.name)
    await kube("taint", "nodes", NODE.name, "gpu-")
    assert not (await kube.read("node", NODE.name))["spec"].get("taints")
    await kube("delete", "node", NODE.name)
    again = (await kube.read("node", NODE.name))["metadata"]["labels"]
    assert "disk" not in again


async def test_pods_are_described_on_their_node(kube: Cluster) -> None:
    await kube.apply(POD)
    await kube.run("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    assert re.search(r"default\s+web\s", await kube("describe", "node", NODE.name))


async def test_top_shows_what_is_used(kube: Cluster) -> None:
    await kube.apply(POD)
    await kube.run("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    header, row = (await kube("top", "pod")).splitlines()
    assert header.split() == ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    name, cpu, memory = row.split()
    assert (name, memory) == ("web", "4Mi")
    assert re.fullmatch(r"\d+m", cpu)
    assert "web" in await kube("top", "pod", "-A", "-l", "app=web")
    assert "main" in await kube("top", "pod", "web", "--containers")
    header, row = (await kube("top", "node")).splitlines()
    assert header.split()[0] == "NAME"
    assert row.split()[0] == NODE.name
    assert re.search(r"\d+m\s+\d+%\s+\d+Mi\s+\d+%", row)
    listed = await kube("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
    assert '"NodeMetricsList"' in listed


async def test_an_administrator_asks_who_they_are_and_what_they_may(kube: Cluster) -> None:
    assert await kube("auth", "can-i", "create", "pods") == "yes\n"
    assert await kube("auth", "can-i", "get", "/healthz") == "yes\n"
    assert "[*]" in await kube("auth", "can-i", "--list")
    if kube.version >= (1, 28):
        assert "system:masters" in await kube("auth", "whoami")

    assert re.search(r"nodes\s+no\s", await kube("api-resources"))
