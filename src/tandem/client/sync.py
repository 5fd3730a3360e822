"""The client on the standard library alone: what the command line starts in a blink with.

Blocking, one kept-alive connection for questions and one more for each stream. Not safe to share
between threads.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tandem.client import request as requests
from tandem.client.kubeconfig import Access
from tandem.client.request import (
    ALL,
    WHOLE_LOG,
    Doc,
    LogSlice,
    PatchType,
    Request,
    Selection,
)
from tandem.client.resources import Resource, Resources, discover
from tandem.errors import DeadlineExceeded, Unavailable

# A get or a write is answered in milliseconds and a delete at once; what takes longer is stuck.
_ANSWER_SECONDS = 60.0
_CONNECT_SECONDS = 10.0

# Of a list, in one answer: bounds memory on both sides, and is what kubectl asks for.
PAGE = 500


class Client:
    """The verbs of the API, objects as plain dicts.

    ``resource`` is a :class:`Resource` or any name of one (``"pods"``, ``"vm"``), looked up once in
    the server's discovery. ``namespace`` None is the kubeconfig's; ``""`` is all of them, where that
    makes sense. All verbs raise :class:`~tandem.errors.TandemError`; ``Unavailable`` when nobody
    answers. ``on_warning`` gets the sentences that the server warns with.
    """

    def __init__(
        self, access: Access, *, on_warning: Callable[[str], None] = lambda _sentence: None
    ) -> None:
        self.access = access
        self._on_warning = on_warning
        self._tls = access.tls()
        self._resources: Resources | None = None
        self._idle: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def resources(self) -> Resources:
        """What the server has, asked once."""
        if self._resources is None:
            questions = discover()
            try:
                question = next(questions)
                while True:
                    question = questions.send(self.send(question))
            except StopIteration as end:
                self._resources = end.value
        assert self._resources is not None
        return self._resources

    def get(self, resource: str | Resource, name: str, *, namespace: str | None = None) -> Doc:
        """One object. Raises ``NotFound``."""
        kind = self._resource(resource)
        return self._doc(requests.get(kind, self._namespace(namespace), name))

    def list(
        self, resource: str | Resource, *, namespace: str | None = None, select: Selection = ALL
    ) -> Doc:
        """A ``List`` document with every object that is selected, read in pages."""
        kind, space = self._resource(resource), self._namespace(namespace)
        whole = self._doc(requests.list_(kind, space, select=select, limit=PAGE))
        while page := whole["metadata"].pop("continue", ""):
            more = self._doc(requests.list_(kind, space, select=select, limit=PAGE, page=page))
            whole["items"] += more["items"]
            whole["metadata"] = more["metadata"]
        return whole

    def create(
        self,
        resource: str | Resource,
        doc: Doc,
        *,
        namespace: str | None = None,
        strict: bool = False,
    ) -> Doc:
        """Create an object. Raises ``AlreadyExists``, ``InvalidSpec``."""
        kind = self._resource(resource)
        return self._doc(requests.create(kind, self._namespace(namespace), doc, strict=strict))

    def update(
        self,
        resource: str | Resource,
        doc: Doc,
        *,
        namespace: str | None = None,
        subresource: str = "",
    ) -> Doc:
        """Replace an object. Raises ``Conflict`` when it changed since it was read."""
        kind, space = self._resource(resource), self._namespace(namespace)
        return self._doc(requests.update(kind, space, doc, subresource=subresource))

    def patch(
        self,
        resource: str | Resource,
        name: str,
        change: Any,
        *,
        namespace: str | None = None,
        type: PatchType = "merge",
        subresource: str = "",
        strict: bool = False,
    ) -> Doc:
        """Change part of an object."""
        kind, space = self._resource(resource), self._namespace(namespace)
        return self._doc(
            requests.patch(
                kind, space, name, change, kind=type, subresource=subresource, strict=strict
            )
        )

    def delete(
        self,
        resource: str | Resource,
        name: str,
        *,
        namespace: str | None = None,
        grace_seconds: int | None = None,
    ) -> Doc:
        """Delete an object; returns when that is noted, which may be before it has ended."""
        kind, space = self._resource(resource), self._namespace(namespace)
        return self._doc(requests.delete(kind, space, name, grace_seconds=grace_seconds))

    def watch(
        self,
        resource: str | Resource,
        *,
        namespace: str | None = None,
        since: str = "",
        select: Selection = ALL,
    ) -> Iterator[tuple[str, Doc]]:
        """``(type, object)`` for each change after revision ``since`` (as a list has it).

        Ends when the server ends the watch; raises ``Expired`` when ``since`` is too old.
        """
        kind, space = self._resource(resource), self._namespace(namespace)
        lines = self.lines(requests.watch(kind, space, since=since, select=select))
        return (requests.watch_event(line) for line in lines)

    def log(
        self,
        name: str,
        container: str = "",
        *,
        namespace: str | None = None,
        part: LogSlice = WHOLE_LOG,
    ) -> Iterator[bytes]:
        """A container's output in chunks, as they come."""
        return self.stream(requests.log(self._namespace(namespace), name, container, part))

    def machine_log(
        self, name: str, *, namespace: str | None = None, part: LogSlice = WHOLE_LOG
    ) -> Iterator[bytes]:
        """What a virtual machine wrote to its serial console, in chunks, as they come."""
        return self.stream(requests.machine_log(self._namespace(namespace), name, part))

    def send(self, question: Request) -> Any:
        """Send any request; its answer's JSON (None for an empty one)."""
        with self._answered(question) as answer:
            body = answer.read()
        requests.check(answer.status, body)
        return requests.decode(body) if body else None

    def lines(self, question: Request) -> Iterator[bytes]:
        """Send any request; its answer's lines, as they come."""
        return requests.split_lines(self.stream(question))

    def stream(self, question: Request) -> Iterator[bytes]:
        """Send any request; its answer in chunks, as they come. Asks before it returns."""
        connection = self._connect()
        try:
            answer = self._ask(connection, question)
            if answer.status >= 400:
                requests.check(answer.status, answer.read())
            if connection.sock is not None:
                connection.sock.settimeout(None)  # a quiet stream is not a stuck one
        except BaseException:
            connection.close()
            raise
        return self._chunks(connection, answer)

    def _doc(self, question: Request) -> Doc:
        doc: Doc = self.send(question)
        return doc

    def _resource(self, resource: str | Resource) -> Resource:
        return resource if isinstance(resource, Resource) else self.resources().find(resource)

    def _namespace(self, namespace: str | None) -> str:
        return self.access.namespace if namespace is None else namespace

    def _connect(self) -> http.client.HTTPConnection:
        address = urlsplit(self.access.server)
        assert address.hostname, "Access.server is a URL"
        if self._tls is None:
            return http.client.HTTPConnection(
                address.hostname, address.port or 80, timeout=_CONNECT_SECONDS
            )
        return _TlsConnection(
            address.hostname,
            address.port or 443,
            tls=self._tls,
            server_name=self.access.server_name or address.hostname,
        )

    @contextmanager
    def _answered(self, question: Request) -> Iterator[http.client.HTTPResponse]:
        connection, self._idle = self._idle, None
        reused = connection is not None
        connection = connection or self._connect()
        try:
            try:
                answer = self._ask(connection, question)
            except Unavailable:
                # The server may close a connection that was idle, just as we use it. Asking twice is
                # harmless only for a question.
                if not reused or question.method != "GET":
                    raise
                connection.close()
                connection = self._connect()
                answer = self._ask(connection, question)
            with self._wrapped():
                yield answer
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self._idle = connection

    def _ask(
        self, connection: http.client.HTTPConnection, question: Request
    ) -> http.client.HTTPResponse:
        path = urlsplit(self.access.server).path + question.target
        with self._wrapped():
            headers = question.headers(self.access.token)
            connection.request(question.method, path, question.body, headers)
            if connection.sock is not None:
                connection.sock.settimeout(_ANSWER_SECONDS)
            answer = connection.getresponse()
        for sentence in requests.warnings_in(answer.headers.get_all("Warning", [])):
            self._on_warning(sentence)
        return answer

    def _chunks(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> Iterator[bytes]:
        try:
            while True:
                with self._wrapped():
                    chunk = answer.read1(1 << 16)
                if not chunk:
                    return
                yield chunk
        finally:
            connection.close()

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.access.server} did not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            raise requests.unreachable(self.access.server, error) from error


class _TlsConnection(http.client.HTTPConnection):
    """``HTTPSConnection``, for a server whose certificate may bear another name than its address."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext, server_name: str) -> None:
        super().__init__(host, port, timeout=_CONNECT_SECONDS)
        self._context, self._server_name = tls, server_name

    def connect(self) -> None:
        """Connect and shake hands."""
        super().connect()
        plain: socket.socket = self.sock
        self.sock = self._context.wrap_socket(plain, server_hostname=self._server_name)
