"""Ending containers: the preStop hook, the signal, and at last force, all within the grace period."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from tandem.api.kind import Doc
from tandem.api.kinds.resources import is_sidecar
from tandem.api.meta import get
from tandem.control.pods.events import PodEvents
from tandem.control.pods.handlers import Handlers
from tandem.control.pods.plan import ENDED, Role
from tandem.control.pods.spec import containers_of
from tandem.control.recorder import Recorder
from tandem.control.runtime import Runtime
from tandem.runtimes.adapter import Phase, RuntimeStatus

LEAST_SECONDS = 2.0
"""What is left at least for a container to end by itself, whatever its hook has taken."""


class Stopper:
    """Ends containers of Pods, one or all."""

    def __init__(self, runtime: Runtime, handlers: Handlers, recorder: Recorder) -> None:
        self._runtime = runtime
        self._handlers = handlers
        self._events = PodEvents(recorder)

    async def stop(
        self,
        pod: Doc,
        role: Role,
        container: Doc,
        *,
        grace: float,
        message: str = "",
        hooked: set[str] | None = None,
        after: Collection[asyncio.Task[None]] = (),
    ) -> None:
        """End one container. ``after``: what must have ended before it is asked to, unless the grace
        runs out. ``hooked``: the containers whose hook has been run, which is not run twice."""
        name = container["name"]
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        self._events.of(pod, role, container).killing(message)
        hook = get(container, "lifecycle.preStop")
        if hook and grace > 0 and (hooked is None or name not in hooked):
            if hooked is not None:
                hooked.add(name)
            await self._run_hook(pod, role, container, hook, grace)
        if after and grace > 0:
            await asyncio.wait(after, timeout=max(0.0, until - loop.time()))
        left = max(until - loop.time(), LEAST_SECONDS) if grace > 0 else 0.0
        uid = pod["metadata"]["uid"]
        await self._runtime.stop_container(uid, name, grace_seconds=left)

    async def _run_hook(
        self, pod: Doc, role: Role, container: Doc, hook: Doc, grace: float
    ) -> None:
        outcome = await self._handlers.hook(hook, pod, container, timeout=grace)
        if not outcome.ok:
            self._events.of(pod, role, container).hook_failed("PreStop")

    async def stop_all(
        self, pod: Doc, observed: RuntimeStatus, *, grace: float, hooked: set[str]
    ) -> None:
        """End all that runs: the containers at once, then the sidecars, the last first."""
        running = running_in(observed)
        found = [(role, c) for role, c in containers_of(pod) if c["name"] in running]
        sidecars = [c for role, c in found if role is Role.INIT and is_sidecar(c)]
        tasks: list[asyncio.Task[None]] = []

        def begin(role: Role, container: Doc, after: Sequence[asyncio.Task[None]]) -> None:
            work = self.stop(pod, role, container, grace=grace, hooked=hooked, after=after)
            tasks.append(_task(work, f"stop {container['name']}"))

        for role, container in found:
            if container not in sidecars:
                begin(role, container, ())
        for container in reversed(sidecars):
            begin(Role.INIT, container, list(tasks))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def running_in(observed: RuntimeStatus | None) -> set[str]:
    """The names of the containers that have not ended."""
    if observed is None:
        return set()
    return {c.name for c in observed.containers if c.phase not in (*ENDED, Phase.PENDING)}


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)
