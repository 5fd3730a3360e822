"""The connection to a CRI runtime: typed calls, deadlines, and gRPC's errors turned into ours.

Each call that Tandem makes is one :class:`Rpc` constant, which is all that a generated stub would
hold and keeps the request and response types. The channel is made at the first call, in the event
loop that makes it, and gRPC reconnects by itself; a call while the runtime is away fails at once
with ``Unavailable`` instead of waiting, so that callers decide how long to be patient.

containerd serves its own API on the same socket, told apart by the namespace header.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

# Read when grpc is first imported. Nothing here forks without exec, and gRPC's fork handlers would
# write to stderr and pause its threads at each subprocess.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from tandem.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InvalidSpec,
    NotFound,
    TandemError,
    TooManyRequests,
    Unavailable,
    Unsupported,
)
from tandem.runtimes.cri._gen import containerd_containers_pb2 as containers
from tandem.runtimes.cri._gen import containerd_content_pb2 as content
from tandem.runtimes.cri._gen import containerd_events_pb2 as events
from tandem.runtimes.cri._gen import containerd_snapshots_pb2 as snapshots
from tandem.runtimes.cri._gen import containerd_tasks_pb2 as tasks
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.aio import to_the_end

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

CONTAINERD_NAMESPACE = "k8s.io"
"""Where containerd's CRI plugin keeps what it makes."""

