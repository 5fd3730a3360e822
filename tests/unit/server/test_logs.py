"""Logs of containers and machines, with the kubelet's rules and words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tandem.runtimes.adapter import RuntimeSpec
from tandem.store import Key
from tests.unit.server.conftest import Client, Doc, World, eventually, pod

PODS = "/api/v1/namespaces/default/pods"
INSTANCES = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances"
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


async def _started(world: World, name: str, script: str, **state: Any) -> Doc:
    """A Pod whose one container runs ``script``, as its controller would leave it."""
    command = ["sh", "-c", script]
    container = {"name": "main", "image": "busybox", "command": command}
    created = await world.client.create(PODS, pod(name, containers=[container]))
    spec = {"containers": [container]}
    await world.adapter.create(RuntimeSpec(created["metadata"]["uid"], container_spec=spec))
    await _set_status(world, name, state=state or RUNNING)
    return created


async def _set_status(world: World, name: str, **status: Any) -> None:
    def change(doc: Doc) -> Doc:
        doc["status"] = {"containerStatuses": [{"name": "main"} | status]}
        return doc

    await world.store.mutate(Key("pods", "default", name), change)


async def _refusal(client: Client, path: str, status: int = 400) -> str:
    message = (await client.get(path, status=status))["message"]
    assert isinstance(message, str)
    return message


async def test_a_log_is_the_containers_output_as_text(world: World) -> None:
    await _started(world, "a", "echo one; echo two; sleep 1000")
    answer = await world.client.ask("GET", f"{PODS}/a/log", Accept="application/json, */*")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.body == b"one\ntwo\n"
    last = await world.client.ask("GET", f"{PODS}/a/log?tailLines=1&container=main")
    assert last.body == b"two\n"
    assert (await world.client.ask("GET", f"{PODS}/a/log?limitBytes=2")).body == b"on"


async def test_a_follower_hears_of_the_end(world: World) -> None:
    await _started(world, "a", "echo one; sleep 0.05; echo two")
    async with asyncio.timeout(5):
        answer = await world.client.ask("GET", f"{PODS}/a/log?follow=true")
    assert answer.body == b"one\ntwo\n"


async def test_a_follower_of_silence_is_answered_and_let_go_when_the_server_stops(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.server.logs._FIRST_OUTPUT", 0.01)
    await _started(world, "a", "sleep 1000")
    async with world.client.session.get(f"{PODS}/a/log?follow=true") as response:
        assert response.status == 200
        async with asyncio.timeout(1):
            await world.server.stop()


async def test_a_follower_that_goes_away_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.server.logs._FIRST_OUTPUT", 0.01)
    await _started(world, "a", "sleep 1000")
    async with world.client.session.get(f"{PODS}/a/log?follow=true") as response:
        assert response.status == 200
        assert world.server._api.streams
    await eventually(lambda: not world.server._api.streams)


async def test_a_container_must_be_named_when_there_are_several(world: World) -> None:
    containers = [{"name": name, "image": "busybox"} for name in ("web", "db")]
    await world.client.create(PODS, pod("a", containers=containers))
    message = await _refusal(world.client, f"{PODS}/a/log")
    assert message == "a container name must be specified for pod a, choose one of: [web db]"
    assert await _refusal(world.client, f"{PODS}/a/log?container=cache") == (
        "container cache is not valid for pod a"
    )


async def test_a_container_that_waits_has_no_log_and_says_why(world: World) -> None:
    await world.client.create(PODS, pod("a"))
    waiting = 'container "main" in pod "a" is waiting to start: {}'
    assert await _refusal(world.client, f"{PODS}/a/log") == waiting.format("ContainerCreating")
    for reason, words in (
        ("PodInitializing", "PodInitializing"),
        ("ErrImagePull", "image can't be pulled"),
        ("ImagePullBackOff", "trying and failing to pull image"),
    ):
        await _set_status(world, "a", state={"waiting": {"reason": reason}})
        assert await _refusal(world.client, f"{PODS}/a/log") == waiting.format(words)


async def test_a_previous_run_that_never_was_has_no_log(world: World) -> None:
    await _started(world, "a", "echo one")
    message = await _refusal(world.client, f"{PODS}/a/log?previous=true")
    assert message == 'previous terminated container "main" in pod "a" not found'


async def test_while_the_next_attempt_is_awaited_the_previous_one_is_the_last_there_is(
    world: World,
) -> None:
    await _started(world, "a", "echo one; exit 1")
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    ended = {"terminated": {"exitCode": 1, "containerID": "memory://x"}}
    await _set_status(world, "a", state=waiting, lastState=ended)
    for query in ("", "?previous=true", "?previous=true&follow=true"):
        assert (await world.client.ask("GET", f"{PODS}/a/log{query}")).body == b"one\n"


async def test_every_kind_of_container_has_a_log(world: World) -> None:
    await _started(world, "a", "echo one")

    def change(doc: Doc) -> Doc:
        doc["spec"]["initContainers"] = [{"name": "before", "image": "busybox"}]
        doc["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox"}]
        doc["status"] |= {
            "initContainerStatuses": [{"name": "before", "state": RUNNING}],
            "ephemeralContainerStatuses": [{"name": "debugger", "state": RUNNING}],
        }
        return doc

    uid = (await world.store.mutate(Key("pods", "default", "a"), change))["metadata"]["uid"]
    for name in ("before", "debugger"):
        document = {"name": name, "image": "busybox", "command": ["sh", "-c", f"echo {name}"]}
        await world.adapter.start_container(uid, document, attempt=0)
        answer = await world.client.ask("GET", f"{PODS}/a/log?container={name}")
        assert answer.body == f"{name}\n".encode()
    assert (await world.client.ask("GET", f"{PODS}/a/log")).body == b"one\n"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("tailLines=-1", "tailLines"),
        ("limitBytes=0", "limitBytes"),
        ("sinceSeconds=0", "sinceSeconds"),
        ("sinceTime=yesterday", "sinceTime"),
        ("stream=Stderr", "stream"),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", "sinceSeconds"),
    ],
)
async def test_options_that_make_no_sense_are_refused_by_name(
    world: World, query: str, field: str
) -> None:
    await _started(world, "a", "echo one")
    status = await world.client.get(f"{PODS}/a/log?{query}", status=422)
    assert status["details"]["causes"][0]["field"] == field


async def test_the_log_of_a_missing_pod_is_404(client: Client) -> None:
    assert await _refusal(client, f"{PODS}/none/log", 404) == 'pods "none" not found'


async def test_a_machines_log_is_its_serial_console(world: World) -> None:
    xml = "<domain type='qemu'><name>m</name><description>echo booted</description></domain>"
    key = Key("virtualmachineinstances.kubevirt.io", "default", "m")
    doc = {"metadata": {"name": "m", "namespace": "default", "uid": "uid-m"}}
    await world.store.create(key, doc)
    await world.adapter.create(RuntimeSpec("uid-m", vm_xml=xml))
    answer = await world.client.ask("GET", f"{INSTANCES}/m/log?tailLines=5")
    assert answer.status == 200, answer.body
    assert answer.body == b"booted\n"
