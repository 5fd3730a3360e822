"""The Pod loop: what the kubelet does for a Pod, on one node.

Each step reads the Pod and the runtime, asks :mod:`tandem.control.pods.plan` what lies between them, and
begins it. What takes long (an image, a hook, a grace period) goes on in tasks beside the loop, which
looks again when one has ended. A workload is found again by the Pod's UID, which is its id in the
runtime: nothing else has to be remembered.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.context import Context
from tandem.control.pods.containerstart import Starter
from tandem.control.pods.containerstop import Stopper
from tandem.control.pods.ends import Endings
from tandem.control.pods.environment import MissingReference
from tandem.control.pods.handlers import Handlers
from tandem.control.pods.placement import Placement
from tandem.control.pods.plan import ENDED, Plan, Role, plan
from tandem.control.pods.probes import Probes
from tandem.control.pods.sandboxes import Sandboxes
from tandem.control.pods.spec import addresses_of, deadline_left, grace_left
from tandem.control.pods.status import FINAL, Outcome, container_entries
from tandem.control.pods.steps import Steps, sooner
from tandem.control.pods.volumes import VolumeNotReady, Volumes
from tandem.control.pods.work import FRESH_SECONDS, Work
from tandem.control.pods.writer import PodWriter
from tandem.control.runtime import Operations, Runtime
from tandem.control.workloads import Item, Workloads
from tandem.errors import DeadlineExceeded, Unavailable
from tandem.runtimes.adapter import RuntimeStatus

RESOURCE = "pods"

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
        self._operations = Operations()
        self._work: dict[str, Work] = {}
        self.workloads = Workloads(
            context,
            RESOURCE,
            self.reconcile,
            concerns=_concerns,
            interrupt=self._interrupt,
            awaited=["configmaps", "secrets", "runtimeclasses.node.k8s.io"],
            appeared=self._appeared,
        )
        self.probes = Probes(handlers, context.recorder, self.workloads.look)
        self._placement = Placement(context, self.workloads.queue.add)
        self._sandboxes = Sandboxes(context, runtime, volumes, self._operations)
        self._writer = PodWriter(context, runtime, self.probes)
        stopper = Stopper(runtime, handlers, context.recorder)
        starter = Starter(context, runtime, volumes, handlers, stopper)
        self._steps = Steps(context.recorder, starter, stopper, self.probes, self.workloads)
        self._endings = Endings(
            context,
            runtime,
            volumes,
            stopper,
            self.probes,
            self._writer,
            self.workloads,
            self._work,
        )
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
            await self._endings.discard(item.uid)
            return None
        if get(pod, "metadata.deletionTimestamp"):
            await self._endings.terminate(item, pod)
            return None
        if get(pod, "status.phase") in FINAL:
            await self._endings.rest(item.uid)
            return None
        try:
            return await self._run(item, pod)
        except (Unavailable, DeadlineExceeded) as error:
            await self._writer.trouble(item, error)
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
            await self._endings.finish(item, pod, None, rejected, grace_left(pod))
            return None
        left = deadline_left(pod)
        if left is not None and left <= 0:
            outcome = Outcome("Failed", "DeadlineExceeded", DEADLINE_EXCEEDED)
            await self._endings.finish(item, pod, observed, outcome, grace_left(pod))
            return None
        if work.evicted:
            outcome = Outcome("Failed", "Evicted", work.evicted, disrupted=True)
            await self._endings.finish(item, pod, observed, outcome, NO_EVICTION_GRACE)
            return None
        steps = self._plan(pod, observed, work)
        if steps.make_sandbox:
            await work.stopped()
            if observed is not None and observed.containers:
                # Once it is cleared away, nobody can tell any more how its containers ended.
                pod = await self._writer.write(item, pod, observed, work) or pod
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
            await self._endings.finish(item, pod, observed, Outcome(), grace_left(pod))
            return None
        return sooner(await self._keep(item, pod, observed, work, steps), left)

    def _plan(self, pod: Doc, observed: RuntimeStatus | None, work: Work) -> Plan:
        if observed is not None:
            self.probes.follow(pod, observed, hidden=work.hidden)
        return plan(pod, observed, self._writer.verdicts(pod), revived=work.revived)

    # -- keeping -----------------------------------------------------------------------------

    async def _keep(
        self, item: Item, pod: Doc, observed: RuntimeStatus, work: Work, steps: Plan
    ) -> float | None:
        """Begin the steps, and write what is so."""
        due, wait = self._steps.due(pod, work, steps)
        self._steps.kill(item, pod, steps.kill, observed, work)
        if _has_news(pod, observed, work):
            # Before it is started again: how a container ended must have been seen.
            pod = await self._writer.write(item, pod, observed, work) or pod
        addresses = addresses_of(pod, observed, self._context.node)
        wait = sooner(wait, self._steps.start(item, pod, due, addresses, work))
        if work.is_fresh(asyncio.get_running_loop().time()):
            return sooner(wait, FRESH_SECONDS)
        await self._writer.write(item, pod, observed, work)
        return wait


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
