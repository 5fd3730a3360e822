"""Liveness, readiness and startup probes, as the kubelet's prober times and counts them.

Each probe of a running container has one timer; a task exists only while a probe is under way, so no
probe overlaps itself and a hanging one holds up nobody else's. Results belong to one container id: a
container that is started anew begins from nothing.

Readiness is first asked ``initialDelaySeconds`` after the container's start (with a startup probe: as
soon as that has succeeded), then every ``periodSeconds``. The two that can end a container keep to
whole periods since its start, the first one after the initial delay, as the kubelet's ticker does: so
a container has ``failureThreshold * periodSeconds`` at least.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.pods.handlers import Handlers, Outcome
from tandem.control.pods.probestate import KINDS, Probe, Watched
from tandem.control.recorder import Recorder
from tandem.errors import TandemError
from tandem.runtimes.adapter import Phase, RuntimeStatus

logger = logging.getLogger(__name__)

TRIES = 3
"""How often a probe is tried at once that cannot be run."""

COMMANDS_AT_ONCE = 64
CONNECTIONS_AT_ONCE = 512
"""A command costs the runtime a process; a connection costs next to nothing, so that even many that
hang do not hold up others."""


class Readiness(NamedTuple):
    """What ``status.containerStatuses[]`` says of a running container by these names."""

    started: bool
    ready: bool


class Probes:
    """The probes of all Pods. ``changed`` is called with the uid of a Pod whose answer to one of the
    questions below has changed. Call :meth:`close` at the end."""

    def __init__(
        self, handlers: Handlers, recorder: Recorder, changed: Callable[[str], None]
    ) -> None:
        self._handlers = handlers
        self._recorder = recorder
        self._changed = changed
        self._pods: dict[str, dict[str, Watched]] = {}
        self._born = datetime.now(UTC)
        self._commands = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._connections = asyncio.Semaphore(CONNECTIONS_AT_ONCE)

    # -- what the Pod loop asks --------------------------------------------------------------

    def follow(self, pod: Doc, observed: RuntimeStatus, *, hidden: Collection[str] = ()) -> None:
        """Probe each container of the Pod that has probes, as it runs now.

        To be called with each new look at the Pod, before :meth:`readiness` is asked; cheap, and the
        same again changes nothing. ``hidden`` are containers that run and are not done with starting.
        A Pod that is being deleted keeps its readiness probes only.
        """
        uid = pod["metadata"]["uid"]
        watched = self._pods.get(uid)
        if watched is None:
            watched = {entry.container["name"]: entry for entry in _with_probes(pod)}
            if not watched:
                return
            self._pods[uid] = watched
        address = observed.addresses[0] if observed.addresses else get(pod, "status.podIP", "")
        running = {c.name: c for c in observed.containers if c.phase is Phase.RUNNING}
        for name, entry in watched.items():
            seen = running.get(name)
            if seen is None or name in hidden:
                entry.end()
                continue
            entry.address = address
            if entry.container_id != _bare(seen.container_id):
                self._begin(entry, pod, _bare(seen.container_id), seen.started_at)
            if get(pod, "metadata.deletionTimestamp"):
                self._end_quietly(entry)

    def forget(self, uid: str) -> None:
        """The Pod is gone, or has ended."""
        for entry in self._pods.pop(uid, {}).values():
            entry.end()

    def readiness(self, uid: str, container: str, container_id: str) -> Readiness:
        """How the running container is, by its probes; without any it is started and ready."""
        entry = self._pods.get(uid, {}).get(container)
        if entry is None:
            return Readiness(started=True, ready=True)
        if entry.container_id != _bare(container_id):  # a newer one than was followed
            started = "startupProbe" not in entry.container
            return Readiness(started, started and "readinessProbe" not in entry.container)
        return Readiness(entry.started, entry.started and entry.ready)

    def doomed(self, uid: str, container: str, container_id: str) -> str | None:
        """Why the container has to be killed, to complete the kubelet's words "Container x ...": "failed
        liveness probe"; None when it has not."""
        failed = self._failed(uid, container, container_id)
        return f"failed {failed.kind} probe" if failed else None

    def grace_seconds(self, uid: str, container: str, container_id: str) -> float | None:
        """The grace that the failed probe gives its container; None: the Pod's own."""
        failed = self._failed(uid, container, container_id)
        grace = failed.spec.get("terminationGracePeriodSeconds") if failed else None
        return None if grace is None else float(grace)

    async def close(self) -> None:
        """Stop everything."""
        entries = [entry for watched in self._pods.values() for entry in watched.values()]
        tasks = [p.task for entry in entries for p in entry.probes.values() if p.task is not None]
        for uid in tuple(self._pods):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _failed(self, uid: str, container: str, container_id: str) -> Probe | None:
        entry = self._pods.get(uid, {}).get(container)
        if entry is None or entry.container_id != _bare(container_id):
            return None
        return entry.failed

    # -- beginning and ending ----------------------------------------------------------------

    def _begin(
        self, entry: Watched, pod: Doc, container_id: str, started_at: datetime | None
    ) -> None:
        now = asyncio.get_running_loop().time()
        age = (datetime.now(UTC) - started_at).total_seconds() if started_at else 0.0
        entry.begin(container_id, now - max(0.0, age))
        if started_at is None or started_at >= self._born:
            self._arm(entry)
            return
        # It ran before we did: what was known of it holds until a probe says otherwise, and not all
        # that are found at the start are probed in the same moment.
        shown = _shown(pod, entry.container["name"], container_id)
        entry.started = entry.started or bool(shown.get("started"))
        entry.ready = entry.ready or bool(shown.get("ready"))
        self._arm(entry, spread=True)

    def _arm(self, entry: Watched, *, spread: bool = False) -> None:
        """Set the timers of the probes whose turn it is: startup alone, or the others."""
        now = asyncio.get_running_loop().time()
        for kind, probe in entry.probes.items():
            if (kind == "startup") is entry.started or probe.timer or probe.task:
                continue
            if spread:
                due = max(now + random.random() * probe.period, entry.begun + probe.delay)
            elif kind == "readiness":
                due = max(now, entry.begun + probe.delay)
            else:
                due = probe.first_tick(entry.begun, now)
            self._set(entry, probe, due)

    def _set(self, entry: Watched, probe: Probe, due: float) -> None:
        probe.due = due
        loop = asyncio.get_running_loop()
        probe.timer = loop.call_at(due, self._fire, entry, probe)

    def _end_quietly(self, entry: Watched) -> None:
        """Nothing can kill it any more but its own Pod's end."""
        for kind in ("startup", "liveness"):
            if probe := entry.probes.pop(kind, None):
                probe.stop()
        entry.failed = None
        if not entry.started:
            entry.started = True
            self._arm(entry)
            self._changed(entry.uid)

    # -- probing -----------------------------------------------------------------------------

    def _fire(self, entry: Watched, probe: Probe) -> None:
        probe.timer = None
        name = f"{probe.kind}-probe {entry.container['name']}"
        probe.task = asyncio.get_running_loop().create_task(self._probe(entry, probe), name=name)

    async def _probe(self, entry: Watched, probe: Probe) -> None:
        container_id = entry.container_id
        outcome = await self._outcome(entry, probe)
        # Before anything else: whoever is told may stop this very probe.
        probe.task = None
        if entry.container_id != container_id or entry.probes.get(probe.kind) is not probe:
            return
        self._tell(entry, probe, outcome)
        verdict = None if outcome.errored else probe.streak.add(outcome.ok)
        again = verdict is None or probe.kind == "readiness" or (verdict and entry.started)
        if again:
            now = asyncio.get_running_loop().time()
            self._set(entry, probe, probe.next_tick(now))
        if verdict is not None:
            self._settle(entry, probe, verdict)

    async def _outcome(self, entry: Watched, probe: Probe) -> Outcome:
        command = "exec" in probe.spec
        outcome = Outcome(False, errored=True)
        async with self._commands if command else self._connections:
            for _ in range(TRIES):
                try:
                    outcome = await self._handlers.run(
                        probe.spec,
                        entry.pod,
                        entry.container,
                        timeout=probe.timeout,
                        address=entry.address,
                    )
                except TandemError as error:
                    outcome = Outcome(False, str(error), errored=True)
                except Exception as error:
                    logger.exception("a %s probe could not be run", probe.kind)
                    outcome = Outcome(False, str(error), errored=True)
                if not outcome.errored:
                    break
        return outcome

    def _settle(self, entry: Watched, probe: Probe, verdict: bool) -> None:
        """There were enough results of a kind: what follows from that."""
        before = (entry.started, entry.ready, entry.failed)
        if probe.kind == "readiness":
            entry.ready = verdict
        elif not verdict:
            entry.failed = probe
        elif probe.kind == "startup":
            entry.started = True
            self._arm(entry)
        if before != (entry.started, entry.ready, entry.failed):
            self._changed(entry.uid)

    def _tell(self, entry: Watched, probe: Probe, outcome: Outcome) -> None:
        what = probe.kind.capitalize()
        if outcome.warning:
            reason, message = "ProbeWarning", f"{what} probe warning: {outcome.output}"
        elif outcome.ok:
            return
        else:
            how = "errored" if outcome.errored else "failed"
            reason, message = "Unhealthy", f"{what} probe {how}: {outcome.output}"
        self._recorder.warning(entry.pod, reason, message, field_path=entry.path)


def _with_probes(pod: Doc) -> list[Watched]:
    found = []
    for field in ("initContainers", "containers"):
        for container in get(pod, f"spec.{field}") or ():
            if any(container.get(name) for name in KINDS.values()):
                path = f"spec.{field}{{{container['name']}}}"
                found.append(Watched(pod, container, path))
    return found


def _shown(pod: Doc, name: str, container_id: str) -> Doc:
    """What the status says of the container, if it is of this very one."""
    for field in ("containerStatuses", "initContainerStatuses"):
        for entry in get(pod, f"status.{field}") or ():
            if entry["name"] == name and _bare(entry.get("containerID", "")) == container_id:
                return dict(entry)
    return {}


def _bare(container_id: str) -> str:
    """Without the name of the runtime before it."""
    return container_id.rpartition("://")[2]
