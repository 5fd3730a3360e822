"""Writing a Pod's status: what it is made of, and that it is written only when it says something new."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.control import objects
from tandem.control.context import Context
from tandem.control.pods.plan import Verdict, Verdicts
from tandem.control.pods.probes import Probes
from tandem.control.pods.status import Facts, Outcome, out_of_reach, pod_status
from tandem.control.pods.work import Work
from tandem.control.runtime import Runtime
from tandem.control.workloads import Item
from tandem.errors import TandemError
from tandem.runtimes.adapter import ContainerStatus, RuntimeStatus


class PodWriter:
    """Writes the statuses of Pods."""

    def __init__(self, context: Context, runtime: Runtime, probes: Probes) -> None:
        self._context = context
        self._runtime = runtime
        self._probes = probes

    async def write(
        self,
        item: Item,
        pod: Doc,
        observed: RuntimeStatus | None,
        work: Work,
        outcome: Outcome | None = None,
    ) -> Doc | None:
        """Write what is so; ``outcome``: how the Pod has ended. None when it is gone."""
        facts = self._facts(pod, observed, work, outcome)

        def alter(doc: Doc) -> None:
            doc["status"] = pod_status(doc, facts)

        return await objects.change(self._context.store, item.key, item.uid, alter)

    async def trouble(self, item: Item, error: TandemError) -> None:
        """Say that nothing is known just now; what was known stays."""

        def alter(doc: Doc) -> None:
            doc["status"] = out_of_reach(doc, str(error))

        await objects.change(self._context.store, item.key, item.uid, alter)

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
            verdict=self.verdicts(pod),
            outcome=outcome,
            runtime=fingerprint.name if fingerprint else "containerd",
        )

    def verdicts(self, pod: Doc) -> Verdicts:
        """What the probes say of the Pod's containers."""
        uid = pod["metadata"]["uid"]

        def verdict(seen: ContainerStatus) -> Verdict:
            readiness = self._probes.readiness(uid, seen.name, seen.container_id)
            doomed = self._probes.doomed(uid, seen.name, seen.container_id)
            return Verdict(readiness.started, readiness.ready, doomed)

        return verdict
