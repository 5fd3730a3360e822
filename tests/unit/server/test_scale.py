"""``/scale``: the number of replicas, whatever the kind."""

from __future__ import annotations

import pytest

from tests.unit.server.conftest import Client, Doc

SETS = "/apis/apps/v1/namespaces/default/replicasets"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def owner(client: Client) -> Doc:
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "busybox"}]},
    }
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    return await client.create(SETS, {"metadata": {"name": "web"}, "spec": spec})


async def test_a_scale_is_made_of_its_object(client: Client, owner: Doc) -> None:
    scale = await client.get(f"{SETS}/web/scale")
    assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
    assert scale["metadata"]["uid"] == owner["metadata"]["uid"]
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 0, "selector": "app=web"}


async def test_to_write_a_scale_is_to_write_the_replicas(client: Client, owner: Doc) -> None:
    patch = {"spec": {"replicas": 5}}
    answer = await client.ask("PATCH", f"{SETS}/web/scale", patch, type=MERGE)
    assert answer.doc["spec"] == {"replicas": 5}
    after = await client.get(f"{SETS}/web")
    assert after["spec"] == owner["spec"] | {"replicas": 5}
    assert after["metadata"]["generation"] == 2
    scale = await client.get(f"{SETS}/web/scale")
    answer = await client.ask("PUT", f"{SETS}/web/scale", scale | {"spec": {}})
    assert answer.status == 200
    assert (await client.get(f"{SETS}/web"))["spec"]["replicas"] == 0


async def test_a_scale_that_is_out_of_date_or_wrong_is_refused(client: Client, owner: Doc) -> None:
    scale = await client.get(f"{SETS}/web/scale")
    answer = await client.ask("PUT", f"{SETS}/web/scale", scale | {"spec": {"replicas": -1}})
    assert answer.status == 422
    assert 'Scale.autoscaling "web" is invalid: spec.replicas' in answer.doc["message"]
    assert (
        await client.ask("PUT", f"{SETS}/web/scale", scale | {"spec": {"replicas": 4}})
    ).status == 200
    assert (
        await client.ask("PUT", f"{SETS}/web/scale", scale | {"spec": {"replicas": 5}})
    ).status == 409
    assert (await client.get(f"{SETS}/web"))["spec"]["replicas"] == 4


async def test_only_what_has_replicas_has_a_scale(client: Client) -> None:
    await client.get("/api/v1/namespaces/default/configmaps/x/scale", status=404)
    listed = (await client.get("/apis/apps/v1"))["resources"]
    (scale,) = (entry for entry in listed if entry["name"] == "deployments/scale")
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")
