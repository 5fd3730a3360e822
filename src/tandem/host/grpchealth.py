"""The gRPC health check (``grpc.health.v1.Health/Check``), as a kubelet's prober makes it.

The two messages have one field each and are put together by hand: generated classes would cost more
than the check.
"""

from __future__ import annotations

import asyncio

from tandem.errors import DeadlineExceeded, Unavailable
from tandem.host.dial import join

_METHOD = "/grpc.health.v1.Health/Check"
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


class NotServing(Unavailable):
    """It answered, and does not serve."""


async def check(host: str, port: int, service: str, *, timeout: float, agent: str) -> None:
    """Return when ``service`` (empty: the server as a whole) says SERVING within ``timeout`` seconds.

    Raises :class:`NotServing`, ``DeadlineExceeded`` and ``Unavailable``, in the kubelet's words.
    """
    import grpc  # late: only who has such a probe pays for it
    from grpc.aio import AioRpcError, insecure_channel

    where = join(host or "localhost", port)
    within = f"{timeout:g}s"
    options = [
        ("grpc.primary_user_agent", agent),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),  # each check connects anew
        ("grpc.enable_retries", 0),
    ]
    deadline = asyncio.get_running_loop().time() + timeout
    async with insecure_channel(where, options=options) as channel:
        try:
            async with asyncio.timeout_at(deadline):
                await channel.channel_ready()
        except TimeoutError as error:
            # Also when it is refused: that is tried again until the time is up.
            raise DeadlineExceeded(
                f'timeout: failed to connect service "{where}" within {within}: '
                "context deadline exceeded"
            ) from error
        ask = channel.unary_unary(_METHOD, bytes, bytes)
        try:
            left = max(0.001, deadline - asyncio.get_running_loop().time())
            answer: bytes = await ask(_request(service), timeout=left)
        except AioRpcError as error:
            code, said = error.code(), error.details() or ""
            if code is grpc.StatusCode.UNIMPLEMENTED:
                raise Unavailable(
                    "error: this server does not implement the grpc health protocol "
                    f"(grpc.health.v1.Health): {said}"
                ) from error
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(
                    f"timeout: health rpc did not complete within {within}"
                ) from error
            raise Unavailable(
                f"error: health rpc probe failed: rpc error: code = {_go_name(code)} desc = {said}"
            ) from error
    if (status := _status(answer)) != "SERVING":
        raise NotServing(f'service unhealthy (responded with "{status}")')


def _request(service: str) -> bytes:
    """HealthCheckRequest: field 1 is the service's name."""
    if not service:
        return b""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _status(answer: bytes) -> str:
    """HealthCheckResponse: field 1 is the status, left out when it is zero; it has no other field."""
    if not answer:
        return _STATUSES[0]
    if answer[0] != 0x08 or len(answer) < 2:
        return _STATUSES[0]
    return _STATUSES.get(answer[1], str(answer[1]))


def _go_name(code: object) -> str:
    """``NotFound`` for ``NOT_FOUND``: Go's names of the status codes."""
    name = str(getattr(code, "name", "UNKNOWN"))
    special = {"OK": "OK", "CANCELLED": "Canceled"}
    return special.get(name) or "".join(part.capitalize() for part in name.split("_"))
