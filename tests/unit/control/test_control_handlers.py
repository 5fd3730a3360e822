"""Handlers against real listeners on loopback, and what they say of each kind of failure."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from tandem.api.kind import Doc
from tandem.control.pods.handlers import Handlers, Outcome
from tandem.errors import DeadlineExceeded, NotFound, Unavailable
from tandem.runtimes.capabilities import ExecResult
from tandem.server import pki

POD: Doc = {
    "metadata": {"name": "web", "namespace": "default", "uid": "uid-1"},
    "status": {"podIP": "127.0.0.1"},
}
LONG = 30.0

Answer = Callable[[bytes], bytes | Awaitable[bytes]]


class Shell:
    """A runtime that runs commands by a table."""

    name = "shell"

    def __init__(self) -> None:
        self.adapter = self
        self.ran: list[tuple[str, ...]] = []
        self.result: ExecResult | Exception = ExecResult(0, b"fine\n", b"")

    async def exec(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("streams are not asked for")

    async def exec_sync(
        self, id: str, command: Sequence[str], *, container: str = "", timeout: float
    ) -> ExecResult:
        assert (id, container) == ("uid-1", "main")
        self.ran.append(tuple(command))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Site:
    """HTTP servers that answer as told, and remember what was asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._servers: list[asyncio.Server] = []

    async def open(self, answer: Answer, tls: ssl.SSLContext | None = None) -> int:
        """The port of a server that gives these bytes for each request, and hangs up."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                data = answer(head)
                writer.write(data if isinstance(data, bytes) else await data)
                await writer.drain()
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()


@pytest.fixture
def shell() -> Shell:
    return Shell()


@pytest.fixture
def handlers(shell: Shell) -> Handlers:
    return Handlers(shell)  # type: ignore[arg-type]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    yield site
    await site.close()


@pytest.fixture
async def closed_port() -> int:
    """A port that nobody listens on."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


def container(**fields: Any) -> Doc:
    return {"name": "main", "image": "demo", **fields}


async def probe(handlers: Handlers, handler: Doc, timeout: float = LONG, **fields: Any) -> Outcome:
    return await handlers.run(handler, POD, container(**fields), timeout=timeout)


async def hook(handlers: Handlers, handler: Doc, timeout: float = LONG) -> Outcome:
    return await handlers.hook(handler, POD, container(), timeout=timeout)


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# -- exec


async def test_a_command_succeeds_by_its_exit_code(handlers: Handlers, shell: Shell) -> None:
    handler = {"exec": {"command": ["cat", "/tmp/healthy"]}}
    assert await probe(handlers, handler) == Outcome(True, "fine\n")
    shell.result = ExecResult(1, b"out ", b"cat: can't open '/tmp/healthy'\n")
    expected = Outcome(False, "out cat: can't open '/tmp/healthy'\n")
    assert await probe(handlers, handler) == expected
    shell.result = ExecResult(1, b"x" * 20000, b"")
    assert len((await probe(handlers, handler)).output) == 10 << 10


async def test_a_command_sees_the_literal_environment(handlers: Handlers, shell: Shell) -> None:
    env = [{"name": "FILE", "value": "/tmp/x"}, {"name": "SECRET", "valueFrom": {}}]
    await probe(handlers, {"exec": {"command": ["cat", "$(FILE)$(SECRET)", "$(NONE)"]}}, env=env)
    assert shell.ran == [("cat", "/tmp/x", "$(NONE)")]


async def test_a_command_that_takes_too_long_has_failed(handlers: Handlers, shell: Shell) -> None:
    shell.result = DeadlineExceeded("too long")
    outcome = await probe(handlers, {"exec": {"command": ["sleep", "9"]}}, timeout=1.0)
    assert outcome == Outcome(False, 'command timed out: "sleep 9" timed out after 1s')


async def test_a_command_that_cannot_be_run_says_nothing_of_the_container(
    handlers: Handlers, shell: Shell
) -> None:
    shell.result = NotFound("no such container")
    outcome = await probe(handlers, {"exec": {"command": ["true"]}})
    assert outcome == Outcome(False, "no such container", errored=True)
    shell.result = Unavailable("away")
    with pytest.raises(Unavailable):
        await probe(handlers, {"exec": {"command": ["true"]}})


async def test_a_runtime_without_commands_says_so(handlers: Handlers, shell: Shell) -> None:
    shell.adapter = type("Plain", (), {"name": "plain"})()
    outcome = await probe(handlers, {"exec": {"command": ["true"]}})
    assert outcome == Outcome(False, "plain does not run commands", errored=True)


