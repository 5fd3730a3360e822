"""Calls to the runtime: what comes back when it refuses, is slow, or is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tandem.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InvalidSpec,
    NotFound,
    TandemError,
    Unavailable,
    Unsupported,
)
from tandem.runtimes.cri._gen import containerd_containers_pb2 as containers
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import GET_CONTAINER, START_CONTAINER, VERSION, CriClient
from tests.unit.runtimes.cri.fake import FakeRuntime, Refusal, serving

START = cri.StartContainerRequest(container_id="c")


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        pytest.param(grpc.StatusCode.NOT_FOUND, "no", NotFound, id="not found"),
        pytest.param(grpc.StatusCode.ALREADY_EXISTS, "is", AlreadyExists, id="exists"),
        pytest.param(grpc.StatusCode.INVALID_ARGUMENT, "bad", InvalidSpec, id="invalid"),
        pytest.param(grpc.StatusCode.FAILED_PRECONDITION, "not now", Conflict, id="precondition"),
        pytest.param(grpc.StatusCode.UNAVAILABLE, "starting", Unavailable, id="unavailable"),
        pytest.param(
            grpc.StatusCode.UNKNOWN, "server is not ready", Unavailable, id="not ready, in words"
        ),
        pytest.param(
            grpc.StatusCode.UNKNOWN,
            "stop: context deadline exceeded",
            DeadlineExceeded,
            id="deadline, in words",
        ),
        pytest.param(grpc.StatusCode.UNKNOWN, "what?", TandemError, id="anything else"),
    ],
)
async def test_a_refusal_becomes_our_error_with_its_words(
    tmp_path: Path, code: grpc.StatusCode, details: str, kind: type[TandemError]
) -> None:
    runtime = FakeRuntime()

    async def refuse(_: Any) -> Any:
        raise Refusal(code, details)

    runtime.answer(START_CONTAINER, refuse)
    async with serving(runtime, tmp_path / "cri.sock") as client:
        with pytest.raises(kind) as caught:
            await client.call(START_CONTAINER, START)
        assert type(caught.value) is kind
        assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
        if kind is not DeadlineExceeded:
            assert details in caught.value.message


async def test_a_call_that_the_runtime_does_not_know_is_unsupported(tmp_path: Path) -> None:
    async with serving(FakeRuntime(), tmp_path / "cri.sock") as client:
        with pytest.raises(Unsupported):
            await client.call(START_CONTAINER, START)


async def test_a_call_has_a_deadline(tmp_path: Path) -> None:
    runtime = FakeRuntime()

    async def sleep(_: Any) -> Any:
        await asyncio.Event().wait()

    runtime.answer(START_CONTAINER, sleep)
    async with serving(runtime, tmp_path / "cri.sock") as client:
        with pytest.raises(DeadlineExceeded, match=r"StartContainer .* within 0\.05 s"):
            await client.call(START_CONTAINER, START, timeout=0.05)


async def test_an_absent_runtime_is_unavailable_at_once(tmp_path: Path) -> None:
    client = CriClient(str(tmp_path / "nobody.sock"), timeout=5.0)
    with pytest.raises(Unavailable, match="no such file") as caught:
        await client.call(VERSION, cri.VersionRequest())
    assert "nobody.sock" in caught.value.message
    assert caught.value.hint
    await client.close()


async def test_a_runtime_that_comes_back_is_reached_again(tmp_path: Path) -> None:
    socket = tmp_path / "cri.sock"
    client = CriClient(str(socket), timeout=5.0)
    with pytest.raises(Unavailable):
        await client.call(VERSION, cri.VersionRequest())
    async with serving(FakeRuntime(), socket):
        async with asyncio.timeout(2):
            while True:
                try:
                    answer = await client.call(VERSION, cri.VersionRequest())
                    break
                except Unavailable:
                    await asyncio.sleep(0.01)
        assert answer.runtime_name == "containerd"
        await client.close()


async def test_a_cancelled_whole_call_is_waited_for(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    reached, release, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def start(_: Any) -> cri.StartContainerResponse:
        reached.set()
        await release.wait()
        done.set()
        return cri.StartContainerResponse()

    runtime.answer(START_CONTAINER, start)
    async with serving(runtime, tmp_path / "cri.sock") as client:
        task = asyncio.create_task(client.call(START_CONTAINER, START, whole=True))
        await reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done.is_set()


async def test_only_containerds_own_calls_carry_its_namespace(tmp_path: Path) -> None:
    runtime = FakeRuntime()

    async def get(_: Any) -> containers.GetContainerResponse:
        return containers.GetContainerResponse()

    runtime.answer(GET_CONTAINER, get)
    async with serving(runtime, tmp_path / "cri.sock") as client:
        await client.call(GET_CONTAINER, containers.GetContainerRequest(id="a"))
        await client.call(VERSION, cri.VersionRequest())
    assert runtime.metadata[GET_CONTAINER.path]["containerd-namespace"] == "k8s.io"
    assert "containerd-namespace" not in runtime.metadata[VERSION.path]
