"""Asking containers to end, and ending them.

A container's own stop signal, where the Pod says one, is given by us: containerd before 2.1 knows only
the one that the image says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import signal
import time
from collections.abc import Awaitable, Callable

from tandem.errors import DeadlineExceeded, NotFound, TandemError, Unavailable, Unsupported
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri._gen.containerd_tasks_pb2 import KillRequest
from tandem.runtimes.cri.aio import together
from tandem.runtimes.cri.client import KILL_TASK, STOP_CONTAINER, CriClient
from tandem.runtimes.cri.container import ANNOTATION_STOP_SIGNAL
from tandem.runtimes.cri.pods import Pods

_log = logging.getLogger(__name__)

_PAUSES = (0.05, 0.1, 0.2, 0.4)  # seconds between the tries of one step of a stop or a removal
_STOP_MARGIN = 60.0  # seconds that a stop may take beyond its grace, on a busy host
_LOOK_INTERVAL = 0.05  # seconds, while a container that we have signalled ends


class Stopper:
    """Stops containers of one runtime."""

    def __init__(self, client: CriClient, pods: Pods) -> None:
        self._client = client
        self._pods = pods

    async def stop(self, sandbox: str, grace_seconds: float, *, only: str = "") -> None:
        """Ask what runs in a sandbox (or ``only`` the container of that name) to end, each within
        the grace; then it is killed."""
        await together(
            self._stop(item, grace_seconds)
            for item in await self._pods.containers(sandbox)
            if item.state == cri.CONTAINER_RUNNING and only in ("", item.metadata.name)
        )

    async def _stop(self, container: cri.Container, grace_seconds: float) -> None:
        name = container.annotations.get(ANNOTATION_STOP_SIGNAL)
        if name and grace_seconds > 0 and await self._ask(container.id, name, grace_seconds):
            grace_seconds = 0
        seconds = math.ceil(grace_seconds)  # CRI knows whole ones only
        request = cri.StopContainerRequest(container_id=container.id, timeout=seconds)
        limit = seconds + _STOP_MARGIN
        await insist(lambda: self._client.call(STOP_CONTAINER, request, timeout=limit))

    async def _ask(self, container: str, name: str, grace_seconds: float) -> bool:
        """Send a signal and wait for the end; False where the runtime itself must do that."""
        request = KillRequest(container_id=container, signal=signal_number(name))
        deadline = time.monotonic() + grace_seconds
        try:
            await self._client.call(KILL_TASK, request)
        except Unsupported:
            return False
        except NotFound:  # it has just ended
            return True
        while time.monotonic() < deadline:
            status = await self._pods.container(container)
            if status is None or status.state != cri.CONTAINER_RUNNING:
                break
            await asyncio.sleep(_LOOK_INTERVAL)
        return True


def signal_number(name: str) -> int:
    """The number of a signal by its name: ``SIGUSR1``, ``SIGRTMIN+3``, ``SIGRTMAX-1``."""
    match = re.fullmatch(r"(SIGRT(?:MIN|MAX))([+-][0-9]+)", name)
    if match is None:
        return signal.Signals[name].value
    return signal.Signals[match[1]].value + int(match[2])


async def insist(step: Callable[[], Awaitable[object]]) -> None:
    """Take a step of a stop or a removal, for which what is gone already is success.

    A container that ends by itself in the moment in which it is killed makes the runtime fail
    ("ttrpc: closed"); the next try finds it ended.
    """
    for pause in _PAUSES:
        try:
            await step()
        except NotFound:
            return
        except (Unavailable, DeadlineExceeded):
            raise
        except TandemError as error:
            _log.info("trying again: %s", error.message)
            await asyncio.sleep(pause)
        else:
            return
    with contextlib.suppress(NotFound):
        await step()