# -- httpGet


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome(True, "body")),
        (299, Outcome(True, "body")),
        (302, Outcome(True, "Probe terminated redirects, Response body: body", warning=True)),
        (404, Outcome(False, "HTTP probe failed with statuscode: 404")),
        (500, Outcome(False, "HTTP probe failed with statuscode: 500")),
    ],
)
async def test_http_goes_by_the_status(
    handlers: Handlers, site: Site, status: int, outcome: Outcome
) -> None:
    port = await site.open(lambda _: response(status, b"body"))
    assert await probe(handlers, {"httpGet": {"port": port}}) == outcome


async def test_http_asks_as_the_kubelet_does(handlers: Handlers, site: Site) -> None:
    port = await site.open(lambda _: response(200))
    ports = [{"name": "web", "containerPort": port}]
    action: Doc = {"port": "web", "path": "healthz?deep=1&q=a b#there"}
    await probe(handlers, {"httpGet": action}, ports=ports)
    headers = [
        {"name": "Host", "value": "example.com"},
        {"name": "X-Two", "value": "1"},
        {"name": "X-Two", "value": "2"},
        {"name": "user-agent", "value": "mine"},
        {"name": "Accept", "value": ""},
    ]
    await probe(handlers, {"httpGet": {"port": port, "path": "/a%20b", "httpHeaders": headers}})
    assert [head.decode().split("\r\n")[:-2] for head in site.heads] == [
        [
            "GET /healthz?deep=1&q=a%20b HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Accept: */*",
            "User-Agent: kube-probe/1.32",
            "Connection: close",
        ],
        [
            "GET /a%20b HTTP/1.1",
            "Host: example.com",
            "X-Two: 1",
            "X-Two: 2",
            "user-agent: mine",
            "Connection: close",
        ],
    ]


async def test_http_redirects_on_the_same_host_are_followed(handlers: Handlers, site: Site) -> None:
    inner = await site.open(lambda head: response(200 if b"GET /there?x=1 " in head else 404))

    def outer(head: bytes) -> bytes:
        if b"GET / " in head:
            return response(301, Location="/next")
        return response(307, Location=f"http://127.0.0.1:{inner}/there?x=1")

    port = await site.open(outer)
    assert await probe(handlers, {"httpGet": {"port": port}}) == Outcome(True, "")
    assert len(site.heads) == 3


async def test_http_redirects_to_other_hosts_are_a_warning(handlers: Handlers, site: Site) -> None:
    port = await site.open(lambda _: response(302, b"gone", Location="http://example.com/"))
    outcome = await probe(handlers, {"httpGet": {"port": port}})
    said = "Probe terminated redirects, Response body: gone"
    assert outcome == Outcome(True, said, warning=True)
    assert len(site.heads) == 1


async def test_http_redirects_end(handlers: Handlers, site: Site) -> None:
    port = await site.open(lambda _: response(302, Location="/"))
    outcome = await probe(handlers, {"httpGet": {"port": port}})
    expected = f'Get "http://127.0.0.1:{port}/": stopped after 10 redirects'
    assert outcome == Outcome(False, expected)
    assert len(site.heads) == 10


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", 'Get "URL": EOF', id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", 'Get "URL": unexpected EOF', id="half a head"),
        pytest.param(
            b"SSH-2.0-x\r\n",
            'Get "URL": net/http: HTTP/1.x transport connection broken: '
            'malformed HTTP response "SSH-2.0-x"',
            id="no HTTP",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000,
            'Get "URL": net/http: server response headers exceeded 65536 bytes; aborted',
            id="headers without end",
        ),
    ],
)
async def test_http_failures_read_as_the_kubelets(
    handlers: Handlers, site: Site, data: bytes, said: str
) -> None:
    port = await site.open(lambda _: data)
    outcome = await probe(handlers, {"httpGet": {"port": port}})
    assert outcome == Outcome(False, said.replace("URL", f"http://127.0.0.1:{port}/"))


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(b"HTTP/1.0 200 OK\n\nto the end", "to the end", id="until closed"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(200, b"late"),
            "late",
            id="after an informational answer",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "abcde",
            id="in chunks",
        ),
        pytest.param(response(200, b"x" * 50000), "x" * 10240, id="more than is kept"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + b"x" * 70000,
            "x" * 10240,
            id="more than is kept, in chunks",
        ),
    ],
)
async def test_http_bodies_come_in_every_form(
    handlers: Handlers, site: Site, data: bytes, body: str
) -> None:
    port = await site.open(lambda _: data)
    assert await probe(handlers, {"httpGet": {"port": port}}) == Outcome(True, body)


