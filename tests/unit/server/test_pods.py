"""Subresources of Pods that change them."""

from __future__ import annotations

from typing import Any

from tests.unit.server.conftest import Client, Doc, pod

PODS = "/api/v1/namespaces/default/pods"
STRATEGIC = "application/strategic-merge-patch+json"
OLD_KUBECTL = "kubectl/v1.20.2 (linux/amd64) kubernetes/faecb19"


def debug(name: str = "debug", **fields: Any) -> Doc:
    return {"name": name, "image": "busybox", **fields}


async def test_kubectl_debug_patches_the_ephemeral_containers(client: Client) -> None:
    await client.create(PODS, pod("a"))
    patch: Doc = {"spec": {"ephemeralContainers": [debug(targetContainerName="main", stdin=True)]}}
    path = f"{PODS}/a/ephemeralcontainers"
    answer = await client.ask("PATCH", path, patch, type=STRATEGIC)
    assert answer.status == 200, answer.body
    patch = {"spec": {"hostname": "other", "ephemeralContainers": [debug("more")]}}
    answer = await client.ask("PATCH", path, patch, type=STRATEGIC)
    assert answer.doc["kind"] == "Pod"
    spec = (await client.get(f"{PODS}/a"))["spec"]
    assert {c["name"] for c in spec["ephemeralContainers"]} == {"debug", "more"}
    assert "hostname" not in spec
    assert (await client.get(path))["kind"] == "Pod"


async def test_they_are_changed_no_other_way(client: Client) -> None:
    refused = await client.ask("POST", PODS, pod("a", ephemeralContainers=[debug()]))
    assert refused.status == 422
    assert "cannot be set on create" in refused.doc["message"]
    await client.create(PODS, pod("a"))
    patch = {"spec": {"ephemeralContainers": [debug()]}}
    refused = await client.ask("PATCH", f"{PODS}/a", patch, type=STRATEGIC)
    assert refused.status == 422
    path = f"{PODS}/a/ephemeralcontainers"
    patch = {"spec": {"ephemeralContainers": [debug(ports=[{"containerPort": 80}])]}}
    refused = await client.ask("PATCH", path, patch, type=STRATEGIC)
    assert refused.status == 422
    assert "cannot be set for an Ephemeral Container" in refused.doc["message"]


async def test_old_kubectl_debug_knows_a_kind_of_its_own(client: Client) -> None:
    await client.create(PODS, pod("a"))
    path = f"{PODS}/a/ephemeralcontainers"
    headers = {"User-Agent": OLD_KUBECTL}
    doc = (await client.ask("GET", path, **headers)).doc
    assert (doc["kind"], doc["ephemeralContainers"]) == ("EphemeralContainers", [])
    doc["ephemeralContainers"].append(debug())
    answer = await client.ask("PUT", path, doc, **headers)
    assert answer.status == 200, answer.body
    assert [c["name"] for c in answer.doc["ephemeralContainers"]] == ["debug"]
    stale = await client.ask("PUT", path, doc, **headers)
    assert stale.status == 409
    assert (await client.get(f"{PODS}/a"))["spec"]["ephemeralContainers"][0]["name"] == "debug"


def binding(node: str = "here", **target: str) -> Doc:
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "a", "annotations": {"by": "mine"}},
        "target": {"kind": "Node", "name": node, **target},
    }


async def test_a_scheduler_binds_a_pod_once(client: Client) -> None:
    await client.create(PODS, pod("a", schedulerName="mine", schedulingGates=[{"name": "wait"}]))
    path = f"{PODS}/a/binding"
    refused = await client.ask("POST", path, binding())
    assert refused.status == 409
    assert "pod a has non-empty .spec.schedulingGates" in refused.doc["message"]
    open_ = {"spec": {"schedulingGates": None}}
    await client.ask("PATCH", f"{PODS}/a", open_, type="application/merge-patch+json")
    wrong = await client.ask("POST", path, binding(kind="Pod"))
    assert wrong.status == 422
    assert (await client.ask("POST", path, binding())).status == 201
    doc = await client.get(f"{PODS}/a")
    assert doc["spec"]["nodeName"] == "here"
    assert doc["metadata"]["annotations"] == {"by": "mine"}
    [condition] = doc["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")
    again = await client.ask("POST", path, binding("there"))
    assert again.status == 409
    assert 'pod a is already assigned to node "here"' in again.doc["message"]


def eviction(name: str = "a", **options: Any) -> Doc:
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name},
        "deleteOptions": options,
    }


async def test_an_eviction_is_a_delete_that_says_so(client: Client) -> None:
    await client.create(PODS, pod("a"))
    path = f"{PODS}/a/eviction"
    assert (await client.ask("POST", path, eviction("b"))).status == 400
    assert (await client.ask("POST", path, eviction(dryRun=["All"]))).status == 201
    assert "deletionTimestamp" not in (await client.get(f"{PODS}/a"))["metadata"]
    answer = await client.ask("POST", path, eviction(gracePeriodSeconds=5))
    assert answer.status == 201, answer.body
    assert answer.doc["status"] == "Success"
    doc = await client.get(f"{PODS}/a")
    assert doc["metadata"]["deletionGracePeriodSeconds"] == 5
    [condition] = doc["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("DisruptionTarget", "EvictionByEvictionAPI")
    assert (await client.ask("POST", f"{PODS}/b/eviction", eviction("b"))).status == 404


async def test_resizing_is_refused_by_name(client: Client) -> None:
    await client.create(PODS, pod("a"))
    refused = await client.ask("PATCH", f"{PODS}/a/resize", {}, type=STRATEGIC)
    assert refused.status == 405
    assert "pods/resize is not supported" in refused.doc["message"]


async def test_they_are_listed(client: Client) -> None:
    listed = {entry["name"]: entry for entry in (await client.get("/api/v1"))["resources"]}
    assert listed["pods/ephemeralcontainers"]["kind"] == "Pod"
    assert listed["pods/binding"]["kind"] == "Binding"
    eviction_ = listed["pods/eviction"]
    assert (eviction_["kind"], eviction_["group"], eviction_["version"]) == (
        "Eviction",
        "policy",
        "v1",
    )
    assert eviction_["verbs"] == ["create"]


async def test_a_name_that_leads_nowhere_is_forbidden(client: Client) -> None:
    refused = await client.ask("POST", PODS, pod("a", priorityClassName="gone"))
    assert refused.status == 403
    assert "no PriorityClass with name gone was found" in refused.doc["message"]
