"""Both transports, against a real socket: the same verbs, the same answers, the same errors.

What the verbs mean is the server's matter and tested with it; here is what lies between.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tandem.client import Access, AsyncClient, Client
from tandem.client.request import Request
from tandem.client.resources import Resource
from tandem.errors import NotFound, Unavailable
from tandem.server import pki

PODS = Resource("", "v1", "Pod", "pods", "pod", verbs=frozenset({"list"}))


class Handler(BaseHTTPRequestHandler):
    """Answers from ``server.answers`` (path with query: status, body) and notes what was asked."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.server.peers.append(self.client_address[1])
        status, answer = self.server.answers.get(self.path, (404, b"no such path"))
        self.send_response(status)
        for warning in self.server.warnings:
            self.send_header("Warning", warning)
        if isinstance(answer, list):  # a stream: in chunks, and then the end
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in [*answer, b""]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            return
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if self.server.hang_up:
            self.close_connection = True

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.peers: list[int] = []
        self.warnings: list[str] = []
        self.hang_up = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, document: Any, status: int = 200) -> None:
        self.answers[path] = status, json.dumps(document).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Blocking:
    """The blocking client, called as a test calls either."""

    def __init__(self, access: Access, **options: Any) -> None:
        self.client = Client(access, **options)

    def __call__(self, verb: str, *args: Any, **options: Any) -> Any:
        found = getattr(self.client, verb)(*args, **options)
        return list(found) if isinstance(found, Iterator) else found

    def close(self) -> None:
        self.client.close()


class Asynchronous:
    """The asynchronous one."""

    def __init__(self, access: Access, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()  # a loop of our own: pytest's is left as it is
        self.loop.set_debug(True)
        self.client = AsyncClient(access, **options)

    def __call__(self, verb: str, *args: Any, **options: Any) -> Any:
        async def call() -> Any:
            found = getattr(self.client, verb)(*args, **options)
            if hasattr(found, "__aiter__"):
                return [item async for item in found]
            return await found

        return self.loop.run_until_complete(call())

    def close(self) -> None:
        self.loop.run_until_complete(self.client.close())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@pytest.fixture(params=[Blocking, Asynchronous])
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Any] = []

    def connect(access: Access, **options: Any) -> Any:
        made.append(request.param(access, **options))
        return made[-1]

    yield connect
    for client in made:
        client.close()


def test_an_object_is_read_created_changed_and_deleted(server: Server, connect: Any) -> None:
    client = connect(Access(server.url, "web", token="secret"))
    pod = {"metadata": {"name": "a"}}
    collection, one = "/api/v1/namespaces/web/pods", "/api/v1/namespaces/web/pods/a"
    server.answer(f"{collection}?fieldValidation=Strict", pod, 201)
    server.answer(one, pod)
    server.answer(f"{one}?fieldValidation=Warn", pod)
    server.answer(f"{one}/status", pod)
    assert client("create", PODS, pod, strict=True) == pod
    assert client("get", PODS, "a") == pod
    assert client("patch", PODS, "a", {"x": None}, type="strategic") == pod
    assert client("update", PODS, pod, subresource="status") == pod
    assert client("delete", PODS, "a", grace_seconds=0) == pod
    methods = [asked[0] for asked in server.asked]
    assert methods == ["POST", "GET", "PATCH", "PUT", "DELETE"]
    patch, delete = server.asked[2], server.asked[4]
    assert patch[2]["Content-Type"] == "application/strategic-merge-patch+json"
    assert json.loads(patch[3]) == {"x": None}
    assert json.loads(delete[3])["gracePeriodSeconds"] == 0
    assert {asked[2]["Authorization"] for asked in server.asked} == {"Bearer secret"}


def test_questions_share_one_connection(server: Server, connect: Any) -> None:
    client = connect(Access(server.url))
    server.answer("/version", {"major": "1"})
    for _ in range(3):
        client("send", Request("GET", "/version"))
    assert len(set(server.peers)) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_not_noticed(
    server: Server, connect: Any
) -> None:
    client = connect(Access(server.url))
    server.answer("/version", {"major": "1"})
    server.hang_up = True
    for _ in range(3):
        assert client("send", Request("GET", "/version")) == {"major": "1"}