async def test_http_without_its_whole_body_is_no_answer(handlers: Handlers, site: Site) -> None:
    port = await site.open(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    outcome = await probe(handlers, {"httpGet": {"port": port}})
    assert outcome == Outcome(False, "unexpected EOF", errored=True)


async def test_http_gives_up_in_time(handlers: Handlers, site: Site) -> None:
    done = asyncio.Event()

    async def hang() -> bytes:
        await done.wait()
        return b""

    port = await site.open(lambda _: hang())
    outcome = await probe(handlers, {"httpGet": {"port": port}}, timeout=0.1)
    done.set()
    what = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    assert outcome == Outcome(False, f'Get "http://127.0.0.1:{port}/": {what}')


async def test_http_to_nobody_is_refused(handlers: Handlers, closed_port: int) -> None:
    where = f"127.0.0.1:{closed_port}"
    outcome = await probe(handlers, {"httpGet": {"port": closed_port}})
    expected = f'Get "http://{where}/": dial tcp {where}: connect: connection refused'
    assert outcome == Outcome(False, expected)


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ("nowhere", 'strconv.Atoi: parsing "nowhere": invalid syntax'),
        (0, "invalid port number: 0"),
        ("70000", "invalid port number: 70000"),
    ],
)
async def test_a_port_that_is_none_says_nothing_of_the_container(
    handlers: Handlers, port: Any, said: str
) -> None:
    for kind in ("httpGet", "tcpSocket"):
        assert await probe(handlers, {kind: {"port": port}}) == Outcome(False, said, errored=True)


async def test_a_header_cannot_smuggle_another(handlers: Handlers, site: Site) -> None:
    port = await site.open(lambda _: response(200))
    headers = [{"name": "X-A", "value": "1\r\nX-B: 2"}]
    outcome = await probe(handlers, {"httpGet": {"port": port, "httpHeaders": headers}})
    assert 'invalid header field value for "X-A"' in outcome.output
    assert not outcome.ok
    assert site.heads == []


async def test_https_does_not_look_at_the_certificate(
    handlers: Handlers, site: Site, tmp_path: Path
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made, _ = pki.ensure(tmp_path)
    tls.load_cert_chain(made.server_certificate, made.server_key)
    port = await site.open(lambda _: response(200, b"hello"), tls)
    action = {"port": port, "scheme": "HTTPS"}
    assert await probe(handlers, {"httpGet": action}) == Outcome(True, "hello")
    assert not (await probe(handlers, {"httpGet": {"port": port}})).ok


async def test_https_to_a_plain_server_fails_and_a_hook_tries_again(handlers: Handlers) -> None:
    plain = await asyncio.start_server(_speaks_first, "127.0.0.1", 0)
    port = int(plain.sockets[0].getsockname()[1])
    action = {"httpGet": {"port": port, "scheme": "HTTPS"}}
    outcome = await probe(handlers, action)
    said = "http: server gave HTTP response to HTTPS client"
    assert outcome == Outcome(False, f'Get "https://127.0.0.1:{port}/": {said}')
    assert await hook(handlers, action) == Outcome(True)
    plain.close()
    await plain.wait_closed()


async def _speaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    try:
        await writer.drain()
        await reader.read(1 << 16)
    except OSError:
        pass
    finally:
        writer.close()


# -- tcpSocket


async def test_tcp_goes_by_the_connection(handlers: Handlers, site: Site, closed_port: int) -> None:
    port = await site.open(lambda _: b"")
    assert await probe(handlers, {"tcpSocket": {"port": port}}) == Outcome(True)
    named = [{"name": "db", "containerPort": port}]
    assert await probe(handlers, {"tcpSocket": {"port": "db"}}, ports=named) == Outcome(True)
    action = {"port": port, "host": "localhost"}
    assert await probe(handlers, {"tcpSocket": action}) == Outcome(True)
    outcome = await probe(handlers, {"tcpSocket": {"port": closed_port}})
    said = f"dial tcp 127.0.0.1:{closed_port}: connect: connection refused"
    assert outcome == Outcome(False, said)


async def test_a_name_that_nobody_knows_fails(handlers: Handlers) -> None:
    action = {"port": 80, "host": "no-such-host.invalid"}
    outcome = await probe(handlers, {"tcpSocket": action})
    assert outcome == Outcome(False, "dial tcp: lookup no-such-host.invalid: no such host")


# -- grpc


@pytest.fixture
async def health() -> AsyncIterator[int]:
    """The port of a server whose services say SERVING, NOT_SERVING, UNKNOWN, nothing at all."""
    answers = {
        b"": b"\x08\x01",
        b"\n\x04good": b"\x08\x01",
        b"\n\x03bad": b"\x08\x02",
        b"\n\x01x": b"",
    }

    async def check(request: bytes, context: Any) -> bytes:
        if request == b"\n\x04hang":
            await asyncio.sleep(60)
        if request not in answers:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answers[request]

    server = grpc.aio.server()
    rpc = grpc.unary_unary_rpc_method_handler(check)
    generic = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": rpc})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@pytest.mark.parametrize(
    ("service", "outcome"),
    [
        (None, Outcome(True, "service healthy")),
        ("good", Outcome(True, "service healthy")),
        ("bad", Outcome(False, 'service unhealthy (responded with "NOT_SERVING")')),
        ("x", Outcome(False, 'service unhealthy (responded with "UNKNOWN")')),
        (
            "other",
            Outcome(
                False,
                "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
            ),
        ),
    ],
)
async def test_grpc_goes_by_what_the_service_says(
    handlers: Handlers, health: int, service: str | None, outcome: Outcome
) -> None:
    action = {"port": health} if service is None else {"port": health, "service": service}
    assert await probe(handlers, {"grpc": action}) == outcome


