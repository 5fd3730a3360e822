"""GET: objects and lists in every form, by selectors, page by page."""

from __future__ import annotations

import asyncio

import pytest
import yaml

from tandem.server.reading import _PIECE
from tests.unit.server.conftest import Client, Doc, World, config_map, pod

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"


def _names(listing: Doc) -> list[str]:
    return [item["metadata"]["name"] for item in listing["items"]]


async def test_an_object_is_what_was_created(client: Client) -> None:
    created = await client.create(MAPS, config_map("a", key="value"))
    assert await client.get(f"{MAPS}/a") == created


async def test_a_missing_object_is_404_with_its_name(client: Client) -> None:
    status = await client.get(f"{MAPS}/none", status=404)
    assert status["message"] == 'configmaps "none" not found'
    assert status["details"] == {"name": "none", "group": "", "kind": "configmaps"}


async def test_yaml_is_written_for_who_asks(client: Client) -> None:
    await client.create(MAPS, config_map("a", key="yes"))
    answer = await client.ask("GET", f"{MAPS}/a", Accept="application/yaml")
    assert answer.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(answer.body)["data"] == {"key": "yes"}


async def test_a_table_has_a_row_for_an_object(client: Client) -> None:
    await client.create(MAPS, config_map("a", key="value"))
    table = await client.get(f"{MAPS}/a", Accept=TABLE)
    assert table["kind"] == "Table"
    assert table["columnDefinitions"][0]["name"] == "Name"
    (row,) = table["rows"]
    assert row["cells"][0] == "a"
    assert row["object"]["kind"] == "PartialObjectMetadata"
    whole = await client.get(f"{MAPS}?includeObject=Object", Accept=TABLE)
    assert whole["rows"][0]["object"]["data"] == {"key": "value"}
    assert whole["metadata"]["resourceVersion"]
    bad = await client.get(f"{MAPS}?includeObject=All", status=400, Accept=TABLE)
    assert "includeObject" in bad["message"]


async def test_an_older_table_is_written_in_its_version(client: Client) -> None:
    older = await client.get(MAPS, Accept=TABLE.replace("v=v1", "v=v1beta1"))
    assert older["apiVersion"] == "meta.k8s.io/v1beta1"


async def test_metadata_alone_is_sent_to_who_wants_no_more(client: Client) -> None:
    await client.create(MAPS, config_map("a", key="value"))
    one = await client.get(f"{MAPS}/a", Accept=METADATA.format(""))
    assert one["kind"] == "PartialObjectMetadata"
    assert "data" not in one
    listing = await client.get(MAPS, Accept=METADATA.format("List"))
    assert listing["kind"] == "PartialObjectMetadataList"
    assert _names(listing) == ["a"]


async def test_a_list_is_of_one_namespace_or_of_all(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    await client.create("/api/v1/namespaces/other/configmaps", config_map("b"))
    own = await client.get(MAPS)
    assert own["kind"] == "ConfigMapList"
    assert own["apiVersion"] == "v1"
    assert _names(own) == ["a"]
    assert _names(await client.get("/api/v1/configmaps")) == ["a", "b"]
    assert _names(await client.get("/api/v1/namespaces")) == ["default", "other"]
    assert _names(await client.get("/api/v1/namespaces/none/configmaps")) == []


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("labelSelector=app%3Dweb", ["a", "b"]),
        ("labelSelector=app%3Dweb,tier!%3Dback", ["a"]),
        ("labelSelector=!app", ["c"]),
        ("fieldSelector=metadata.name%3Db", ["b"]),
        ("fieldSelector=metadata.name!%3Db", ["a", "c"]),
        ("fieldSelector=metadata.name%3Db&labelSelector=tier%3Dfront", []),
        ("fieldSelector=metadata.namespace%3Ddefault", ["a", "b", "c"]),
    ],
)
async def test_selectors_choose(client: Client, query: str, names: list[str]) -> None:
    await client.create(MAPS, config_map("a", labels={"app": "web", "tier": "front"}))
    await client.create(MAPS, config_map("b", labels={"app": "web", "tier": "back"}))
    await client.create(MAPS, config_map("c"))
    assert _names(await client.get(f"{MAPS}?{query}")) == names
    assert _names(await client.get(f"/api/v1/configmaps?{query}")) == names


