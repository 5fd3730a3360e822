"""What clients learn about the server before their first real request."""

from __future__ import annotations

import re

import pytest

from tandem.api.kind import Kind
from tandem.api.kinds import REGISTRY
from tests.unit.server.conftest import Client, Doc

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"


async def test_the_older_documents_name_groups_versions_and_resources(client: Client) -> None:
    assert (await client.get("/api"))["versions"] == ["v1"]
    groups = {group["name"]: group for group in (await client.get("/apis"))["groups"]}
    assert groups["kubevirt.io"]["preferredVersion"]["groupVersion"] == "kubevirt.io/v1"
    assert (await client.get("/apis/kubevirt.io"))["name"] == "kubevirt.io"
    core = await client.get("/api/v1")
    assert core["groupVersion"] == "v1"
    pods = next(entry for entry in core["resources"] if entry["name"] == "pods")
    assert pods["namespaced"]
    assert pods["shortNames"] == ["po"]
    assert {"get", "list", "watch", "create", "patch", "deletecollection"} <= set(pods["verbs"])
    names = {entry["name"] for entry in core["resources"]}
    assert {"pods/status", "pods/log", "namespaces", "configmaps"} <= names


def _resources(document: Doc) -> dict[str, Doc]:
    return {
        resource["resource"]: resource
        for group in document["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
async def test_the_aggregated_document_says_it_all_at_once(client: Client, version: str) -> None:
    accept = f"{AGGREGATED.format(version)},application/json"
    answer = await client.ask("GET", "/api", Accept=accept)
    assert answer.headers["Content-Type"] == AGGREGATED.format(version)
    core = answer.doc
    assert core["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    pods = _resources(core)["pods"]
    assert pods["responseKind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert pods["scope"] == "Namespaced"
    assert {entry["subresource"] for entry in pods["subresources"]} >= {"status", "log"}
    groups = await client.get("/apis", Accept=accept)
    assert "virtualmachines" in _resources(groups)
    assert {group["metadata"]["name"] for group in groups["items"]} >= {
        "kubevirt.io",
        "subresources.kubevirt.io",
    }


def _root(kind: Kind) -> str:
    return f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"


async def test_both_formats_list_the_same_resources(client: Client) -> None:
    groups = (await client.get("/apis"))["groups"]
    served = {f"/apis/{x['groupVersion']}" for group in groups for x in group["versions"]}
    assert served >= {_root(kind) for kind in REGISTRY if kind.group}
    older = {
        entry["name"]
        for path in {"/api/v1"} | served
        for entry in (await client.get(path))["resources"]
        if "/" not in entry["name"]
    }
    aggregated = {
        name
        for path in ("/api", "/apis")
        for name in _resources(await client.get(path, Accept=AGGREGATED.format("v2")))
    }
    assert older == aggregated


async def test_discovery_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    first = await client.ask("GET", "/apis")
    again = await client.ask("GET", "/apis", **{"If-None-Match": first.headers["ETag"]})
    assert again.status == 304
    assert again.body == b""


async def test_the_version_is_semantic_and_names_both_releases(client: Client) -> None:
    info = await client.get("/version")
    assert re.fullmatch(r"v\d+\.\d+\.\d+\+tandem-[0-9.]+", info["gitVersion"])
    assert info["gitVersion"].startswith(f"v{info['major']}.{info['minor']}.")


async def test_virtctl_finds_the_subresources_and_their_version(client: Client) -> None:
    group = await client.get("/apis/subresources.kubevirt.io")
    version = group["preferredVersion"]["groupVersion"]
    listed = await client.get(f"/apis/{version}")
    assert "virtualmachineinstances/console" in {entry["name"] for entry in listed["resources"]}
    info = await client.get(f"/apis/{version}/version")
    assert re.match(r"v\d+\.\d+\.\d+", info["gitVersion"])


async def test_the_root_lists_paths_that_exist(client: Client) -> None:
    for path in (await client.get("/"))["paths"]:
        assert (await client.ask("GET", path)).status == 200, path
