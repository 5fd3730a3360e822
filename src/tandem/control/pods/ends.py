"""The end of a Pod: its containers ended in their order, how they ended written, what it held given back.

A Pod that has come to its end by itself keeps its containers, for their logs, until it is deleted.
"""

from __future__ import annotations

import asyncio
import logging

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.context import Context
from tandem.control.pods.containerstop import Stopper, running_in
from tandem.control.pods.events import PodEvents
from tandem.control.pods.plan import has_sandbox
from tandem.control.pods.probes import Probes
from tandem.control.pods.spec import grace_left
from tandem.control.pods.status import FINAL, Outcome
from tandem.control.pods.steps import RACE_SECONDS
from tandem.control.pods.volumes import Volumes
from tandem.control.pods.work import Work
from tandem.control.pods.writer import PodWriter
from tandem.control.runtime import Runtime
from tandem.control.workloads import Item, Workloads
from tandem.errors import TandemError
from tandem.runtimes.adapter import RuntimeStatus

logger = logging.getLogger(__name__)


class Endings:
    """Ends Pods. ``works``: what is under way for each, by UID."""

    def __init__(
        self,
        context: Context,
        runtime: Runtime,
        volumes: Volumes,
        stopper: Stopper,
        probes: Probes,
        writer: PodWriter,
        workloads: Workloads,
        works: dict[str, Work],
    ) -> None:
        self._store = context.store
        self._events = PodEvents(context.recorder)
        self._runtime = runtime
        self._volumes = volumes
        self._stopper = stopper
        self._probes = probes
        self._writer = writer
        self._workloads = workloads
        self._works = works
        self._rested: set[str] = set()
        self._gone: set[str] = set()

    # -- by itself ---------------------------------------------------------------------------

    async def finish(
        self,
        item: Item,
        pod: Doc,
        observed: RuntimeStatus | None,
        outcome: Outcome,
        grace: float,
    ) -> None:
        """The Pod is over: end what still runs of it, then say how it ended, then let go."""
        work = self._works.setdefault(item.uid, Work())
        if not work.told:
            work.told = True
            self._tell_end(pod, outcome)
        if running_in(observed) or work.starting or work.killing:
            await self._end_containers(item, pod, observed, work, grace)
            return
        await self._writer.write(item, pod, observed, work, outcome)
        await self.rest(item.uid, observed)

    def _tell_end(self, pod: Doc, outcome: Outcome) -> None:
        if outcome.reason == "DeadlineExceeded":
            self._events.deadline_exceeded(pod, outcome.message)
        elif outcome.reason == "Evicted":
            self._events.evicted(pod, outcome.message)
        elif outcome.reason:
            self._events.rejected(pod, outcome.reason, outcome.message)

    async def rest(self, uid: str, observed: RuntimeStatus | None = None) -> None:
        """Let go of what a Pod that has ended needs no more. Its containers and their logs stay until
        it is deleted."""
        if uid in self._rested:
            return
        await self._let_go(uid, observed or await self._runtime.observe(uid))
        self._rested.add(uid)

    # -- deleted -----------------------------------------------------------------------------

    async def terminate(self, item: Item, pod: Doc) -> None:
        """The Pod is deleted: end it within its grace, write how it ended, remove it.

        Its containers go once it is gone: for as long as it is there, its logs can be read.
        """
        final = get(pod, "status.phase") in FINAL
        observed = None
        # Nothing was started for a Pod that has no node.
        if get(pod, "spec.nodeName"):
            grace = grace_left(pod)
            if grace > 0 and not final:
                observed = await self._runtime.observe(item.uid)
                work = self._works.setdefault(item.uid, Work())
                if running_in(observed) or work.tasks:
                    await self._end_containers(item, pod, observed, work, grace)
                    return
                await self._let_go(item.uid, observed)
            else:
                await self._take_away(item.uid)
        if not final and (observed is not None or pod["metadata"].get("finalizers")):
            await self._writer.write(item, pod, observed, Work(), Outcome())
        await objects.remove(self._store, item.key, item.uid)

    async def discard(self, uid: str) -> None:
        """There is no such Pod any more: nothing of it may stay."""
        if uid not in self._gone:
            await self._take_away(uid)
        self._gone.discard(uid)
        self._rested.discard(uid)

    async def _take_away(self, uid: str) -> None:
        if work := self._works.get(uid):
            await work.stopped()
        await self._runtime.delete(uid, grace_seconds=0)
        await self._volumes.tear_down(uid)
        await self._forget(uid)
        self._gone.add(uid)

    async def _let_go(self, uid: str, observed: RuntimeStatus | None) -> None:
        """Give back all that the Pod held but its containers, which have ended."""
        if has_sandbox(observed):
            await self._runtime.release(uid)
        await self._volumes.tear_down(uid)
        await self._forget(uid)

    async def _forget(self, uid: str) -> None:
        self._probes.forget(uid)
        if work := self._works.pop(uid, None):
            await work.stopped()

    # -- both --------------------------------------------------------------------------------

    async def _end_containers(
        self, item: Item, pod: Doc, observed: RuntimeStatus | None, work: Work, grace: float
    ) -> None:
        """Have all that runs ended beside the loop, and meanwhile tell of what has."""
        if work.ending is None:
            for step in work.starting.values():
                step.cancel()
            work.end(self._ended(item, pod, work, grace))
        if observed is not None:
            self._probes.follow(pod, observed, hidden=work.hidden)
            await self._writer.write(item, pod, observed, work)

    async def _ended(self, item: Item, pod: Doc, work: Work, grace: float) -> None:
        try:
            others = [task for task in work.tasks if task is not asyncio.current_task()]
            await asyncio.gather(*others, return_exceptions=True)
            observed = await self._runtime.observe(item.uid)
            if observed is not None:
                await self._stopper.stop_all(pod, observed, grace=grace, hooked=work.hooked)
        except TandemError as error:
            logger.debug("pod %s cannot be ended: %s", item, error)
            await asyncio.sleep(RACE_SECONDS)
        finally:
            work.ended(asyncio.current_task())
            self._workloads.queue.add(item)
