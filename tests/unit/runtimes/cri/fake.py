"""A CRI runtime in this process: a real gRPC server that answers what a test tells it to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import VERSION, CriClient, Rpc

if TYPE_CHECKING:
    Handler = grpc.GenericRpcHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:  # generic in the type stubs only
    Handler = grpc.GenericRpcHandler
    Context = grpc.aio.ServicerContext

Answer = Callable[[Any], Awaitable[Any]]
Stream = Callable[[Any], AsyncIterator[Any]]


class Refusal(Exception):
    """Raised by an answer: the call ends with this status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details


class FakeRuntime(Handler):
    """Answers calls by ``answers`` and ``streams``, by path; others are unimplemented."""

    def __init__(self, name: str = "containerd") -> None:
        self.answers: dict[str, tuple[Rpc[Any, Any], Answer]] = {}
        self.streams: dict[str, tuple[Rpc[Any, Any], Stream]] = {}
        self.metadata: dict[str, dict[str, str]] = {}

        async def version(_: Any) -> cri.VersionResponse:
            return cri.VersionResponse(runtime_name=name, runtime_version="1")

        self.answer(VERSION, version)

    def answer(self, rpc: Rpc[Any, Any], answer: Answer) -> None:
        self.answers[rpc.path] = (rpc, answer)

    def stream(self, rpc: Rpc[Any, Any], stream: Stream) -> None:
        self.streams[rpc.path] = (rpc, stream)

    def service(self, call_details: Any) -> Any:
        path = call_details.method
        self.metadata[path] = dict(call_details.invocation_metadata)
        if path in self.answers:
            rpc, answer = self.answers[path]

            async def unary(request: Any, context: Context) -> Any:
                try:
                    return await answer(request)
                except Refusal as refusal:
                    await context.abort(refusal.code, refusal.details)

            return grpc.unary_unary_rpc_method_handler(
                unary, rpc.request.FromString, rpc.response.SerializeToString
            )
        if path in self.streams:
            rpc, stream = self.streams[path]

            async def streaming(request: Any, context: Context) -> AsyncIterator[Any]:
                try:
                    async for message in stream(request):
                        yield message
                except Refusal as refusal:
                    await context.abort(refusal.code, refusal.details)

            return grpc.unary_stream_rpc_method_handler(
                streaming, rpc.request.FromString, rpc.response.SerializeToString
            )
        return None


@contextlib.asynccontextmanager
async def serving(runtime: FakeRuntime, socket: Path) -> AsyncGenerator[CriClient, None]:
    """``runtime`` behind a unix socket, and a client of it."""
    server = grpc.aio.server(handlers=[runtime])
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    client = CriClient(str(socket), timeout=5.0)
    try:
        yield client
    finally:
        await client.close()
        await server.stop(grace=None)
