"""subresources.kubevirt.io: start, stop, restart and the console, with KubeVirt's codes."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.memory.console import EchoConsole
from tandem.store import Key
from tests.unit.server.conftest import Answer, Client, Doc, World

OBJECTS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"
MACHINES = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines"
INSTANCES = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances"
XML = "<domain type='qemu'><name>m</name><description>sleep 1000</description></domain>"


async def _machine(world: World, strategy: str = "", **spec: Any) -> None:
    domain = {"resources": {"requests": {"memory": "64Mi"}}}
    doc = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "m"},
        "spec": spec | {"template": {"spec": {"domain": domain}}},
    }
    if strategy:
        doc["spec"]["runStrategy"] = strategy  # type: ignore[index]
    await world.client.create(OBJECTS, doc)


async def _instance(world: World, phase: str = "Running", **spec: Any) -> None:
    key = Key("virtualmachineinstances.kubevirt.io", "default", "m")
    metadata = {"name": "m", "namespace": "default", "uid": "uid-m"}
    doc = {"metadata": metadata, "spec": spec, "status": {"phase": phase}}
    await world.store.create(key, doc)


async def _put(client: Client, verb: str, body: Any = None, **headers: str) -> Answer:
    return await client.ask("PUT", f"{MACHINES}/m/{verb}", body, **headers)


async def _read(client: Client) -> Doc:
    return await client.get(f"{OBJECTS}/m")


@pytest.mark.parametrize("body", [None, b"", b"{}", b"paused: false\n"])
async def test_options_may_be_missing_or_of_any_type(world: World, body: bytes | None) -> None:
    await _machine(world, "Halted")
    async with world.client.session.put(
        f"{MACHINES}/m/start", data=body, skip_auto_headers=["Content-Type"]
    ) as response:
        assert response.status == 202
        assert await response.read() == b""
    assert (await _read(world.client))["spec"]["runStrategy"] == "Always"


async def test_starting_and_stopping_rewrite_the_field_the_user_wrote(world: World) -> None:
    await _machine(world, running=False)
    assert (await _put(world.client, "start")).status == 202
    started = await _read(world.client)
    assert started["spec"]["running"] is True
    assert "runStrategy" not in started["spec"]
    assert started["metadata"]["generation"] == 2
    await _instance(world)
    assert (await _put(world.client, "stop")).status == 202
    assert (await _read(world.client))["spec"]["running"] is False


async def test_a_manual_machine_is_asked_through_its_status(world: World) -> None:
    await _machine(world, "Manual")
    assert (await _put(world.client, "start")).status == 202
    machine = await _read(world.client)
    assert machine["spec"]["runStrategy"] == "Manual"
    assert machine["status"]["stateChangeRequests"] == [{"action": "Start"}]
    again = await _put(world.client, "start")
    assert again.status == 500
    assert "already underway" in again.doc["message"]


async def test_a_restart_is_a_stop_of_this_instance_and_a_start(world: World) -> None:
    await _machine(world, "Always")
    await _instance(world)
    assert (await _put(world.client, "restart", {"gracePeriodSeconds": 0})).status == 202
    requests = (await _read(world.client))["status"]["stateChangeRequests"]
    assert requests == [{"action": "Stop", "uid": "uid-m"}, {"action": "Start"}]
    instance = world.store.get(Key("virtualmachineinstances.kubevirt.io", "default", "m"))
    assert instance["spec"]["terminationGracePeriodSeconds"] == 1


async def test_a_grace_period_given_to_stop_is_the_instances(world: World) -> None:
    await _machine(world, "Always")
    await _instance(world)
    assert (await _put(world.client, "stop", {"gracePeriod": 3})).status == 202
    instance = world.store.get(Key("virtualmachineinstances.kubevirt.io", "default", "m"))
    assert instance["spec"]["terminationGracePeriodSeconds"] == 3


@pytest.mark.parametrize(
    ("strategy", "phase", "verb", "words"),
    [
        ("Halted", "Running", "start", "VM is already running"),
        ("Always", "", "start", "Always does not support manual start requests"),
        ("RerunOnFailure", "Failed", "start", "does not support starting VM from failed state"),
        ("Halted", "", "stop", "VM is not running"),
        ("Halted", "Running", "stop", "only supports manual stop requests with a shorter"),
        ("Manual", "", "stop", "VM is not running"),
        ("Manual", "Succeeded", "stop", "VM is not running"),
        ("Halted", "", "restart", "RunStategy Halted does not support manual restart requests"),
        ("Once", "Running", "restart", "RunStategy Once does not support"),
        ("Always", "", "restart", "VM is not running: Halted"),
    ],
)
async def test_what_the_state_does_not_allow_is_409(
    world: World, strategy: str, phase: str, verb: str, words: str
) -> None:
    await _machine(world, strategy)
    if phase:
        await _instance(world, phase)
    before = await _read(world.client)
    answer = await _put(world.client, verb)
    assert answer.status == 409
    assert answer.doc["reason"] == "Conflict"
    assert 'virtualmachine.kubevirt.io "m"' in answer.doc["message"]
    assert words in answer.doc["message"]
    assert await _read(world.client) == before


async def test_a_dry_run_and_bad_options_change_nothing(world: World) -> None:
    await _machine(world, "Halted")
    before = await _read(world.client)
    assert (await _put(world.client, "start", {"dryRun": ["All"]})).status == 202
    assert (await _put(world.client, "start", b"[")).status == 400
    assert (await _put(world.client, "start", b"[]")).status == 400
    assert (await _put(world.client, "start", {"paused": True})).status == 422
    assert (await _put(world.client, "restart", {"gracePeriodSeconds": 5})).status == 400
    assert (await _put(world.client, "stop", {"gracePeriod": "soon"})).status == 400
    assert await _read(world.client) == before


async def test_a_missing_machine_is_named_as_kubevirt_does(client: Client) -> None:
    answer = await _put(client, "start")
    assert answer.status == 404
    assert answer.doc["message"] == 'virtualmachine.kubevirt.io "m" not found'


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", f"{MACHINES}/m/start", 405),
        ("PUT", f"{INSTANCES}/m/console", 405),
        ("PUT", f"{MACHINES}/m/migrate", 404),
        ("GET", f"{INSTANCES}/m/vnc", 404),
        ("GET", f"{MACHINES}/m/console", 404),
        ("GET", f"{MACHINES}/m", 404),
        ("GET", f"{INSTANCES}/m/console/extra", 404),
        (
            "PUT",
            "/apis/subresources.kubevirt.io/v9/namespaces/default/virtualmachines/m/start",
            404,
        ),
    ],
)
async def test_what_is_not_served_says_so(
    client: Client, method: str, path: str, code: int
) -> None:
    assert (await client.ask(method, path)).status == code


async def test_the_console_is_bytes_both_ways(world: World) -> None:
    await world.adapter.create(RuntimeSpec("uid-m", vm_xml=XML))
    await _instance(world)
    async with world.client.session.ws_connect(
        f"{INSTANCES}/m/console", protocols=["plain.kubevirt.io"]
    ) as socket:
        assert socket.protocol == "plain.kubevirt.io"
        await socket.send_str("text is ignored")
        await socket.send_bytes(b"hello\r\n")
        async with asyncio.timeout(5):
            assert await socket.receive_bytes() == b"hello\r\n"


async def test_the_end_of_the_guest_closes_the_console_in_order(world: World) -> None:
    await world.adapter.create(RuntimeSpec("uid-m", vm_xml=XML))
    await _instance(world)
    async with world.client.session.ws_connect(
        f"{INSTANCES}/m/console", protocols=["plain.kubevirt.io"]
    ) as socket:
        workload = world.adapter.runtime.find("tandem", "uid-m")
        assert workload is not None
        assert isinstance(workload.console_owner, EchoConsole)
        await workload.console_owner.close()
        async with asyncio.timeout(5):
            message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1000


async def test_a_console_that_is_taken_over_is_closed(world: World) -> None:
    await world.adapter.create(RuntimeSpec("uid-m", vm_xml=XML))
    await _instance(world)
    path, protocols = f"{INSTANCES}/m/console", ["plain.kubevirt.io"]
    async with (
        world.client.session.ws_connect(path, protocols=protocols) as first,
        world.client.session.ws_connect(path, protocols=protocols) as second,
    ):
        async with asyncio.timeout(5):
            assert (await first.receive()).type is aiohttp.WSMsgType.CLOSE
            await second.send_bytes(b"mine")
            assert await second.receive_bytes() == b"mine"


@pytest.mark.parametrize(
    ("phase", "spec", "code", "words"),
    [
        ("", {}, 404, 'virtualmachineinstance.kubevirt.io "m" not found'),
        ("Scheduling", {}, 400, "VMI is not running"),
        ("Succeeded", {}, 400, "VMI is not running"),
        ("Failed", {}, 409, "VMI is in failed status"),
        ("Running", {}, 400, "VMI is not running"),  # its domain has just gone
        (
            "Running",
            {"domain": {"devices": {"autoattachSerialConsole": False}}},
            400,
            "No serial consoles are present.",
        ),
    ],
)
async def test_a_console_that_cannot_be_had_tells_virtctl_whether_to_try_again(
    world: World, phase: str, spec: Doc, code: int, words: str
) -> None:
    if phase:
        await _instance(world, phase, **spec)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await world.client.session.ws_connect(f"{INSTANCES}/m/console")
    assert caught.value.status == code
    answer = await world.client.ask("GET", f"{INSTANCES}/m/console")
    assert words in answer.doc["message"]
    # More than this is cut off by virtctl's WebSocket library.
    assert len(answer.body) < 1024


async def test_stopping_the_server_closes_consoles(world: World) -> None:
    await world.adapter.create(RuntimeSpec("uid-m", vm_xml=XML))
    await _instance(world)
    async with world.client.session.ws_connect(f"{INSTANCES}/m/console") as socket:
        async with asyncio.timeout(2):
            await world.server.stop()
            message = await socket.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
