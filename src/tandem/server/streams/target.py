"""Which container a stream is for, and which streams the client has asked for.

Codes and words are kube-apiserver's and the kubelet's.
"""

from __future__ import annotations

from dataclasses import dataclass

from tandem.api.kind import Doc
from tandem.errors import BadRequest
from tandem.server.query import Query

_LISTS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The streams of one exec or attach, as the client counts them."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def wanted_streams(query: Query) -> Wanted:
    """The streams that the query asks for. Raises ``BadRequest`` when it asks for none."""
    stdin, stdout, stderr, tty = map(query.flag, ("stdin", "stdout", "stderr", "tty"))
    # A terminal has one output. Clients that ask for both do not get, and do not open, the second.
    stderr = stderr and not tty
    if not (stdin or stdout or stderr):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    return Wanted(stdin, stdout, stderr, tty)


def choose_container(pod: Doc, name: str) -> Doc:
    """The container document that is meant. Raises ``BadRequest`` when that is not clear."""
    spec, pod_name = pod["spec"], pod["metadata"]["name"]
    if name:
        for field in _LISTS:
            for container in spec.get(field) or ():
                if container["name"] == name:
                    found: Doc = container
                    return found
        raise BadRequest(f"container {name} is not valid for pod {pod_name}")
    containers: list[Doc] = spec["containers"]
    if len(containers) == 1:
        return containers[0]
    words = f"a container name must be specified for pod {pod_name}, choose one of: "
    words += f"[{' '.join(container['name'] for container in containers)}]"
    if init := spec.get("initContainers"):
        words += f" or one of the init containers: [{' '.join(item['name'] for item in init)}]"
    raise BadRequest(words)
