"""Who gets in, and what the door itself says."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tandem.api.kinds import REGISTRY
from tandem.server import pki
from tandem.server.app import Server
from tandem.store import Store
from tests.unit.server.conftest import Client, World


def _anonymous(certificates: pki.Pki) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.ca_certificate)


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/version", "/api", "/openapi/v2", "/api/v1/pods", "/no"]
)
async def test_nobody_without_a_certificate_gets_past_401(
    world: World, certificates: pki.Pki, path: str
) -> None:
    stranger = Client(world.server.url, _anonymous(certificates))
    answer = await stranger.ask("GET", path)
    await stranger.session.close()
    assert answer.status == 401
    assert answer.doc["kind"] == "Status"
    assert answer.doc["reason"] == "Unauthorized"


async def test_a_certificate_of_another_authority_fails_the_handshake(
    world: World, certificates: pki.Pki, tmp_path: Path
) -> None:
    foreign, _ = pki.ensure(tmp_path)
    context = _anonymous(certificates)
    context.load_cert_chain(foreign.client_certificate, foreign.client_key)
    stranger = Client(world.server.url, context)
    with pytest.raises(aiohttp.ClientError):
        await stranger.ask("GET", "/version")
    await stranger.session.close()


async def test_the_servers_own_certificate_is_no_pass(world: World, certificates: pki.Pki) -> None:
    context = _anonymous(certificates)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    stranger = Client(world.server.url, context)
    with pytest.raises(aiohttp.ClientError):
        await stranger.ask("GET", "/version")
    await stranger.session.close()


async def test_a_client_of_ours_that_is_no_administrator_is_403(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "ADMIN_GROUP", "somebody")
    made, _ = pki.ensure(tmp_path)
    async with await Store.open(None) as store:
        server = Server(store, REGISTRY, {}, tls=made.server_context(), port=0)
        await server.start()
        visitor = Client(server.url, made.client_context())
        status = await visitor.get("/version", status=403)
        await visitor.session.close()
        await server.stop()
    assert status["reason"] == "Forbidden"
    assert "kubernetes-admin" in status["message"]


async def test_an_address_in_use_is_an_error_and_leaves_nothing_open(
    world: World, certificates: pki.Pki
) -> None:
    port = int(world.server.url.rpartition(":")[2])
    second = Server(world.store, REGISTRY, {}, tls=certificates.server_context(), port=port)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.stop()


async def test_a_connection_keeps_a_small_buffer(world: World) -> None:
    # asyncio's own is 256 KiB for each; the attribute that says so is not public.
    async with world.client.session.get("/api/v1/pods?watch=1") as response:
        assert response.connection is not None
        protocol: Any = response.connection.transport.get_protocol()  # type: ignore[union-attr]
        transport: Any = protocol.transport
        assert len(transport._ssl_protocol._ssl_buffer) <= 16 * 1024


async def test_a_path_that_leads_nowhere_is_a_status(client: Client) -> None:
    for path in ("/no", "/api/v9", "/apis/none", "/api/v1/services", "/apis/kubevirt.io/v9/pods"):
        doc = await client.get(path, status=404)
        assert doc["kind"] == "Status"
        assert doc["message"] == "the server could not find the requested resource"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/version"),
        ("PUT", "/api/v1/namespaces/default/pods"),
        ("POST", "/api/v1/namespaces/default/pods/a"),
        ("POST", "/api/v1/pods"),
        ("DELETE", "/api/v1/pods"),
        ("POST", "/api/v1/namespaces/default/pods/a/log"),
        ("PUT", "/api/v1/namespaces/default/pods/a/exec"),
    ],
)
async def test_a_verb_that_a_path_does_not_know_is_405(
    client: Client, method: str, path: str
) -> None:
    answer = await client.ask(method, path)
    assert answer.status == 405
    assert answer.doc["reason"] == "MethodNotAllowed"


async def test_an_unknown_form_is_406(client: Client) -> None:
    doc = await client.get("/api/v1/pods", status=406, Accept="text/html")
    assert doc["reason"] == "NotAcceptable"


async def test_health_is_told_in_a_word_or_in_detail(world: World) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert (await world.client.ask("GET", path)).body == b"ok"
    detail = (await world.client.ask("GET", "/readyz?verbose")).body.decode()
    assert "[+]runtime-container ok" in detail
    assert detail.endswith("readyz check passed\n")


async def test_a_runtime_that_cannot_be_reached_makes_the_server_not_ready_but_alive(
    world: World,
) -> None:
    world.adapter.runtime.available = False
    ready = await world.client.ask("GET", "/readyz")
    assert ready.status == 500
    assert b"[-]runtime-vm failed: the in-memory runtime is switched off" in ready.body
    assert (await world.client.ask("GET", "/livez")).status == 200


async def test_stopping_twice_is_stopping(world: World) -> None:
    await world.server.stop()
    await world.server.stop()
