"""Requests and answers of the Kubernetes API, without a socket.

Both transports (:mod:`tandem.client.sync`, :mod:`tandem.client.aio`) send what is built here and give
back what is read here, so a verb is written once.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

from tandem import errors
from tandem.errors import Cause, TandemError

if TYPE_CHECKING:
    from tandem.client.resources import Resource

Doc = dict[str, Any]
PatchType = Literal["json", "merge", "strategic"]

JSON = "application/json"
TABLE = f"{JSON};as=Table;v=v1;g=meta.k8s.io,{JSON}"
"""Asks for the server's own rendering into columns, and takes objects where it has none."""

_PATCH_TYPES: dict[PatchType, str] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
_LOOPBACK_HINT = "is the daemon running? see: tandem status"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, relative to the server."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON

    @property
    def target(self) -> str:
        """Path and query string."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def headers(self, token: str = "") -> dict[str, str]:
        """The headers to send, with the bearer ``token`` if there is one."""
        headers = {"Accept": self.accept, "User-Agent": "tandem"}
        if self.body is not None:
            headers["Content-Type"] = self.content_type
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a collection: label and field selectors, as the API writes them."""

    labels: str = ""
    fields: str = ""

    def query(self) -> dict[str, str]:
        return {"labelSelector": self.labels, "fieldSelector": self.fields}


ALL = Selection()


def get(resource: Resource, namespace: str, name: str, *, accept: str = JSON) -> Request:
    """Read one object."""
    return Request("GET", resource.path(namespace, name), accept=accept)


def list_(
    resource: Resource,
    namespace: str,
    *,
    select: Selection = ALL,
    limit: int = 0,
    page: str = "",
    accept: str = JSON,
) -> Request:
    """Read a collection; of all namespaces when ``namespace`` is empty."""
    query = select.query() | {"limit": str(limit or ""), "continue": page}
    return Request("GET", resource.path(namespace), _query(query), accept=accept)


def watch(
    resource: Resource,
    namespace: str,
    *,
    since: str = "",
    select: Selection = ALL,
    accept: str = JSON,
) -> Request:
    """Changes to a collection after the revision ``since``."""
    query = select.query() | {"watch": "true", "resourceVersion": since}
    return Request("GET", resource.path(namespace), _query(query), accept=accept)


def create(resource: Resource, namespace: str, doc: Doc, *, strict: bool = False) -> Request:
    """Create an object; with ``strict``, unknown fields are errors instead of warnings."""
    return Request("POST", resource.path(namespace), _validation(strict), _body(doc))


def update(resource: Resource, namespace: str, doc: Doc, *, subresource: str = "") -> Request:
    """Replace an object; its resourceVersion, when set, must still be current."""
    path = resource.path(namespace, doc["metadata"]["name"], subresource)
    return Request("PUT", path, (), _body(doc))


def patch(
    resource: Resource,
    namespace: str,
    name: str,
    change: Any,
    *,
    kind: PatchType = "merge",
    subresource: str = "",
    strict: bool = False,
) -> Request:
    """Change part of an object."""
    return Request(
        "PATCH",
        resource.path(namespace, name, subresource),
        _validation(strict),
        _body(change),
        _PATCH_TYPES[kind],
    )


def delete(
    resource: Resource, namespace: str, name: str, *, grace_seconds: int | None = None
) -> Request:
    """Delete one object; its own grace period unless ``grace_seconds`` says another."""
    options: Doc = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    return Request("DELETE", resource.path(namespace, name), (), _body(options))


@dataclass(frozen=True, slots=True)
class LogSlice:
    """Which part of an output: ``tail`` lines counted from the end, the ``previous`` attempt's."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None

    def query(self) -> dict[str, str]:
        return {
            "follow": _flag(self.follow),
            "previous": _flag(self.previous),
            "timestamps": _flag(self.timestamps),
            "tailLines": "" if self.tail is None else str(self.tail),
        }


WHOLE_LOG = LogSlice()


def log(namespace: str, pod: str, container: str = "", part: LogSlice = WHOLE_LOG) -> Request:
    """The output of a Pod's container."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/log"
    return Request("GET", path, _query({"container": container} | part.query()), accept="*/*")


