"""Kubernetes' URL scheme: which resource, object and verb a path names.

    /api/VERSION/...                core group
    /apis/GROUP/VERSION/...         every other group
    .../namespaces/NS/RESOURCE/NAME/SUBRESOURCE[/more]
    .../RESOURCE/NAME               cluster-scoped, or a list over all namespaces
    .../watch/...                   the older spelling of ?watch=1

Nothing here knows which kinds exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Target:
    """What a path below a group and version names; empty strings for what it leaves out.

    ``subresource`` is the first segment after the name, ``rest`` those after it.
    """

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: tuple[str, ...] = ()
    watch: bool = False


def split(raw_path: str) -> list[str]:
    """The path's segments, decoded one by one so that an encoded slash stays in its segment."""
    segments = raw_path.strip("/").split("/")
    return [unquote(segment) for segment in segments] if segments != [""] else []


def parse(segments: list[str]) -> Target | None:
    """The resource that ``segments`` name, or None when they end before one or are none of ours."""
    if len(segments) >= 3 and segments[0] == "api":
        group, version, rest = "", segments[1], segments[2:]
    elif len(segments) >= 4 and segments[0] == "apis":
        group, version, rest = segments[1], segments[2], segments[3:]
    else:
        return None
    watch = rest[0] == "watch" and len(rest) > 1
    if watch:
        rest = rest[1:]
    namespace = ""
    # /namespaces/NS and /namespaces/NS/status are the Namespace itself; a third segment that is no
    # subresource of it is a resource inside the namespace.
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource, *more = [*rest, "", ""][: max(3, len(rest))]
    if "" in rest:
        return None
    return Target(group, version, resource, namespace, name, subresource, tuple(more), watch)