async def test_grpc_gives_up_in_time(handlers: Handlers, health: int, closed_port: int) -> None:
    outcome = await probe(handlers, {"grpc": {"port": health, "service": "hang"}}, timeout=1.0)
    assert outcome == Outcome(False, "timeout: health rpc did not complete within 1s")
    outcome = await probe(handlers, {"grpc": {"port": closed_port}}, timeout=0.5)
    where = f"127.0.0.1:{closed_port}"
    said = f'timeout: failed to connect service "{where}" within 0.5s: context deadline exceeded'
    assert outcome == Outcome(False, said)


async def test_grpc_to_another_service_says_so(handlers: Handlers) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    outcome = await probe(handlers, {"grpc": {"port": port}})
    await server.stop(None)
    assert not outcome.ok
    assert outcome.output.startswith(
        "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
    )


# -- hooks


async def test_hooks_say_what_failed_in_the_kubelets_words(
    handlers: Handlers, shell: Shell, closed_port: int
) -> None:
    assert await hook(handlers, {"exec": {"command": ["true"]}}) == Outcome(True)
    shell.result = ExecResult(2, b"out", b"err")
    where = 'for Container "main" in Pod "web_default(uid-1)" failed - error:'
    outcome = await hook(handlers, {"exec": {"command": ["sh", "-c", "exit 2"]}})
    how = "command 'sh -c exit 2' exited with 2: err, message: \"outerr\""
    assert outcome == Outcome(False, f"Exec lifecycle hook ([sh -c exit 2]) {where} {how}")
    outcome = await hook(handlers, {"httpGet": {"port": closed_port, "path": "/bye"}})
    refused = f"dial tcp 127.0.0.1:{closed_port}: connect: connection refused"
    url = f"http://127.0.0.1:{closed_port}/bye"
    assert outcome == Outcome(False, f'HTTP lifecycle hook (/bye) {where} Get "{url}": {refused}')
    outcome = await hook(handlers, {"tcpSocket": {"port": closed_port}})
    assert outcome == Outcome(False, f"TCP lifecycle hook ({closed_port}) {where} {refused}")
    outcome = await hook(handlers, {"sleep": {"seconds": 60}}, timeout=0.01)
    late = "container terminated before sleep hook finished"
    assert outcome == Outcome(False, f"Sleep lifecycle hook (60) {where} {late}")
    assert await hook(handlers, {"sleep": {"seconds": 0}}) == Outcome(True)


async def test_whatever_http_answers_a_hook_is_success(handlers: Handlers, site: Site) -> None:
    port = await site.open(lambda _: response(500))
    assert await hook(handlers, {"httpGet": {"port": port}}) == Outcome(True)
    assert re.search(rb"User-Agent: kube-lifecycle/1\.32\r\n", site.heads[0])


# -- besides


async def test_a_probe_may_come_before_the_pods_status_does(handlers: Handlers, site: Site) -> None:
    port = await site.open(lambda _: b"")
    pod = json.loads(json.dumps(POD)) | {"status": {}}
    handler = {"tcpSocket": {"port": port}}
    outcome = await handlers.run(handler, pod, container(), timeout=LONG, address="127.0.0.1")
    assert outcome.ok