def test_a_list_is_read_to_its_end_in_pages(server: Server, connect: Any) -> None:
    path = "/api/v1/pods?limit=500"
    server.answer(path, {"metadata": {"continue": "next"}, "items": [1]})
    server.answer(f"{path}&continue=next", {"metadata": {"resourceVersion": "7"}, "items": [2]})
    listing = connect(Access(server.url))("list", PODS, namespace="")
    assert listing == {"metadata": {"resourceVersion": "7"}, "items": [1, 2]}


def test_a_watch_gives_each_event(server: Server, connect: Any) -> None:
    path = "/api/v1/namespaces/default/pods?watch=true&resourceVersion=5"
    server.answers[path] = 200, [b'{"type":"ADDED","ob', b'ject":{"a":1}}\n{"type":"DELETED","object":{}}\n']  # fmt: skip
    events = connect(Access(server.url))("watch", PODS, since="5")
    assert events == [("ADDED", {"a": 1}), ("DELETED", {})]


def test_a_log_is_passed_on_byte_for_byte(server: Server, connect: Any) -> None:
    path = "/api/v1/namespaces/default/pods/a/log?container=c"
    server.answers[path] = 200, [b"one\n\xff", b"\x00two"]
    assert b"".join(connect(Access(server.url))("log", "a", "c")) == b"one\n\xff\x00two"


def test_a_machines_log_is_read_from_kubevirts_group(server: Server, connect: Any) -> None:
    path = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/a/log"
    server.answers[path] = 200, [b"login:"]
    assert connect(Access(server.url))("machine_log", "a") == [b"login:"]


def test_an_error_is_raised_as_itself_also_by_a_stream(server: Server, connect: Any) -> None:
    client = connect(Access(server.url))
    path = "/api/v1/namespaces/default/pods/a"
    failure = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "no a"}
    server.answer(path, failure, 404)
    server.answer(f"{path}/log", failure, 404)
    with pytest.raises(NotFound, match="no a"):
        client("get", PODS, "a")
    with pytest.raises(NotFound, match="no a"):
        client("log", "a")


def test_warnings_are_handed_on(server: Server, connect: Any) -> None:
    heard: list[str] = []
    client = connect(Access(server.url), on_warning=heard.append)
    server.warnings = ['299 - "one"', '299 - "two"']
    server.answer("/version", {})
    client("send", Request("GET", "/version"))
    assert heard == ["one", "two"]


def test_discovery_is_asked_once(server: Server, connect: Any) -> None:
    server.answer("/api", {"kind": "APIVersions", "versions": ["v1"]})
    server.answer("/api/v1", {"resources": [{"name": "pods", "namespaced": True, "kind": "Pod"}]})
    server.answer("/apis", {"kind": "APIGroupList", "groups": []})
    server.answer("/api/v1/namespaces/default/pods/a", {"a": 1})
    client = connect(Access(server.url))
    assert client("get", "pods", "a") == client("get", "pod", "a") == {"a": 1}
    assert [asked[1] for asked in server.asked].count("/api") == 1


def test_nobody_listening_is_unavailable_with_a_hint(connect: Any) -> None:
    with pytest.raises(
        Unavailable, match=r"cannot reach http://127\.0\.0\.1:1: Connection refused"
    ) as caught:
        connect(Access("http://127.0.0.1:1"))("send", Request("GET", "/"))
    assert caught.value.hint


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    found, _ = pki.ensure(tmp_path_factory.mktemp("pki"))
    return found


def secure(server: Server, certificates: pki.Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    context.load_verify_locations(certificates.ca_certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)


@pytest.fixture
def access(server: Server, certificates: pki.Pki) -> Access:
    secure(server, certificates)
    return Access(
        server.url.replace("http:", "https:"),
        authority=certificates.ca_certificate.read_bytes(),
        certificate=certificates.client_certificate.read_bytes(),
        key=certificates.client_key.read_bytes(),
    )


def test_tls_checks_the_server_and_shows_our_certificate(
    server: Server, connect: Any, access: Access
) -> None:
    server.answer("/version", {"major": "1"})
    assert connect(access)("send", Request("GET", "/version")) == {"major": "1"}


def test_a_server_of_another_authority_is_not_talked_to(
    server: Server, connect: Any, access: Access, tmp_path: Path
) -> None:
    other, _ = pki.ensure(tmp_path)
    stranger = Access(access.server, authority=other.ca_certificate.read_bytes())
    with pytest.raises(Unavailable, match="certificate verify failed"):
        connect(stranger)("send", Request("GET", "/version"))
    assert server.asked == []
