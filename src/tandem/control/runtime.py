"""A runtime as the loops use it: bounded, followed, and told apart from being away.

The adapter says what a runtime does; this says how much of it at once, for how long at most, and what
becomes of events, of lists, and of the time when nobody answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from tandem.errors import DeadlineExceeded, NotFound, TandemError, Unsupported
from tandem.runtimes.adapter import (
    EventKind,
    Fingerprint,
    RuntimeAdapter,
    RuntimeSpec,
    RuntimeStatus,
)
from tandem.runtimes.capabilities import Containers, Images, PulledImage, RegistryCredentials

logger = logging.getLogger(__name__)

CREATES_AT_ONCE = 8
"""Starting a workload is CPU-bound, and four at once are as fast as it gets on two cores; a few more
keep the others going while one pulls an image."""

DELETES_AT_ONCE = 256
"""Most of a delete, or of a stop, is waiting for a grace period."""

PULLS_AT_ONCE = 64
"""Adapters have a bound of their own, and equal pulls are one; this one keeps a registry that stalls
from holding more than so many."""

CALL_SECONDS = 60.0
CREATE_SECONDS = 3600.0
"""A last resort: adapters have limits of their own, and a large image takes a while."""

RECONNECT_SECONDS = 1.0
CHECK_SECONDS = 5.0


class Runtime:
    """One adapter, shared by the loops that use it.

    ``echoes``: the kinds of events that only tell what our own calls have done. They are not passed
    on, because the calls have returned the same.
    """

    def __init__(self, adapter: RuntimeAdapter, *, echoes: Collection[EventKind] = ()) -> None:
        self.adapter = adapter
        self.name = adapter.name
        self.fingerprint: Fingerprint | None = None
        self._echoes = frozenset(echoes)
        # Asked once: a protocol looks at each of its methods every time.
        self._containers = adapter if isinstance(adapter, Containers) else None
        self._images = adapter if isinstance(adapter, Images) else None
        self._creates = asyncio.Semaphore(CREATES_AT_ONCE)
        self._deletes = asyncio.Semaphore(DELETES_AT_ONCE)
        self._pulls = asyncio.Semaphore(PULLS_AT_ONCE)
        self._known: dict[str, RuntimeStatus] = {}
        self._calling: dict[str, object] = {}
        self._following = False
        self.found: frozenset[str] | None = None
        """The ids of all workloads as the loops began; None: the runtime did not say in time."""

    # -- calls -------------------------------------------------------------------------------

    async def create(self, spec: RuntimeSpec) -> RuntimeStatus:
        """As the adapter's."""
        async with self._creates, _limit(CREATE_SECONDS, f"creating {spec.id}"):
            return await self._status_of(spec.id, self.adapter.create(spec))

    async def delete(self, id: str, *, grace_seconds: float) -> None:
        """As the adapter's."""
        self._forget(id)
        async with self._deletes, _limit(grace_seconds + CREATE_SECONDS, f"deleting {id}"):
            await self.adapter.delete(id, grace_seconds=grace_seconds)
        self._forget(id)

    async def observe(self, id: str) -> RuntimeStatus | None:
        """How the workload is; None when there is none.

        What the last list said, or the last call that started something, is taken once, unless
        something has happened to the workload since: that spares a call for each workload when a
        daemon starts with a thousand of them, and for each container that is started.
        """
        if known := self._known.pop(id, None):
            return known
        try:
            async with _limit(CALL_SECONDS, f"asking for the status of {id}"):
                return await self.adapter.get_status(id)
        except NotFound:
            return None

    async def start_container(
        self, id: str, container: Mapping[str, Any], *, attempt: int
    ) -> RuntimeStatus:
        """As the ``Containers`` capability's, which every runtime of Pods has."""
        if (adapter := self._containers) is None:
            raise self._lacks("start and stop single containers")
        async with self._creates, _limit(CREATE_SECONDS, f"starting a container of {id}"):
            call = adapter.start_container(id, container, attempt=attempt)
            return await self._status_of(id, call)

    async def stop_container(self, id: str, container: str, *, grace_seconds: float) -> None:
        """As the ``Containers`` capability's."""
        if (adapter := self._containers) is None:
            raise self._lacks("start and stop single containers")
        what = f"stopping container {container} of {id}"
        async with self._deletes, _limit(grace_seconds + CREATE_SECONDS, what):
            await adapter.stop_container(id, container, grace_seconds=grace_seconds)
        self._forget(id)

    async def release(self, id: str) -> None:
        """As the ``Containers`` capability's."""
        if (adapter := self._containers) is None:
            raise self._lacks("start and stop single containers")
        async with self._deletes, _limit(CREATE_SECONDS, f"releasing {id}"):
            await adapter.release(id)
        self._forget(id)

    async def pull_image(
        self, image: str, *, pull_policy: str, credentials: Sequence[RegistryCredentials] = ()
    ) -> PulledImage:
        """As the ``Images`` capability's."""
        if (adapter := self._images) is None:
            raise self._lacks("pull images")
        async with self._pulls, _limit(CREATE_SECONDS, f"pulling {image}"):
            return await adapter.pull_image(image, pull_policy=pull_policy, credentials=credentials)

    def _lacks(self, what: str) -> Unsupported:
        return Unsupported(f"the runtime {self.name} does not {what}")

    async def _status_of(self, id: str, call: Awaitable[RuntimeStatus]) -> RuntimeStatus:
        """What ``call`` returns; kept for :meth:`observe` if nothing else happened meanwhile."""
        self._forget(id)
        token = self._calling[id] = object()
        status: RuntimeStatus | None = None
        try:
            status = await call
            return status
        finally:
            if self._calling.get(id) is token:
                del self._calling[id]
                if status is not None:
                    self._known[id] = status
            else:
                self._known.pop(id, None)

    def _forget(self, id: str) -> None:
        """Something has happened to the workload, or is about to."""
        self._known.pop(id, None)
        self._calling.pop(id, None)

    # -- following ---------------------------------------------------------------------------

    async def follow(
        self,
        changed: Callable[[str], None],
        listed: Callable[[Sequence[RuntimeStatus]], None],
    ) -> None:
        """Call ``changed`` with the id of every workload that changed, and ``listed`` with all of them
        whenever events may have been missed. Runs until cancelled, whatever the runtime does."""
        while True:
            try:
                async for event in self.adapter.events():
                    if event.kind is EventKind.RESYNC:
                        await self._list(listed)
                    elif event.kind not in self._echoes:
                        self._forget(event.id)
                        changed(event.id)
            except TandemError as error:
                logger.warning("%s: events stopped: %s", self.name, error)
            except Exception:
                logger.exception("%s: events failed", self.name)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def prime(self) -> None:
        """Ask who the runtime is, and take what it lists as what :meth:`observe` first says."""
        if not (await self.check()).healthy:
            return
        statuses = await self.adapter.list()
        if not self._following:  # else the events since this list have been heard already
            self._known = {status.spec_id: status for status in statuses}
            self.found = frozenset(self._known)

    async def _list(self, listed: Callable[[Sequence[RuntimeStatus]], None]) -> None:
        # What happens from here on comes as events, after this list: nothing is overlooked.
        self._following = True
        async with _limit(CALL_SECONDS, "listing workloads"):
            statuses = await self.adapter.list()
        self._known = {status.spec_id: status for status in statuses}
        listed(statuses)
        await self._report_strangers()

    async def _report_strangers(self) -> None:
        with contextlib.suppress(TandemError):
            async with _limit(CALL_SECONDS, "listing strangers"):
                strangers = await self.adapter.list(strangers=True)
            if strangers:
                logger.info(
                    "%s also runs %d workloads that are not ours; they are left alone",
                    self.name,
                    len(strangers),
                )

    # -- health ------------------------------------------------------------------------------

    async def watch_health(self, turned: Callable[[], None]) -> None:
        """Keep ``fingerprint`` true, and call ``turned`` whenever the runtime goes away or comes back."""
        before: bool | None = None
        while True:
            fingerprint = await self.check()
            if fingerprint.healthy is not before:
                if fingerprint.healthy:
                    logger.info("%s %s is there", fingerprint.name, fingerprint.version)
                else:
                    logger.warning("%s is away: %s", self.name, fingerprint.problem)
                if before is not None:
                    turned()
                before = fingerprint.healthy
            await asyncio.sleep(CHECK_SECONDS)

    async def check(self) -> Fingerprint:
        """Ask the runtime how it is."""
        try:
            async with _limit(CALL_SECONDS, "asking for the fingerprint"):
                self.fingerprint = await self.adapter.fingerprint()
        except TandemError as error:
            self.fingerprint = Fingerprint(self.name, "", False, str(error), error.hint or "")
        except Exception as error:
            logger.exception("%s: the fingerprint failed", self.name)
            self.fingerprint = Fingerprint(self.name, "", False, f"{error}", "see the daemon's log")
        return self.fingerprint


@contextlib.asynccontextmanager
async def _limit(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"{what} took longer than {seconds:.0f} s") from error


class Operations:
    """Long calls that a change of mind interrupts: at most one for each object."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def run(self, uid: str, call: Callable[[], Any]) -> bool:
        """Await ``call()``; False when :meth:`interrupt` ended it. Its errors are raised here."""
        task = asyncio.ensure_future(call())
        self._running[uid] = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            self._running.pop(uid, None)
        if task.cancelled():
            return False
        task.result()
        return True

    def interrupt(self, uid: str) -> None:
        """End the object's running call, if there is one; what it began is undone by the adapter."""
        if task := self._running.get(uid):
            task.cancel()
