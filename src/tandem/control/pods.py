"""The Pod loop: what the kubelet does for a Pod, on one node.

Each step reads the Pod and the runtime, asks :mod:`tandem.control.podplan` what lies between them, and
begins it. What takes long (an image, a hook, a grace period) goes on in tasks beside the loop, which
looks again when one has ended. A workload is found again by the Pod's UID, which is its id in the
runtime: nothing else has to be remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.backoff import duration
from tandem.control.containerstart import Failure, Starter
from tandem.control.containerstatus import Waiting
from tandem.control.containerstop import Stopper, running_in
from tandem.control.context import Context
from tandem.control.environment import MissingReference
from tandem.control.handlers import Handlers
from tandem.control.placement import Placement
from tandem.control.podevents import PodEvents, described
from tandem.control.podplan import (
    ENDED,
    Kill,
    Plan,
    Role,
    Start,
    Verdict,
    Verdicts,
    has_sandbox,
    plan,
)
from tandem.control.podspec import addresses_of, container_named, deadline_left, grace_left
from tandem.control.podstatus import (
    FINAL,
    Facts,
    Outcome,
    container_entries,
    out_of_reach,
    pod_status,
)
from tandem.control.podwork import FRESH_SECONDS, PULL_HOLDS_SECONDS, Step, Work
from tandem.control.probes import Probes
from tandem.control.runtime import Operations, Runtime
from tandem.control.sandboxes import Sandboxes
from tandem.control.volumes import VolumeNotReady, Volumes
from tandem.control.workloads import PULL_SHOWN_SECONDS, Item, Workloads
from tandem.errors import Conflict, DeadlineExceeded, NotFound, TandemError, Unavailable
from tandem.runtimes.adapter import ContainerStatus, RuntimeStatus

logger = logging.getLogger(__name__)

RESOURCE = "pods"

RETRY_SECONDS = 10.0
"""After how long a container is tried again whose configuration was wrong, as the kubelet does it."""

RACE_SECONDS = 0.5
"""The same, where its sandbox was not what it seemed: what has happened to it will be known by then."""

DEADLINE_EXCEEDED = "Pod was active on the node longer than the specified deadline"
NO_EVICTION_GRACE = 0.0


class Pods:
    """See the module's docstring."""

    def __init__(
        self, context: Context, runtime: Runtime, volumes: Volumes, handlers: Handlers
    ) -> None:
        self._context = context
        self._store = context.store
        self._runtime = runtime
        self._volumes = volumes
        self._events = PodEvents(context.recorder)
        self._operations = Operations()
        self._work: dict[str, Work] = {}
        self._rested: set[str] = set()
        self._gone: set[str] = set()
        self.workloads = Workloads(
            context,
            RESOURCE,
            self.reconcile,
            concerns=_concerns,
            interrupt=self._interrupt,
            awaited=["configmaps", "secrets", "runtimeclasses.node.k8s.io"],
            appeared=self._appeared,
        )
        self._stopper = Stopper(runtime, handlers, context.recorder)
        self._starter = Starter(context, runtime, volumes, handlers, self._stopper)
        self._sandboxes = Sandboxes(context, runtime, volumes, self._operations)
        self._placement = Placement(context, self.workloads.queue.add)
        self.probes = Probes(handlers, context.recorder, self.workloads.look)
        volumes.on_limit(self._evict)

    @property
    def busy(self) -> bool:
        """Whether anything is being looked at, started or ended."""
        return self.workloads.queue.busy or any(work.tasks for work in self._work.values())

    async def close(self) -> None:
        """Stop; workloads go on."""
        await self.workloads.queue.close()
        await asyncio.gather(*(work.stopped() for work in self._work.values()))
        await self.probes.close()

    # -- what changes its mind ---------------------------------------------------------------

    def _interrupt(self, uid: str) -> None:
        self._operations.interrupt(uid)
        if work := self._work.get(uid):
            work.interrupt()

    def _appeared(self, uid: str) -> None:
        """What a Pod has waited for may be there."""
        if work := self._work.get(uid):
            work.backoff.forget(*(("retry", name) for name in work.waiting))

    def _evict(self, uid: str, message: str) -> None:
        self._work.setdefault(uid, Work()).evicted = message
        self.workloads.look(uid)

    # -- one step ----------------------------------------------------------------------------

    async def reconcile(self, item: Item) -> float | None:
        """Take the next step for a Pod; returns the seconds after which to look again."""
        pod = objects.find(self._store, item.key, item.uid)
        if pod is None:
            await self._discard(item.uid)
            return None
        if get(pod, "metadata.deletionTimestamp"):
            await self._terminate(item, pod)
            return None
        if get(pod, "status.phase") in FINAL:
            await self._rest(item.uid)
            return None
        try:
            return await self._run(item, pod)
        except (Unavailable, DeadlineExceeded) as error:
            await self._write_trouble(item, error)
            raise

    async def _run(self, item: Item, pod: Doc) -> float | None:
        # Nothing is started for a Pod before its node is written: a new one need not be asked for.
        observed = None
        if get(pod, "spec.nodeName") == self._context.node.name:
            observed = await self._runtime.observe(item.uid)
        else:
            placed = await self._placement.place(item, pod)
            if placed is None:
                return None
            pod = placed
        work = self._work.setdefault(item.uid, Work())
        if observed is None and (rejected := self._placement.rejection(pod)) is not None:
            await self._finish(item, pod, None, rejected, grace_left(pod))
            return None
        left = deadline_left(pod)
        if left is not None and left <= 0:
            outcome = Outcome("Failed", "DeadlineExceeded", DEADLINE_EXCEEDED)
            await self._finish(item, pod, observed, outcome, grace_left(pod))
            return None
        if work.evicted:
            outcome = Outcome("Failed", "Evicted", work.evicted, disrupted=True)
            await self._finish(item, pod, observed, outcome, NO_EVICTION_GRACE)
            return None
        steps = self._plan(pod, observed, work)
        if steps.make_sandbox:
            await work.stopped()
            if observed is not None and observed.containers:
                # Once it is cleared away, nobody can tell any more how its containers ended.
                pod = await self._write(item, self._facts(pod, observed, work)) or pod
            try:
                observed = await self._sandboxes.make(item, pod, observed)
            except (VolumeNotReady, MissingReference) as error:
                if error.key is not None:
                    self.workloads.wait_for(error.key, item)
                raise
            if observed is None:
                return None  # it is not wanted any more: the next look is due
            steps = self._plan(pod, observed, work)
        if steps.over or observed is None:
            await self._finish(item, pod, observed, Outcome(), grace_left(pod))
            return None
        return _sooner(await self._keep(item, pod, observed, work, steps), left)

    def _plan(self, pod: Doc, observed: RuntimeStatus | None, work: Work) -> Plan:
        if observed is not None:
            self.probes.follow(pod, observed, hidden=work.hidden)
        return plan(pod, observed, self._verdicts(pod), revived=work.revived)

    # -- keeping -----------------------------------------------------------------------------

    async def _keep(
        self, item: Item, pod: Doc, observed: RuntimeStatus, work: Work, steps: Plan
    ) -> float | None:
        """Begin the steps, and write what is so."""
        loop = asyncio.get_running_loop()
        due, wait = self._due(pod, work, steps)
        for kill in steps.kill:
            if kill.name not in work.killing and kill.name not in work.starting:
                work.kill(kill.name, self._killed(item, pod, kill, observed, work))
        if _has_news(pod, observed, work):
            # Before it is started again: how a container ended must have been seen.
            pod = await self._write(item, self._facts(pod, observed, work)) or pod
        addresses = addresses_of(pod, observed, self._context.node)
        for start in due:
            if work.holds(loop.time()):
                wait = _sooner(wait, PULL_HOLDS_SECONDS)
                break
            image = container_named(pod, start.role, start.name)["image"]
            steps_of = partial(self._started, item, pod, start, addresses, work)
            work.start(start.name, image, steps_of)
        if work.is_fresh(loop.time()):
            return _sooner(wait, FRESH_SECONDS)
        await self._write(item, self._facts(pod, observed, work))
        return wait

    def _due(self, pod: Doc, work: Work, steps: Plan) -> tuple[list[Start], float | None]:
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
                wait = _sooner(wait, remaining)
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
            self.workloads.queue.add(item)

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
            self.workloads.wait_for(failure.key, item)

    async def _killed(
        self, item: Item, pod: Doc, kill: Kill, observed: RuntimeStatus, work: Work
    ) -> None:
        """A container's end, beside the loop, while its Pod goes on."""
        container = container_named(pod, kill.role, kill.name)
        seen = next(entry for entry in observed.containers if entry.name == kill.name)
        if kill.revives:
            work.revived.add(kill.name)
        own = self.probes.grace_seconds(item.uid, kill.name, seen.container_id)
        grace = grace_left(pod) if own is None else own
        try:
            await self._stopper.stop(pod, kill.role, container, grace=grace, message=kill.message)
        except TandemError as error:
            logger.warning("pod %s: %s cannot be ended: %s", item, kill.name, error)
            await asyncio.sleep(RETRY_SECONDS)  # it is still under way as long as this takes
        finally:
            work.killed(kill.name, asyncio.current_task())
            self.workloads.queue.add(item)

    # -- probes ------------------------------------------------------------------------------

    def _verdicts(self, pod: Doc) -> Verdicts:
        uid = pod["metadata"]["uid"]

        def verdict(seen: ContainerStatus) -> Verdict:
            readiness = self.probes.readiness(uid, seen.name, seen.container_id)
            doomed = self.probes.doomed(uid, seen.name, seen.container_id)
            return Verdict(readiness.started, readiness.ready, doomed)

        return verdict

    # -- ending ------------------------------------------------------------------------------

    async def _finish(
        self,
        item: Item,
        pod: Doc,
        observed: RuntimeStatus | None,
        outcome: Outcome,
        grace: float,
    ) -> None:
        """The Pod is over: end what still runs of it, then say how it ended, then let go."""
        work = self._work.setdefault(item.uid, Work())
        if not work.told:
            work.told = True
            self._tell_end(pod, outcome)
        if running_in(observed) or work.starting or work.killing:
            await self._end_containers(item, pod, observed, work, grace)
            return
        await self._write(item, self._facts(pod, observed, work, outcome))
        await self._rest(item.uid, observed)

    def _tell_end(self, pod: Doc, outcome: Outcome) -> None:
        if outcome.reason == "DeadlineExceeded":
            self._events.deadline_exceeded(pod, outcome.message)
        elif outcome.reason == "Evicted":
            self._events.evicted(pod, outcome.message)
        elif outcome.reason:
            self._events.rejected(pod, outcome.reason, outcome.message)

    async def _end_containers(
        self, item: Item, pod: Doc, observed: RuntimeStatus | None, work: Work, grace: float
    ) -> None:
        """Have all that runs ended beside the loop, and meanwhile tell of what has."""
        if work.ending is None:
            for step in work.starting.values():
                step.cancel()
            work.end(self._ended(item, pod, work, grace))
        if observed is not None:
            self.probes.follow(pod, observed, hidden=work.hidden)
            await self._write(item, self._facts(pod, observed, work))

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
            self.workloads.queue.add(item)

    async def _rest(self, uid: str, observed: RuntimeStatus | None = None) -> None:
        """Let go of what a Pod that has ended needs no more. Its containers and their logs stay until
        it is deleted."""
        if uid in self._rested:
            return
        observed = observed or await self._runtime.observe(uid)
        if has_sandbox(observed):
            await self._runtime.release(uid)
        await self._volumes.tear_down(uid)
        await self._forget(uid)
        self._rested.add(uid)

    async def _terminate(self, item: Item, pod: Doc) -> None:
        """The Pod is deleted: end it within its grace, write how it ended, take it away."""
        final = get(pod, "status.phase") in FINAL
        observed = None
        # Nothing was started for a Pod that has no node.
        if get(pod, "spec.nodeName"):
            grace = grace_left(pod)
            if grace > 0 and not final:
                observed = await self._runtime.observe(item.uid)
                work = self._work.setdefault(item.uid, Work())
                if running_in(observed) or work.tasks:
                    await self._end_containers(item, pod, observed, work, grace)
                    return
            await self._take_away(item.uid)
        if not final and (observed is not None or pod["metadata"].get("finalizers")):
            await self._write(item, self._facts(pod, observed, Work(), Outcome()))
        await objects.remove(self._store, item.key, item.uid)

    async def _discard(self, uid: str) -> None:
        """There is no such Pod any more: nothing of it may stay."""
        if uid not in self._gone:
            await self._take_away(uid)
        self._gone.discard(uid)
        self._rested.discard(uid)

    async def _take_away(self, uid: str) -> None:
        if work := self._work.get(uid):
            await work.stopped()
        await self._runtime.delete(uid, grace_seconds=0)
        await self._volumes.tear_down(uid)
        await self._forget(uid)
        self._gone.add(uid)

    async def _forget(self, uid: str) -> None:
        self.probes.forget(uid)
        if work := self._work.pop(uid, None):
            await work.stopped()

    # -- writing -----------------------------------------------------------------------------

    def _facts(
        self,
        pod: Doc,
        observed: RuntimeStatus | None,
        work: Work,
        outcome: Outcome | None = None,
    ) -> Facts:
        fingerprint = self._runtime.fingerprint
        return Facts(
            self._context.node,
            observed=observed,
            hidden=work.hidden,
            waiting=work.waiting if outcome is None else {},
            verdict=self._verdicts(pod),
            outcome=outcome,
            runtime=fingerprint.name if fingerprint else "containerd",
        )

    async def _write(self, item: Item, facts: Facts) -> Doc | None:
        def alter(doc: Doc) -> None:
            doc["status"] = pod_status(doc, facts)

        return await objects.change(self._store, item.key, item.uid, alter)

    async def _write_trouble(self, item: Item, error: TandemError) -> None:
        """Say that nothing is known just now; what was known stays."""

        def alter(doc: Doc) -> None:
            doc["status"] = out_of_reach(doc, str(error))

        await objects.change(self._store, item.key, item.uid, alter)


def _concerns(pod: Doc) -> tuple[Any, ...]:
    """What of a Pod is acted upon that is not written here. The conditions of its readiness gates are
    somebody else's, and in the status."""
    gates = {gate["conditionType"] for gate in get(pod, "spec.readinessGates", ())}
    return (
        pod["metadata"].get("generation"),
        get(pod, "spec.nodeName"),
        *(
            (entry["type"], entry.get("status"))
            for entry in (get(pod, "status.conditions", ()) if gates else ())
            if entry["type"] in gates
        ),
    )


def _has_news(pod: Doc, observed: RuntimeStatus, work: Work) -> bool:
    """Whether a container has ended that the status does not tell of."""
    told = {
        ended.get("containerID", "").rpartition("://")[2]
        for role in Role
        for entry in container_entries(pod, role)
        for state in (entry.get("state"), entry.get("lastState"))
        if (ended := (state or {}).get("terminated"))
    }
    return any(
        entry.phase in ENDED
        and entry.name not in work.starting
        and entry.container_id.rpartition("://")[2] not in told
        for entry in observed.containers
    )


def _sooner(one: float | None, two: float | None) -> float | None:
    given = [seconds for seconds in (one, two) if seconds is not None]
    return min(given) if given else None
