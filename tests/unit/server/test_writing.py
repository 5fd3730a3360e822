"""Create, update, patch, delete."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml

from tests.unit.server.conftest import Client, Doc, World, config_map, pod

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MACHINES = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"
JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def machine(name: str, strategy: str = "Halted") -> Doc:
    domain = {"resources": {"requests": {"memory": "64Mi"}}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"runStrategy": strategy, "template": {"spec": {"domain": domain}}},
    }


async def test_a_created_object_has_an_identity(client: Client) -> None:
    created = await client.create(MAPS, config_map("a"))
    metadata = created["metadata"]
    assert metadata["namespace"] == "default"
    assert {"uid", "creationTimestamp", "resourceVersion"} <= set(metadata)


async def test_yaml_is_read(client: Client) -> None:
    body = yaml.safe_dump(config_map("a", key="value")).encode()
    answer = await client.ask("POST", MAPS, body, type="application/yaml")
    assert answer.status == 201
    assert answer.doc["data"] == {"key": "value"}


async def test_long_yaml_is_read_too(client: Client) -> None:
    body = yaml.safe_dump(config_map("a", key="x" * 50_000)).encode()
    assert (await client.ask("POST", MAPS, body, type="application/yaml")).status == 201
    answer = await client.ask("POST", MAPS, body + b"\n  : [", type="application/yaml")
    assert answer.status == 400


async def test_the_same_name_twice_is_409(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    answer = await client.ask("POST", MAPS, config_map("a"))
    assert answer.status == 409
    assert answer.doc["reason"] == "AlreadyExists"
    assert answer.doc["message"] == 'configmaps "a" already exists'


async def test_generated_names_do_not_meet(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    suffixes = iter(["same", "same", "other"])
    monkeypatch.setattr("tandem.api.meta.generate_name", lambda base: base + next(suffixes))
    doc = config_map("")
    doc["metadata"] = {"generateName": "a-"}
    first = await client.create(MAPS, doc)
    second = await client.create(MAPS, doc)
    assert first["metadata"]["name"] == "a-same"
    assert second["metadata"]["name"] == "a-other"


@pytest.mark.parametrize(
    ("body", "type_", "code", "words"),
    [
        (b"", "application/json", 400, "no body"),
        (b"{", "application/json", 400, "not valid JSON"),
        (b"[]", "application/json", 400, "must be an object, not a list"),
        (b"a: [", "application/yaml", 400, "not valid YAML"),
        (b"\x0ak8s", "application/vnd.kubernetes.protobuf", 400, "not Kubernetes protobuf"),
        (b"{}", "text/plain", 415, "application/json"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    client: Client, body: bytes, type_: str, code: int, words: str
) -> None:
    answer = await client.ask("POST", MAPS, body, type=type_)
    assert answer.status == code
    assert words in answer.doc["message"]


async def test_an_object_nested_too_deeply_is_refused(client: Client) -> None:
    nested = b'{"a":' * 400 + b"1" + b"}" * 400
    body = b'{"metadata":{"name":"a"},"data":{"a":' + nested + b"}}"
    answer = await client.ask("POST", MAPS, body)
    assert answer.status == 400
    assert answer.doc["reason"] == "BadRequest"


async def test_a_client_that_waits_to_be_told_to_go_on_is_told(world: World) -> None:
    async with (
        asyncio.timeout(5),
        world.client.session.post(MAPS, json=config_map("a"), expect100=True) as response,
    ):
        assert response.status == 201


async def test_a_body_above_the_limit_is_413(client: Client) -> None:
    answer = await client.ask("POST", MAPS, b" " * (3 * 1024 * 1024 + 1))
    assert answer.status == 413
    assert answer.doc["reason"] == "RequestEntityTooLarge"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"kind": "Secret"}, 400, "does not match"),
        ({"apiVersion": "v2"}, 400, "does not match"),
        ({"metadata": {"name": "a", "namespace": "other"}}, 400, "namespace"),
        ({"metadata": {"name": "A_B"}}, 422, "lowercase RFC 1123"),
        ({"metadata": {}}, 422, "metadata.name: Required value"),
        ({"metadata": {"name": "a", "resourceVersion": "1"}}, 400, "resourceVersion"),
        ({"data": {"a": 1}}, 400, "data"),
    ],
)
async def test_an_object_that_is_wrong_is_refused_by_field(
    client: Client, change: Doc, code: int, words: str
) -> None:
    answer = await client.ask("POST", MAPS, config_map("a") | change)
    assert answer.status == code, answer.body
    assert words in answer.doc["message"]


async def test_unknown_fields_are_refused_warned_of_or_dropped(client: Client) -> None:
    doc = config_map("a") | {"colour": "red"}
    strict = await client.ask("POST", f"{MAPS}?fieldValidation=Strict", doc)
    assert strict.status == 400
    assert 'unknown field "colour"' in strict.doc["message"]
    warned = await client.ask("POST", MAPS, doc)
    assert warned.headers["Warning"] == '299 - "unknown field \\"colour\\""'
    assert "colour" not in warned.doc
    doc["metadata"]["name"] = "b"
    ignored = await client.ask("POST", f"{MAPS}?fieldValidation=Ignore", doc)
    assert ignored.status == 201
    assert "Warning" not in ignored.headers
    bad = await client.ask("POST", f"{MAPS}?fieldValidation=Loose", doc)
    assert bad.status == 400


async def test_nothing_is_created_in_a_namespace_that_is_not_there(client: Client) -> None:
    answer = await client.ask("POST", "/api/v1/namespaces/none/configmaps", config_map("a"))
    assert answer.status == 404
    assert answer.doc["message"] == 'namespaces "none" not found'


async def test_nothing_is_created_in_a_namespace_on_its_way_out(client: Client) -> None:
    assert (await client.ask("DELETE", "/api/v1/namespaces/other")).status == 200
    answer = await client.ask("POST", "/api/v1/namespaces/other/configmaps", config_map("a"))
    assert answer.status == 403
    assert "being terminated" in answer.doc["message"]
    assert answer.doc["details"]["causes"][0]["reason"] == "NamespaceTerminating"


async def test_the_default_namespace_stays(client: Client) -> None:
    answer = await client.ask("DELETE", "/api/v1/namespaces/default")
    assert answer.status == 403
    assert "may not be deleted" in answer.doc["message"]


async def test_a_dry_run_answers_and_writes_nothing(world: World) -> None:
    client = world.client
    await client.create(MAPS, config_map("a", key="old"))
    revision = world.store.revision
    created = await client.ask("POST", f"{MAPS}?dryRun=All", config_map("b"))
    assert created.status == 201
    taken = await client.ask("POST", f"{MAPS}?dryRun=All", config_map("a"))
    assert taken.status == 409
    patch = {"data": {"key": "new"}}
    patched = await client.ask("PATCH", f"{MAPS}/a?dryRun=All", patch, type=MERGE)
    assert patched.doc["data"] == {"key": "new"}
    assert (await client.ask("DELETE", f"{MAPS}/a?dryRun=All")).status == 200
    assert (await client.ask("DELETE", f"{MAPS}/a", {"dryRun": ["All"]})).status == 200
    assert (await client.ask("DELETE", f"{MAPS}/a", {"dryRun": ["Some"]})).status == 400
    assert (await client.ask("POST", f"{MAPS}?dryRun=Some", config_map("c"))).status == 400
    assert world.store.revision == revision


async def test_an_update_replaces_and_a_stale_one_conflicts(client: Client) -> None:
    first = await client.create(MAPS, config_map("a", key="1"))
    second = await client.ask("PUT", f"{MAPS}/a", first | {"data": {"key": "2"}})
    assert second.status == 200
    assert second.doc["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    stale = await client.ask("PUT", f"{MAPS}/a", first | {"data": {"key": "3"}})
    assert stale.status == 409
    assert stale.doc["reason"] == "Conflict"
    assert "the object has been modified" in stale.doc["message"]
    assert (await client.get(f"{MAPS}/a"))["data"] == {"key": "2"}


async def test_an_update_that_changes_nothing_is_no_change(world: World) -> None:
    created = await world.client.create(MAPS, config_map("a"))
    revision = world.store.revision
    answer = await world.client.ask("PUT", f"{MAPS}/a", created)
    assert answer.doc == created
    assert world.store.revision == revision


async def test_an_update_without_a_revision_is_unconditional(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    answer = await client.ask("PUT", f"{MAPS}/a", config_map("a", key="new"))
    assert answer.status == 200
    assert answer.doc["data"] == {"key": "new"}
    missing = await client.ask("PUT", f"{MAPS}/b", config_map("b"))
    assert missing.status == 404


@pytest.mark.parametrize(
    ("type_", "patch", "expected"),
    [
        (MERGE, {"data": {"b": "2", "a": None}}, {"b": "2"}),
        (STRATEGIC, {"data": {"b": "2"}}, {"a": "1", "b": "2"}),
        (JSON_PATCH, [{"op": "replace", "path": "/data/a", "value": "9"}], {"a": "9"}),
    ],
)
async def test_the_three_languages_of_patch(
    client: Client, type_: str, patch: Any, expected: Doc
) -> None:
    await client.create(MAPS, config_map("a", a="1"))
    answer = await client.ask("PATCH", f"{MAPS}/a", patch, type=type_)
    assert answer.status == 200, answer.body
    assert answer.doc["data"] == expected


async def test_a_strategic_patch_merges_containers_by_name(client: Client) -> None:
    await client.create(PODS, pod("a"))
    patch = {"spec": {"containers": [{"name": "main", "image": "other"}]}}
    answer = await client.ask("PATCH", f"{PODS}/a", patch, type=STRATEGIC)
    (container,) = answer.doc["spec"]["containers"]
    assert container["image"] == "other"
    assert container["terminationMessagePath"]


@pytest.mark.parametrize(
    ("path", "type_", "words"),
    [
        (f"{MACHINES}/a", STRATEGIC, "application/merge-patch+json"),
        (f"{MAPS}/a", "application/apply-patch+yaml", "server-side apply is not supported"),
        (f"{MAPS}/a", "application/json", "application/strategic-merge-patch+json"),
    ],
)
async def test_a_patch_in_no_language_of_the_kind_is_415(
    client: Client, path: str, type_: str, words: str
) -> None:
    answer = await client.ask("PATCH", path, {}, type=type_)
    assert answer.status == 415
    assert words in answer.doc["message"]


@pytest.mark.parametrize(
    ("type_", "patch", "code"),
    [
        (MERGE, [], 400),
        (JSON_PATCH, {}, 400),
        (JSON_PATCH, [{"op": "test", "path": "/data/a", "value": "2"}], 422),
        (MERGE, {"metadata": {"name": "b"}}, 400),
        (MERGE, {"metadata": {"resourceVersion": "1"}}, 409),
        (MERGE, {"data": {"a": 5}}, 400),
    ],
)
async def test_a_patch_that_cannot_be_is_refused_and_changes_nothing(
    client: Client, type_: str, patch: Any, code: int
) -> None:
    created = await client.create(MAPS, config_map("a", a="1"))
    answer = await client.ask("PATCH", f"{MAPS}/a", patch, type=type_)
    assert answer.status == code, answer.body
    assert await client.get(f"{MAPS}/a") == created


async def test_patches_at_once_all_count(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    patches = [{"data": {f"k{index}": "x"}} for index in range(20)]
    await asyncio.gather(
        *(client.ask("PATCH", f"{MAPS}/a", patch, type=MERGE) for patch in patches)
    )
    assert len((await client.get(f"{MAPS}/a"))["data"]) == 20


async def test_status_and_spec_are_written_apart(client: Client) -> None:
    await client.create(PODS, pod("a"))
    answer = await client.ask("PATCH", f"{PODS}/a", {"status": {"phase": "Failed"}}, type=MERGE)
    assert answer.doc["status"]["phase"] == "Pending"
    patch = {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}
    answer = await client.ask("PATCH", f"{PODS}/a/status", patch, type=MERGE)
    assert answer.doc["status"]["phase"] == "Running"
    assert (await client.get(f"{PODS}/a/status"))["status"]["phase"] == "Running"
    assert (await client.ask("GET", f"{MAPS}/a/status")).status == 404


async def test_delete_answers_success_or_the_object_that_is_to_go(client: Client) -> None:
    created = await client.create(MAPS, config_map("a"))
    answer = await client.ask("DELETE", f"{MAPS}/a")
    assert answer.doc["status"] == "Success"
    assert answer.doc["details"]["uid"] == created["metadata"]["uid"]
    await client.get(f"{MAPS}/a", status=404)
    assert (await client.ask("DELETE", f"{MAPS}/a")).status == 404

    await client.create(PODS, pod("a"))
    marked = await client.ask("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 7})
    assert marked.doc["metadata"]["deletionGracePeriodSeconds"] == 7
    assert (await client.get(f"{PODS}/a"))["metadata"]["deletionTimestamp"]


async def test_delete_takes_its_options_from_the_query_too(client: Client) -> None:
    await client.create(PODS, pod("a"))
    answer = await client.ask("DELETE", f"{PODS}/a?gracePeriodSeconds=3")
    assert answer.doc["metadata"]["deletionGracePeriodSeconds"] == 3


async def test_a_precondition_that_does_not_hold_keeps_the_object(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    answer = await client.ask("DELETE", f"{MAPS}/a", {"preconditions": {"uid": "another"}})
    assert answer.status == 409
    await client.get(f"{MAPS}/a")


async def test_finalizers_hold_an_object_until_the_last_is_gone(client: Client) -> None:
    doc = config_map("a")
    doc["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(MAPS, doc)
    held = await client.ask("DELETE", f"{MAPS}/a")
    assert held.doc["metadata"]["deletionTimestamp"]
    released = await client.ask(
        "PATCH", f"{MAPS}/a", {"metadata": {"finalizers": None}}, type=MERGE
    )
    assert released.status == 200
    await client.get(f"{MAPS}/a", status=404)


async def test_a_collection_is_deleted_by_selector(client: Client) -> None:
    for index in range(70):
        labels = {"odd": "yes"} if index % 2 else {}
        await client.create(MAPS, config_map(f"m{index}", labels=labels))
    answer = await client.ask("DELETE", f"{MAPS}?labelSelector=odd")
    assert len(answer.doc["items"]) == 35
    left = (await client.get(MAPS))["items"]
    assert len(left) == 35
    assert not any(item["metadata"].get("labels") for item in left)


async def test_a_write_may_ask_for_a_table(client: Client) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    body = json.dumps(config_map("a")).encode()
    answer = await client.ask("POST", MAPS, body, Accept=accept)
    assert answer.doc["rows"][0]["cells"][0] == "a"


async def test_custom_resources_must_name_their_revision_in_an_update(client: Client) -> None:
    created = await client.create(MACHINES, machine("a"))
    assert (await client.ask("PUT", f"{MACHINES}/a", machine("a", "Manual"))).status == 422
    created["spec"]["runStrategy"] = "Manual"
    assert (await client.ask("PUT", f"{MACHINES}/a", created)).status == 200