async def test_pods_are_selected_by_their_own_fields(client: Client) -> None:
    pods = "/api/v1/namespaces/default/pods"
    await client.create(pods, pod("never", restartPolicy="Never"))
    await client.create(pods, pod("always"))
    listing = await client.get(f"{pods}?fieldSelector=spec.restartPolicy%3DNever")
    assert _names(listing) == ["never"]


@pytest.mark.parametrize(
    "query", ["fieldSelector=spec.color%3Dred", "labelSelector=a%20b%20c", "labelSelector=%3Dx"]
)
async def test_a_selector_that_makes_no_sense_is_refused(client: Client, query: str) -> None:
    status = await client.get(f"{MAPS}?{query}", status=400)
    assert status["reason"] == "BadRequest"


async def test_pages_are_of_one_moment_whatever_happens_between_them(client: Client) -> None:
    for name in "abcde":
        await client.create(MAPS, config_map(name))
    first = await client.get(f"{MAPS}?limit=2")
    assert _names(first) == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    await client.ask("DELETE", f"{MAPS}/c")
    await client.create(MAPS, config_map("bb"))
    token = first["metadata"]["continue"]
    second = await client.get(f"{MAPS}?limit=2&continue={token}")
    assert _names(second) == ["c", "d"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    last = await client.get(f"{MAPS}?limit=2&continue={second['metadata']['continue']}")
    assert _names(last) == ["e"]
    assert "continue" not in last["metadata"]


async def test_a_page_token_that_is_unknown_or_anothers_is_refused(client: Client) -> None:
    for name in "abc":
        await client.create(MAPS, config_map(name))
    token = (await client.get(f"{MAPS}?limit=1"))["metadata"]["continue"]
    assert (await client.get(f"{MAPS}?continue=rubbish", status=400))["reason"] == "BadRequest"
    await client.get(f"/api/v1/configmaps?continue={token}", status=400)
    forged = "eyJzbmFwc2hvdCI6Im5vbmUiLCJzdGFydCI6MX0"
    assert (await client.get(f"{MAPS}?continue={forged}", status=410))["reason"] == "Expired"


async def test_a_revision_not_reached_yet_is_asked_for_again_later(client: Client) -> None:
    status = await client.get(f"{MAPS}?resourceVersion=1000", status=504)
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert status["details"]["retryAfterSeconds"] == 1


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("resourceVersion=0", 200),
        ("resourceVersion=1&resourceVersionMatch=NotOlderThan", 200),
        ("resourceVersion=1&resourceVersionMatch=Exact", 410),
        ("resourceVersion=2&resourceVersionMatch=Exact", 200),
        ("resourceVersion=0&resourceVersionMatch=Exact", 400),
        ("resourceVersionMatch=Exact", 400),
        ("resourceVersion=x", 400),
        ("resourceVersion=-1", 400),
        ("limit=x", 400),
    ],
)
async def test_revisions_are_served_or_refused(client: Client, query: str, code: int) -> None:
    await client.get(f"{MAPS}?{query}", status=code)


async def test_a_long_list_in_pieces_is_the_list(client: Client) -> None:
    text = "x" * (_PIECE // 3)
    await asyncio.gather(*(client.create(MAPS, config_map(f"m{i}", text=text)) for i in range(7)))
    answer = await client.ask("GET", MAPS)
    assert int(answer.headers["Content-Length"]) == len(answer.body) > 2 * _PIECE
    assert _names(answer.doc) == [f"m{i}" for i in range(7)]


async def test_an_empty_list_is_a_list(world: World) -> None:
    listing = await world.client.get("/apis/kubevirt.io/v1/virtualmachines")
    assert listing == {
        "kind": "VirtualMachineList",
        "apiVersion": "kubevirt.io/v1",
        "metadata": {"resourceVersion": str(world.store.revision)},
        "items": [],
    }