def machine_log(namespace: str, name: str, part: LogSlice = WHOLE_LOG) -> Request:
    """What a virtual machine wrote to its serial console."""
    path = machine_path(namespace, "virtualmachineinstances", name, "log")
    return Request("GET", path, _query(part.query()), accept="*/*")


def machine_path(namespace: str, resource: str, name: str, subresource: str) -> str:
    """A path of KubeVirt's group of subresources."""
    return (
        f"/apis/subresources.kubevirt.io/v1/namespaces/{quote(namespace, safe='')}"
        f"/{resource}/{quote(name, safe='')}/{subresource}"
    )


def decode(body: bytes) -> Any:
    """A JSON answer. Raises ``BadRequest`` for what is none (a proxy's error page)."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise errors.BadRequest("the server's answer is not JSON") from error


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a stream, however it was cut; an unfinished last one is dropped."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def watch_event(line: bytes) -> tuple[str, Doc]:
    """One line of a watch. Raises the error that an ``ERROR`` event carries."""
    event = decode(line)
    if event["type"] == "ERROR":
        raise error_from_status(event["object"])
    return event["type"], event["object"]


def check(code: int, body: bytes) -> None:
    """Raise the error that an answer is, if it is one."""
    if code < 400:
        return
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        raise error_from_status(status)
    words = " ".join(body.decode("utf-8", "replace").split())[:500]
    raise _class_for("", code)(words or f"the server answered {code}")


def error_from_status(status: Doc) -> TandemError:
    """The error that a ``metav1.Status`` stands for."""
    details = status.get("details") or {}
    causes = [
        Cause(cause.get("field", ""), cause.get("message", ""), cause.get("reason", ""))
        for cause in details.get("causes") or ()
    ]
    kind = _class_for(status.get("reason") or "", status.get("code") or 500)
    message = status.get("message") or f"the server answered {status.get('code')}"
    return kind(message, causes=causes, details={k: v for k, v in details.items() if k != "causes"})


def unreachable(server: str, error: BaseException) -> errors.Unavailable:
    """The error for a server that cannot be talked to."""
    number = getattr(error, "errno", None)
    # An event loop's own words for a refused connection are "Connect call failed".
    words = (
        os.strerror(number)
        if number and number > 0 and not isinstance(error, ssl.SSLError)
        else str(error)
    )
    words = words or type(error).__name__
    return errors.Unavailable(f"cannot reach {server}: {words}", hint=_LOOPBACK_HINT)


def warnings_in(headers: list[str]) -> Iterator[str]:
    """The sentences of ``Warning`` headers (``299 - "text"``)."""
    for header in headers:
        _, _, quoted = header.partition('"')
        yield quoted.rpartition('"')[0].replace('\\"', '"').replace("\\\\", "\\") or header


def _class_for(reason: str, code: int) -> type[TandemError]:
    candidates: list[type[TandemError]] = [TandemError, *_every(TandemError)]
    for kind in candidates:
        if reason and kind.reason == reason:
            return kind
    for kind in candidates:
        if kind.code == code:
            return kind
    return TandemError


def _every(base: type[TandemError]) -> list[type[TandemError]]:
    return [
        kind
        for child in base.__subclasses__()
        if child.__module__ == errors.__name__
        for kind in (child, *_every(child))
    ]


def _query(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in values.items() if value)


def _validation(strict: bool) -> tuple[tuple[str, str], ...]:
    return (("fieldValidation", "Strict" if strict else "Warn"),)


def _flag(value: bool) -> str:
    return "true" if value else ""


def _body(doc: Any) -> bytes:
    return json.dumps(doc, separators=(",", ":"), ensure_ascii=False).encode()
