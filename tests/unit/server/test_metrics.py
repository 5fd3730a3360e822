"""metrics.k8s.io as kubectl top asks it, and the reviews that kubectl auth asks for."""

from __future__ import annotations

import asyncio
import re

import pytest

from tandem.api.quantity import to_bytes, to_millis
from tandem.host import nodefacts
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.capabilities import Usage
from tandem.server import usage
from tandem.server.usage import Rate
from tandem.store import Key
from tests.unit.server.conftest import Client, Doc, World, pod

ROOT = "/apis/metrics.k8s.io/v1beta1"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_SHORTEST", 0.05)


async def running(world: World, name: str, namespace: str = "default", **labels: str) -> Doc:
    doc = pod(name)
    doc["metadata"]["labels"] = labels
    made = await world.client.create(f"/api/v1/namespaces/{namespace}/pods", doc)
    spec = {
        "containers": [{"name": n, "image": "demo:1", "command": ["serve"]} for n in ("a", "b")]
    }
    await world.adapter.create(RuntimeSpec(made["metadata"]["uid"], spec))
    return made


async def test_a_pod_that_runs_is_measured(world: World, client: Client) -> None:
    await running(world, "web", tier="front")
    found = await client.get(f"{ROOT}/namespaces/default/pods/web")
    assert found["kind"] == "PodMetrics"
    assert found["metadata"]["labels"] == {"tier": "front"}
    assert re.fullmatch(r"\d+\.\d{3}s", found["window"])
    assert [container["name"] for container in found["containers"]] == ["a", "b"]
    used = found["containers"][0]["usage"]
    assert 1 <= to_millis(used["cpu"]) <= 50  # a hundredth of a processor, on a busy clock
    assert to_bytes(used["memory"]) == 4 << 20


async def test_lists_are_of_a_namespace_or_of_all_and_selected(
    world: World, client: Client
) -> None:
    await running(world, "web", tier="front")
    await running(world, "db", "other", tier="back")
    await client.create("/api/v1/namespaces/default/pods", pod("idle"))  # nothing of it runs

    async def names(path: str) -> list[str]:
        listed = await client.get(f"{ROOT}/{path}")
        assert listed["kind"] == "PodMetricsList"
        return sorted(item["metadata"]["name"] for item in listed["items"])

    assert await names("pods") == ["db", "web"]
    assert await names("namespaces/default/pods") == ["web"]
    assert await names("pods?labelSelector=tier%3Dback") == ["db"]
    assert await names("pods?fieldSelector=metadata.name%3Dweb") == ["web"]


async def test_this_host_is_measured_and_no_other_node(world: World, client: Client) -> None:
    for name, boot_id in (("here", nodefacts.boot_id()), ("there", "another")):
        status = {"nodeInfo": {"bootID": boot_id}}
        doc = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
        await world.store.create(Key("nodes", "", name), doc)
    listed = await client.get(f"{ROOT}/nodes")
    (node,) = listed["items"]
    assert node["metadata"]["name"] == "here"
    assert to_bytes(node["usage"]["memory"]) > 10 << 20
    assert to_millis(node["usage"]["cpu"]) >= 0
    assert (await client.get(f"{ROOT}/nodes/here"))["kind"] == "NodeMetrics"


async def test_what_is_not_there_is_not_found(world: World, client: Client) -> None:
    missing = await client.get(f"{ROOT}/namespaces/default/pods/none", status=404)
    assert missing["message"] == 'podmetrics.metrics.k8s.io "default/none" not found'
    await client.get(f"{ROOT}/nodes/none", status=404)
    await client.get(f"{ROOT}/gadgets", status=404)
    await client.get(f"{ROOT}/pods/web", status=404)
    await client.get("/apis/metrics.k8s.io/v1/pods", status=404)
    assert (await client.ask("DELETE", f"{ROOT}/pods")).status == 405


async def test_the_runtime_is_asked_once_for_all_who_ask_at_once(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_SHORTEST", 1.0)  # in which five requests are answered
    await running(world, "web")
    before = world.adapter.faults.visits["usage"]
    await asyncio.gather(*(client.get(f"{ROOT}/pods") for _ in range(5)))
    first = world.adapter.faults.visits["usage"] - before
    assert first <= 4  # twice for each of the two runtimes, which are one here
    await asyncio.sleep(1.1)
    await client.get(f"{ROOT}/pods")
    assert world.adapter.faults.visits["usage"] - before == first + 2  # since the last answer


def test_a_counter_that_began_anew_is_not_negative() -> None:
    before, after = Usage(900, 1, 10.0), Usage(100, 2, 12.0)
    assert usage._rate(before, after) == Rate(cpu=50, memory=2)


async def test_an_administrator_may_do_everything(client: Client) -> None:
    base = "/apis/authorization.k8s.io/v1"
    spec: Doc = {"resourceAttributes": {"verb": "delete", "resource": "pods"}}
    answer = await client.ask("POST", f"{base}/selfsubjectaccessreviews", {"spec": spec})
    assert answer.status == 201
    assert answer.doc["status"] == {"allowed": True}
    wrong = await client.ask("POST", f"{base}/selfsubjectaccessreviews", {"spec": {}})
    assert wrong.status == 422
    rules = await client.ask("POST", f"{base}/selfsubjectrulesreviews", {"spec": {}})
    assert rules.doc["status"]["resourceRules"][0]["verbs"] == ["*"]
    who = await client.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert "system:masters" in who.doc["status"]["userInfo"]["groups"]
    assert (await client.ask("GET", f"{base}/selfsubjectaccessreviews")).status == 405
