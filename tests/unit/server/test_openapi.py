"""The schemas: in every form that a kubectl asks for, and built once."""

from __future__ import annotations

import asyncio

import pytest

from tandem.api import openapi
from tests.unit.server.conftest import Client

PROTOBUF = "application/com.github.proto-openapi.spec.v2{}v1.0+protobuf"


@pytest.mark.parametrize("accept", [PROTOBUF.format("@"), PROTOBUF.format(".")])
async def test_the_older_document_is_protobuf_for_kubectl(client: Client, accept: str) -> None:
    answer = await client.ask("GET", "/openapi/v2", Accept=f"{accept},application/json")
    assert answer.headers["Content-Type"] == PROTOBUF.format(".")
    assert b"io.k8s.api.core.v1.Pod" in answer.body


@pytest.mark.parametrize("accept", ["", "application/json", "*/*"])
async def test_the_older_document_is_json_for_others(client: Client, accept: str) -> None:
    document = await client.get("/openapi/v2", Accept=accept)
    assert document["swagger"] == "2.0"
    assert "io.kubevirt.v1.VirtualMachine" in document["definitions"]


async def test_the_newer_index_leads_to_documents(client: Client) -> None:
    paths = (await client.get("/openapi/v3"))["paths"]
    assert {"api/v1", "apis/kubevirt.io/v1"} <= set(paths)
    for entry in paths.values():
        document = await client.get(entry["serverRelativeURL"])
        assert document["openapi"].startswith("3.0")


async def test_the_patch_of_every_kind_says_that_fields_are_validated_here(client: Client) -> None:
    # kubectl apply looks for this, and without it validates by itself, more loosely.
    document = await client.get("/openapi/v3/api/v1")
    patch = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}


@pytest.mark.parametrize("path", ["/openapi", "/openapi/v4", "/openapi/v3/apis/none/v1"])
async def test_a_document_that_is_not_there_is_404(client: Client, path: str) -> None:
    await client.get(path, status=404)


async def test_a_document_is_built_once_for_all_who_ask(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []

    def build(registry: object) -> bytes:
        built.append(registry)
        return b"{}"

    monkeypatch.setattr(openapi, "v3_index", build)
    await asyncio.gather(*(client.get("/openapi/v3") for _ in range(5)))
    assert len(built) == 1


async def test_a_document_that_could_not_be_built_is_tried_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(openapi, "v3_index", lambda _registry: 1 / 0)
        assert (await client.get("/openapi/v3", status=500))["reason"] == "InternalError"
    assert "ZeroDivisionError" in caplog.text
    await client.get("/openapi/v3")
