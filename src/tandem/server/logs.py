"""The output of containers and the serial console of virtual machines, as plain text streams.

The rules and their wording are the kubelet's, which people and ``kubectl logs`` know; the bytes come
from the adapter's ``Logs`` capability and pass through as they are.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from aiohttp import HttpVersion11, web

from tandem.api import causes, meta
from tandem.api.kind import Doc
from tandem.errors import BadRequest, Cause, InvalidSpec, TandemError, Unavailable
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.runtimes.capabilities import LogOptions, Logs
from tandem.server.call import Api, Call
from tandem.server.query import Query

# How long an answer waits for the first output or error before it begins: an error that comes at
# once is then a Status, and a follower of a silent container still gets its headers.
_FIRST_OUTPUT = 1.0


async def pod_log(api: Api, call: Call) -> web.StreamResponse:
    """GET pods/NAME/log: one container's output."""
    pod = api.store.get(call.key)
    options = log_options(call.query)
    container = choose_container(pod, call.query.text("container"))
    status = container_status(pod, container)
    check_container_started(pod, container, status, previous=options.previous)
    if options.previous and "waiting" in (status.get("state") or {}):
        # The next attempt is not there yet: what the runtime has last is the one before it.
        options = dataclasses.replace(options, previous=False, follow=False)
    return await _stream(api, call, "container", pod["metadata"]["uid"], container, options)


async def machine_log(api: Api, call: Call) -> web.StreamResponse:
    """GET virtualmachineinstances/NAME/log: what the guest wrote to its serial console."""
    machine = api.store.get(call.key)
    options = log_options(call.query)
    return await _stream(api, call, "vm", machine["metadata"]["uid"], "", options)


def log_options(query: Query) -> LogOptions:
    """PodLogOptions from the query. Raises ``InvalidSpec`` as the kubelet's validation does."""
    tail, since, limit = (
        query.integer(name) for name in ("tailLines", "sinceSeconds", "limitBytes")
    )
    since_time = query.text("sinceTime")
    found: list[Cause] = []
    if tail is not None and tail < 0:
        found.append(causes.invalid("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        found.append(causes.invalid("limitBytes", limit, "must be greater than 0"))
    if since is not None and since < 1:
        found.append(causes.invalid("sinceSeconds", since, "must be greater than 0"))
    if since is not None and since_time:
        found.append(
            causes.forbidden(
                "sinceSeconds", "at most one of `sinceTime` or `sinceSeconds` may be specified"
            )
        )
    if query.text("stream") not in ("", "All"):
        found.append(causes.forbidden("stream", "both streams are kept as one here"))
    moment: datetime | None = None
    if since_time:
        try:
            moment = meta.parse_time(since_time)
        except ValueError:
            found.append(causes.invalid("sinceTime", since_time, "must be an RFC 3339 time"))
    if found:
        raise InvalidSpec(
            f'PodLogOptions "" is invalid: {causes.describe(found)}',
            causes=found,
            details={"kind": "PodLogOptions"},
        )
    if since is not None:
        moment = datetime.now(UTC) - timedelta(seconds=since)
    return LogOptions(
        follow=query.flag("follow"),
        previous=query.flag("previous"),
        timestamps=query.flag("timestamps"),
        tail_lines=tail,
        since=moment,
        limit_bytes=limit,
    )


def choose_container(pod: Doc, wanted: str) -> str:
    """The container whose output is meant. Raises ``BadRequest`` when that is not clear."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    containers, init, later = (
        [container["name"] for container in spec.get(field) or ()]
        for field in ("containers", "initContainers", "ephemeralContainers")
    )
    if wanted:
        if wanted not in (*containers, *init, *later):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(containers) == 1:
        return str(containers[0])
    choices = f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
    if init:
        choices += f" or one of the init containers: [{' '.join(init)}]"
    if later:
        choices += f" or one of the ephemeral containers: [{' '.join(later)}]"
    raise BadRequest(choices)


def container_status(pod: Doc, container: str) -> Doc:
    """What the Pod's status says of it, empty when that is nothing yet."""
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(field) or ():
            if entry["name"] == container:
                return dict(entry)
    return {}


def check_container_started(pod: Doc, container: str, found: Doc, *, previous: bool) -> None:
    """Refuse to read what has not been written yet; ``found`` is the container's status. Raises
    ``BadRequest``."""
    name = pod["metadata"]["name"]
    if not found:
        raise BadRequest(
            f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
        )
    last = (found.get("lastState") or {}).get("terminated")
    if previous:
        if not last:
            raise BadRequest(
                f'previous terminated container "{container}" in pod "{name}" not found'
            )
        return
    waiting = (found.get("state") or {}).get("waiting")
    if waiting is None or last:
        return
    reason = waiting.get("reason") or "ContainerCreating"
    words = {
        "ErrImagePull": "image can't be pulled",
        "ImagePullBackOff": "trying and failing to pull image",
    }.get(reason, reason)
    raise BadRequest(f'container "{container}" in pod "{name}" is waiting to start: {words}')


async def _stream(
    api: Api, call: Call, runtime: str, id_: str, container: str, options: LogOptions
) -> web.StreamResponse:
    source = _logs(api.adapters.get(runtime), runtime).logs(
        id_, container=container, options=options
    )
    task = asyncio.current_task()
    assert task is not None
    api.streams.add(task)
    first = asyncio.ensure_future(_next(source))
    try:
        await asyncio.wait([first], timeout=_FIRST_OUTPUT)
        if first.done():
            first.result()  # an error is still an answer of its own
        response = web.StreamResponse(
            headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"}
        )
        if call.request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(call.request)
        try:
            chunk = await first
            while chunk is not None:
                await response.write(chunk)
                chunk = await _next(source)
        except TandemError as error:
            # Too late for a Status: the reader is told where they look.
            await response.write(f"{error.message}\n".encode())
        await response.write_eof()
        return response
    finally:
        api.streams.discard(task)
        if not first.done():
            first.cancel()
            await asyncio.wait([first])
        if close := getattr(source, "aclose", None):
            await close()


async def _next(source: AsyncIterator[bytes]) -> bytes | None:
    return await anext(source, None)


def _logs(adapter: RuntimeAdapter | None, runtime: str) -> Logs:
    if not isinstance(adapter, Logs):
        raise Unavailable(f"no {runtime} runtime here keeps logs")
    return adapter
