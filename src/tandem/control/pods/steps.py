"""The steps of a Pod's containers: when each is due, and what becomes of it, beside the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from tandem.api.kind import Doc
from tandem.control.backoff import duration
from tandem.control.pods.containerstart import Failure, Starter
from tandem.control.pods.containerstatus import Waiting
from tandem.control.pods.containerstop import Stopper
from tandem.control.pods.events import PodEvents, described
from tandem.control.pods.plan import Kill, Plan, Start
from tandem.control.pods.probes import Probes
from tandem.control.pods.spec import container_named, grace_left
from tandem.control.pods.work import PULL_HOLDS_SECONDS, Step, Work
from tandem.control.recorder import Recorder
from tandem.control.workloads import PULL_SHOWN_SECONDS, Item, Workloads
from tandem.errors import Conflict, NotFound, TandemError, Unavailable
from tandem.runtimes.adapter import RuntimeStatus

logger = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""After how long a container is tried again whose configuration was wrong, as the kubelet does it."""

RACE_SECONDS = 0.5
"""The same, where its sandbox was not what it seemed: what has happened to it will be known by then."""


class Steps:
    """Begins what a plan asks for. The Pod is looked at again when a step has ended."""

    def __init__(
        self,
        recorder: Recorder,
        starter: Starter,
        stopper: Stopper,
        probes: Probes,
        workloads: Workloads,
    ) -> None:
        self._events = PodEvents(recorder)
        self._starter = starter
        self._stopper = stopper
        self._probes = probes
        self._workloads = workloads

    # -- when --------------------------------------------------------------------------------

    def due(self, pod: Doc, work: Work, steps: Plan) -> tuple[list[Start], float | None]:
        """The starts whose time has come, and when that of the next comes."""
        due: list[Start] = []
        wait: float | None = None
        for start in steps.start:
            if (step := work.starting.get(start.name)) is not None:
                if step.image != container_named(pod, start.role, start.name)["image"]:
                    step.cancel()  # it has another image by now
                continue
            if start.name in work.killing:
                continue
            remaining = self._remaining(pod, start, work)
            if remaining > 0:
                wait = sooner(wait, remaining)
            else:
                due.append(start)
        for name in set(work.waiting) - {start.name for start in steps.start}:
            work.waiting.pop(name)
        return due, wait

    def _remaining(self, pod: Doc, start: Start, work: Work) -> float:
        """Seconds until a container may be started, and why not now."""
        container = container_named(pod, start.role, start.name)
        events = self._events.of(pod, start.role, container)
        shown = work.waiting.get(start.name)
        name, image = start.name, container["image"]
        if start.ended is not None:
            remaining = work.backoff.ended(("restart", name), start.ended.container_id)
            if remaining > 0:
                if shown is None or shown.reason != "CrashLoopBackOff":
                    events.restart_back_off()
                whole = duration(work.backoff.delay(("restart", name)))
                message = (
                    f"back-off {whole} restarting failed container={name} pod={described(pod)}"
                )
                work.waiting[name] = Waiting("CrashLoopBackOff", message)
                return remaining
        pull = ("pull", image)
        if (remaining := work.backoff.remaining(pull)) > 0:
            fresh = PULL_SHOWN_SECONDS - (work.backoff.delay(pull) - remaining)
            if shown is not None and shown.reason != "ImagePullBackOff":
                if fresh > 0:
                    return min(fresh, remaining)
                events.pull_back_off()
                message = f'Back-off pulling image "{image}": {shown.reason}: {shown.message}'
                work.waiting[name] = Waiting("ImagePullBackOff", message)
            return remaining
        return work.backoff.remaining(("retry", name))

    # -- starting ----------------------------------------------------------------------------

    def start(
        self, item: Item, pod: Doc, starts: Sequence[Start], addresses: Sequence[str], work: Work
    ) -> float | None:
        """Begin to start containers, in their order; returns the seconds after which the next one's
        turn may come, None when all have begun."""
        loop = asyncio.get_running_loop()
        for start in starts:
            if work.holds(loop.time()):
                return PULL_HOLDS_SECONDS
            image = container_named(pod, start.role, start.name)["image"]
            steps = partial(self._started, item, pod, start, addresses, work)
            work.start(start.name, image, steps)
        return None

    async def _started(
        self,
        item: Item,
        pod: Doc,
        start: Start,
        addresses: Sequence[str],
        work: Work,
        step: Step,
    ) -> None:
        """A container's start, beside the loop."""
        container = container_named(pod, start.role, start.name)
        try:
            failure = await self._starter.pull(pod, start.role, container)
            step.pulling = False
            if failure is None:
                failure = await self._starter.run(
                    pod, start.role, container, attempt=start.attempt, addresses=addresses
                )
        except (Unavailable, NotFound, Conflict) as error:
            logger.debug("pod %s: %s is not started: %s", item, start.name, error)
            work.backoff.hold(("retry", start.name), RACE_SECONDS)
        except TandemError as error:
            self._events.of(pod, start.role, container).failed(error)
            work.waiting[start.name] = Waiting("CreateContainerError", str(error))
            work.backoff.hold(("retry", start.name), RETRY_SECONDS)
        else:
            work.revived.discard(start.name)
            self._note(item, start, container, failure, work)
        finally:
            work.started(start.name, step)
            self._workloads.queue.add(item)

    def _note(
        self, item: Item, start: Start, container: Doc, failure: Failure | None, work: Work
    ) -> None:
        """What became of a start, for the status and for the next one."""
        pull = ("pull", container["image"])
        if failure is None:
            work.waiting.pop(start.name, None)
            work.backoff.forget(pull, ("retry", start.name))
            return
        work.waiting[start.name] = failure.waiting
        if failure.pull:
            work.backoff.failed(pull)
        elif not failure.attempted:
            work.backoff.hold(("retry", start.name), RETRY_SECONDS)
        if failure.key is not None:
            self._workloads.wait_for(failure.key, item)

    # -- ending ------------------------------------------------------------------------------

    def kill(
        self, item: Item, pod: Doc, kills: Sequence[Kill], observed: RuntimeStatus, work: Work
    ) -> None:
        """Begin to end containers of a Pod that goes on."""
        for kill in kills:
            if kill.name not in work.killing and kill.name not in work.starting:
                work.kill(kill.name, self._killed(item, pod, kill, observed, work))

    async def _killed(
        self, item: Item, pod: Doc, kill: Kill, observed: RuntimeStatus, work: Work
    ) -> None:
        """A container's end, beside the loop, while its Pod goes on."""
        container = container_named(pod, kill.role, kill.name)
        seen = next(entry for entry in observed.containers if entry.name == kill.name)
        if kill.revives:
            work.revived.add(kill.name)
        own = self._probes.grace_seconds(item.uid, kill.name, seen.container_id)
        grace = grace_left(pod) if own is None else own
        try:
            await self._stopper.stop(pod, kill.role, container, grace=grace, message=kill.message)
        except TandemError as error:
            logger.warning("pod %s: %s cannot be ended: %s", item, kill.name, error)
            await asyncio.sleep(RETRY_SECONDS)  # it is still under way as long as this takes
        finally:
            work.killed(kill.name, asyncio.current_task())
            self._workloads.queue.add(item)


def sooner(one: float | None, two: float | None) -> float | None:
    """The earlier of two times, each of which may not be set."""
    given = [seconds for seconds in (one, two) if seconds is not None]
    return min(given) if given else None