_CHANNEL_OPTIONS = (
    # A list of some thousand sandboxes passes gRPC's default of 4 MiB; containerd's own limit is 16.
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    # A unix socket that refuses costs nothing to try again, and status must be right within a second
    # of the runtime's return; gRPC's defaults wait 1 s to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Channels of one process share connections by default, and would share one that is broken.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Rpc(Generic[RequestT, ResponseT]):
    """One remote call. ``native`` ones are containerd's own and carry its namespace."""

    path: str
    request: type[RequestT]
    response: type[ResponseT]
    native: bool = False


_RUNTIME = "/runtime.v1.RuntimeService/"
_IMAGE = "/runtime.v1.ImageService/"
VERSION = Rpc(_RUNTIME + "Version", cri.VersionRequest, cri.VersionResponse)
STATUS = Rpc(_RUNTIME + "Status", cri.StatusRequest, cri.StatusResponse)
RUN_SANDBOX = Rpc(_RUNTIME + "RunPodSandbox", cri.RunPodSandboxRequest, cri.RunPodSandboxResponse)
STOP_SANDBOX = Rpc(
    _RUNTIME + "StopPodSandbox", cri.StopPodSandboxRequest, cri.StopPodSandboxResponse
)
REMOVE_SANDBOX = Rpc(
    _RUNTIME + "RemovePodSandbox", cri.RemovePodSandboxRequest, cri.RemovePodSandboxResponse
)
SANDBOX_STATUS = Rpc(
    _RUNTIME + "PodSandboxStatus", cri.PodSandboxStatusRequest, cri.PodSandboxStatusResponse
)
LIST_SANDBOXES = Rpc(
    _RUNTIME + "ListPodSandbox", cri.ListPodSandboxRequest, cri.ListPodSandboxResponse
)
CREATE_CONTAINER = Rpc(
    _RUNTIME + "CreateContainer", cri.CreateContainerRequest, cri.CreateContainerResponse
)
START_CONTAINER = Rpc(
    _RUNTIME + "StartContainer", cri.StartContainerRequest, cri.StartContainerResponse
)
STOP_CONTAINER = Rpc(
    _RUNTIME + "StopContainer", cri.StopContainerRequest, cri.StopContainerResponse
)
REMOVE_CONTAINER = Rpc(
    _RUNTIME + "RemoveContainer", cri.RemoveContainerRequest, cri.RemoveContainerResponse
)
LIST_CONTAINERS = Rpc(
    _RUNTIME + "ListContainers", cri.ListContainersRequest, cri.ListContainersResponse
)
CONTAINER_STATUS = Rpc(
    _RUNTIME + "ContainerStatus", cri.ContainerStatusRequest, cri.ContainerStatusResponse
)
REOPEN_LOG = Rpc(
    _RUNTIME + "ReopenContainerLog", cri.ReopenContainerLogRequest, cri.ReopenContainerLogResponse
)
LIST_CONTAINER_STATS = Rpc(
    _RUNTIME + "ListContainerStats", cri.ListContainerStatsRequest, cri.ListContainerStatsResponse
)
CONTAINER_EVENTS = Rpc(
    _RUNTIME + "GetContainerEvents", cri.GetEventsRequest, cri.ContainerEventResponse
)
EXEC = Rpc(_RUNTIME + "Exec", cri.ExecRequest, cri.ExecResponse)
EXEC_SYNC = Rpc(_RUNTIME + "ExecSync", cri.ExecSyncRequest, cri.ExecSyncResponse)
ATTACH = Rpc(_RUNTIME + "Attach", cri.AttachRequest, cri.AttachResponse)
IMAGE_STATUS = Rpc(_IMAGE + "ImageStatus", cri.ImageStatusRequest, cri.ImageStatusResponse)
PULL_IMAGE = Rpc(_IMAGE + "PullImage", cri.PullImageRequest, cri.PullImageResponse)

SUBSCRIBE = Rpc(
    "/containerd.services.events.v1.Events/Subscribe",
    events.SubscribeRequest,
    events.Envelope,
    native=True,
)
PUBLISH = Rpc(
    "/containerd.services.events.v1.Events/Publish",
    events.PublishRequest,
    empty_pb2.Empty,
    native=True,
)
GET_CONTAINER = Rpc(
    "/containerd.services.containers.v1.Containers/Get",
    containers.GetContainerRequest,
    containers.GetContainerResponse,
    native=True,
)
READ_CONTENT = Rpc(
    "/containerd.services.content.v1.Content/Read",
    content.ReadContentRequest,
    content.ReadContentResponse,
    native=True,
)
LIST_INGESTS = Rpc(
    "/containerd.services.content.v1.Content/ListStatuses",
    content.ListStatusesRequest,
    content.ListStatusesResponse,
    native=True,
)
KILL_TASK = Rpc(
    "/containerd.services.tasks.v1.Tasks/Kill", tasks.KillRequest, empty_pb2.Empty, native=True
)
VIEW_SNAPSHOT = Rpc(
    "/containerd.services.snapshots.v1.Snapshots/View",
    snapshots.ViewSnapshotRequest,
    snapshots.ViewSnapshotResponse,
    native=True,
)
REMOVE_SNAPSHOT = Rpc(
    "/containerd.services.snapshots.v1.Snapshots/Remove",
    snapshots.RemoveSnapshotRequest,
    empty_pb2.Empty,
    native=True,
)


class CriClient:
    """Calls to the runtime at ``endpoint``: a socket's path, or any address that gRPC takes.

    ``timeout`` (seconds) bounds each call that is not given its own.
    """

    def __init__(self, endpoint: str, *, timeout: float) -> None:
        self.endpoint = endpoint
        self._target = f"unix:{endpoint}" if endpoint.startswith("/") else endpoint
        self._timeout = timeout
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}

    async def call(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
        whole: bool = False,
    ) -> ResponseT:
        """Make one call. Raises an error of :mod:`tandem.errors` for any failure.

        ``whole``: a cancellation is held back until the runtime has answered, because it may finish
        in its own time what nobody waits for any more, and nobody could undo it then.
        """
        answer = self._call(rpc, request, self._timeout if timeout is None else timeout)
        return await (to_the_end(answer) if whole else answer)

    async def _call(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT, bound: float
    ) -> ResponseT:
        method = self._method(rpc, streaming=False)
        try:
            response: ResponseT = await method(request, timeout=bound, metadata=_metadata(rpc))
        except grpc.aio.AioRpcError as error:
            raise wrap(error, rpc.path, self.endpoint, bound) from error
        except grpc.aio.UsageError as error:
            raise Unavailable("the connection to the container runtime is closed") from error
        return response

    async def stream(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[ResponseT, None]:
        """The messages of a streaming call, for as long as it lasts (``timeout`` None: for ever).

        A stream that the server ends well ends here too; any other end raises.
        """
        method = self._method(rpc, streaming=True)
        call = method(request, timeout=timeout, metadata=_metadata(rpc))
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise wrap(error, rpc.path, self.endpoint, timeout) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the connection. A later call opens it anew."""
        channel, self._channel = self._channel, None
        self._methods.clear()
        if channel is not None:
            await channel.close(grace=None)

    def _method(self, rpc: Rpc[RequestT, ResponseT], *, streaming: bool) -> Any:
        method = self._methods.get(rpc.path)
        if method is None:
            if self._channel is None:
                self._channel = grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS)
            make = self._channel.unary_stream if streaming else self._channel.unary_unary
            method = self._methods[rpc.path] = make(
                rpc.path,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )
        return method


def _metadata(rpc: Rpc[RequestT, ResponseT]) -> tuple[tuple[str, str], ...] | None:
    return (("containerd-namespace", CONTAINERD_NAMESPACE),) if rpc.native else None


_BY_CODE: dict[grpc.StatusCode, type[TandemError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidSpec,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooManyRequests,
}

# containerd and CRI-O put most failures under UNKNOWN; these say more by their words. Only the whole
# of them counts, because a registry that is away says much the same inside of others.
_BY_WORDS: tuple[tuple[re.Pattern[str], type[TandemError]], ...] = (
    (re.compile(r"server is not (ready|initialized)|transport is closing"), Unavailable),
    (re.compile(r"context deadline exceeded$"), DeadlineExceeded),
)


def wrap(
    error: grpc.aio.AioRpcError, path: str, endpoint: str, timeout: float | None
) -> TandemError:
    """The error of ours that says what ``error`` does, for a call to ``path``."""
    code = error.code()
    details = error.details() or code.name
    call = path.rpartition("/")[2]
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            f"cannot reach the container runtime at {endpoint}: {_plain(details)}",
            hint="check that containerd runs and that the socket's path is right",
        )
    if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        # A call that we cancel ourselves ends in CancelledError, so CANCELLED is the server's doing.
        limit = "" if timeout is None else f" within {timeout:g} s"
        return DeadlineExceeded(f"{call} of the container runtime did not finish{limit}")
    if kind := _BY_CODE.get(code):
        return kind(f"{call}: {details}")
    for words, kind in _BY_WORDS:
        if words.search(details):
            return kind(f"{call}: {details}")
    return TandemError(f"{call}: {details}")


def _plain(details: str) -> str:
    """gRPC's account of a connection that failed, without its own addresses and codes."""
    if match := re.search(
        r"(No such file or directory|Connection refused|Permission denied)", details
    ):
        return match[1].lower()
    return details
