"""The Pod loop: what the kubelet does for a Pod, on one node.

Each step reads the Pod and the runtime and takes the one step that lies between them, so that it does
not matter where the last daemon stopped. A workload is found again by the Pod's UID, which is its id in
the runtime: nothing else has to be remembered.
"""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import environment, objects
from tandem.control.backoff import Backoff, duration
from tandem.control.context import Context
from tandem.control.environment import MissingReference
from tandem.control.podevents import PodEvents
from tandem.control.podspec import (
    deadline_left,
    grace_left,
    host_fields,
    images_label,
    insufficient,
    restarts_of,
    runtime_spec,
)
from tandem.control.podstatus import ENDED, Facts, out_of_reach, pod_status, unschedulable
from tandem.control.runtime import Operations, Runtime
from tandem.control.workloads import PULL_SHOWN_SECONDS, Item, Workloads
from tandem.errors import (
    Conflict,
    DeadlineExceeded,
    ImagePullError,
    InvalidSpec,
    NotFound,
    TandemError,
    Unavailable,
)
from tandem.runtimes.adapter import ContainerStatus, Phase, RuntimeStatus
from tandem.store import Key

RESOURCE = "pods"
_FINAL = ("Succeeded", "Failed")


class Pods:
    """See the module's docstring."""

    def __init__(self, context: Context, runtime: Runtime) -> None:
        self._context = context
        self._store = context.store
        self._events = PodEvents(context.recorder)
        self._runtime = runtime
        self._backoff = Backoff()
        self._operations = Operations()
        self.workloads = Workloads(
            context,
            RESOURCE,
            self.reconcile,
            concerns=lambda pod: (pod["metadata"].get("generation"),),
            interrupt=self._operations.interrupt,
            awaited=["configmaps", "secrets"],
            appeared=self._backoff.forget,
        )

    # -- one step ----------------------------------------------------------------------------

    async def reconcile(self, item: Item) -> float | None:
        """Take the next step for a Pod; returns the seconds after which to look again."""
        pod = objects.find(self._store, item.key, item.uid)
        if pod is None:
            await self._operations.run(
                item.uid, lambda: self._runtime.delete(item.uid, grace_seconds=0)
            )
            self._forget(item.uid)
            return None
        if get(pod, "metadata.deletionTimestamp"):
            await self._terminate(item, pod)
            return None
        if get(pod, "status.phase") in _FINAL:
            return None
        try:
            return await self._run(item, pod)
        except (Unavailable, DeadlineExceeded) as error:
            await self._write_trouble(item, error)
            raise

    async def _run(self, item: Item, pod: Doc) -> float | None:
        node = self._context.node
        assigned = get(pod, "spec.nodeName")
        if assigned and assigned != node.name:
            await self._refuse(item, pod, f'node(s) didn\'t match the name "{assigned}"')
            return None
        if not assigned:
            if reason := insufficient(pod, node):
                await self._refuse(item, pod, reason)
                return None
            scheduled = await self._schedule(item)
            if scheduled is None:
                return None
            pod = scheduled
        left = deadline_left(pod)
        if left is not None and left <= 0:
            await self._exceeded(item, pod)
            return None
        # Nothing is started for a Pod before its node is written: a new one need not be asked for.
        observed = await self._runtime.observe(item.uid) if assigned else None
        if observed is not None and self._outdated(pod, observed):
            self._events.killing(pod, "definition changed, will be restarted")
            await self._runtime.delete(item.uid, grace_seconds=grace_left(pod))
            observed = None
        if observed is not None and _is_broken(observed):
            # The sandbox is gone: what is left has no network any more, and cannot run again.
            await self._runtime.delete(item.uid, grace_seconds=0)
            observed = None
        if observed is None or _is_half_made(observed):
            return _sooner(await self._start(item, pod), left)
        return _sooner(await self._keep(item, pod, observed), left)

    # -- starting ----------------------------------------------------------------------------

    async def _schedule(self, item: Item) -> Doc | None:
        node = self._context.node

        def assign(pod: Doc) -> None:
            pod["spec"]["nodeName"] = node.name
            pod["status"] = pod_status(pod, Facts(node))

        pod = await objects.change(self._store, item.key, item.uid, assign)
        if pod is not None:
            self._events.scheduled(pod, node.name)
        return pod

    async def _refuse(self, item: Item, pod: Doc, reason: str) -> None:
        message = f"0/1 nodes are available: 1 {reason}."

        def refuse(doc: Doc) -> None:
            doc["status"] = unschedulable(doc, message)

        await objects.change(self._store, item.key, item.uid, refuse)
        self._events.unschedulable(pod, message)

    async def _start(self, item: Item, pod: Doc) -> float | None:
        lost = any(
            "waiting" not in entry.get("state", {}) or entry.get("lastState")
            for entry in get(pod, "status.containerStatuses", [])
        )
        if lost and pod["spec"].get("restartPolicy") == "Never":
            await self._end(item, ("Failed", "", ""))
            return None
        if wait := self._backoff.remaining(item.uid):
            await self._show_pull_back_off(item, pod)
            return wait
        if lost:
            self._events.sandbox_changed(pod)
        self._events.pulling(pod)
        created: list[RuntimeStatus] = []
        try:
            spec = runtime_spec(
                pod, self._lookup, self._context.node, cluster=self._context.cluster, lost=lost
            )

            async def create() -> None:
                created.append(await self._runtime.create(spec))

            if not await self._operations.run(item.uid, create):
                return None
        except (Unavailable, DeadlineExceeded):
            raise
        except TandemError as error:
            return await self._not_started(item, pod, error)
        self._backoff.forget(item.uid)
        for container in get(pod, "spec.containers", []):
            self._events.started(pod, container)
        return await self._keep(item, pod, created[0])

    async def _not_started(self, item: Item, pod: Doc, error: TandemError) -> float:
        """Say why, and come back later: what is missing may appear."""
        reason, guilty = _blame(pod, error)
        await self._write(item, self._facts(None, {guilty: (reason, str(error))}))
        wait = self._backoff.failed(item.uid)
        if isinstance(error, ImagePullError):
            self._events.pull_failed(pod, guilty, _image_of(pod, guilty), error)
            return min(wait, PULL_SHOWN_SECONDS)
        self._events.failed(pod, guilty, f"Error: {error}")
        if isinstance(error, MissingReference):
            self.workloads.wait_for(error.key, item)
        return wait

    async def _show_pull_back_off(self, item: Item, pod: Doc) -> None:
        for entry in get(pod, "status.containerStatuses", []):
            if get(entry, "state.waiting.reason") == "ErrImagePull":
                name, image = entry["name"], _image_of(pod, entry["name"])
                why = ("ImagePullBackOff", f'Back-off pulling image "{image}"')
                await self._write(item, self._facts(None, {name: why}))
                self._events.pull_back_off(pod, name, image)

    # -- keeping -----------------------------------------------------------------------------

    async def _keep(self, item: Item, pod: Doc, observed: RuntimeStatus) -> float | None:
        """Write what is so, and restart what has ended as the policy says."""
        wait: float | None = None
        waiting: dict[str, tuple[str, str]] = {}
        due: list[ContainerStatus] = []
        for ended in observed.containers:
            if ended.phase not in ENDED or not _wants_restart(pod, ended):
                continue
            if remaining := self._backoff.ended((item.uid, ended.name), ended.attempt):
                waiting[ended.name] = self._crash_loop(pod, ended.name)
                wait = _sooner(wait, remaining)
            else:
                due.append(ended)
        # Also before a restart: how a container ended must have been seen, or nobody will know.
        pod = await self._write(item, self._facts(observed, waiting)) or pod
        if not due:
            return wait
        for ended in due:
            container = _container(pod, ended.name)
            try:
                fields = host_fields(self._context.node)
                resolved = environment.resolve(pod, container, self._lookup, fields)
                attempt = ended.attempt + 1
                observed = await self._runtime.start_container(item.uid, resolved, attempt=attempt)
            except (Unavailable, DeadlineExceeded):
                raise
            except TandemError as error:
                if isinstance(error, NotFound | Conflict) and not isinstance(
                    error, MissingReference
                ):
                    # Its sandbox went meanwhile; nothing can be started without one.
                    await self._runtime.delete(item.uid, grace_seconds=0)
                    return 0.0
                waiting[ended.name] = (_blame(pod, error)[0], str(error))
                self._events.failed(pod, ended.name, f"Error: {error}")
                wait = _sooner(wait, self._backoff.failed((item.uid, ended.name)))
            else:
                self._events.started(pod, container)
        await self._write(item, self._facts(observed, waiting))
        return wait

    def _crash_loop(self, pod: Doc, name: str) -> tuple[str, str]:
        metadata = pod["metadata"]
        shown: Doc = next(
            (s for s in get(pod, "status.containerStatuses", []) if s["name"] == name), {}
        )
        if get(shown, "state.waiting.reason") != "CrashLoopBackOff":
            self._events.restart_back_off(pod, name)
        delay = duration(self._backoff.delay((metadata["uid"], name)))
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        return (
            "CrashLoopBackOff",
            f"back-off {delay} restarting failed container={name} pod={where}",
        )

    # -- ending ------------------------------------------------------------------------------

    async def _terminate(self, item: Item, pod: Doc) -> None:
        final = get(pod, "status.phase") in _FINAL
        if not final:
            self._events.killing(pod)
        grace = grace_left(pod)
        done = await self._operations.run(
            item.uid, lambda: self._runtime.delete(item.uid, grace_seconds=grace)
        )
        if not done:
            return  # less grace is given by now, or none: the next step is already due
        if await objects.remove(self._store, item.key, item.uid):
            self._forget(item.uid, pod)
        elif not final:
            await self._end(item, ("Failed", "", ""))

    async def _exceeded(self, item: Item, pod: Doc) -> None:
        message = "Pod was active on the node longer than the specified deadline"
        self._events.killing(pod)
        # The workload first: a daemon that dies in between finds the deadline exceeded once more.
        await self._runtime.delete(item.uid, grace_seconds=grace_left(pod))
        await self._end(item, ("Failed", "DeadlineExceeded", message))
        self._events.deadline_exceeded(pod, message)

    async def _end(self, item: Item, outcome: tuple[str, str, str]) -> None:
        await self._write(item, Facts(self._context.node, outcome=outcome))

    def _forget(self, uid: str, pod: Doc | None = None) -> None:
        names = [c["name"] for c in get(pod or {}, "spec.containers", [])]
        self._backoff.forget(uid, *((uid, name) for name in names))

    # -- writing -----------------------------------------------------------------------------

    def _facts(self, observed: RuntimeStatus | None, waiting: dict[str, tuple[str, str]]) -> Facts:
        fingerprint = self._runtime.fingerprint
        return Facts(
            self._context.node,
            observed=observed,
            waiting=waiting,
            restarts=restarts_of(observed) if observed else {},
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

    @staticmethod
    def _outdated(pod: Doc, observed: RuntimeStatus) -> bool:
        """Whether an image was changed after the workload was made."""
        label, value = images_label(pod)
        return observed.labels.get(label, value) != value

    def _lookup(self, key: Key) -> Doc | None:
        return objects.find(self._store, key)


def _is_broken(observed: RuntimeStatus) -> bool:
    running = any(c.phase is Phase.RUNNING for c in observed.containers)
    return observed.phase is Phase.STOPPED or (observed.phase is Phase.FAILED and running)


def _is_half_made(observed: RuntimeStatus) -> bool:
    """Whether a daemon died while it made this: the same create finishes it, or begins anew."""
    running = any(c.phase is Phase.RUNNING for c in observed.containers)
    return observed.phase is Phase.PENDING and not running


def _blame(pod: Doc, error: TandemError) -> tuple[str, str]:
    """The waiting reason for ``error``, and the container that it is about."""
    containers = pod["spec"]["containers"]
    guilty = error.details.get("container") or next(
        (c["name"] for c in containers if c["image"] in str(error)), containers[0]["name"]
    )
    if isinstance(error, ImagePullError):
        return "ErrImagePull", guilty
    if isinstance(error, MissingReference | InvalidSpec):
        return "CreateContainerConfigError", guilty
    return "RunContainerError", guilty


def _container(pod: Doc, name: str) -> Doc:
    return next((c for c in pod["spec"]["containers"] if c["name"] == name), {"name": name})


def _image_of(pod: Doc, name: str) -> str:
    return str(_container(pod, name).get("image", ""))


def _wants_restart(pod: Doc, ended: ContainerStatus) -> bool:
    policy = pod["spec"].get("restartPolicy", "Always")
    return policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0)


def _sooner(one: float | None, two: float | None) -> float | None:
    given = [seconds for seconds in (one, two) if seconds is not None]
    return min(given) if given else None
