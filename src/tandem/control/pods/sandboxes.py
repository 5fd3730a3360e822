"""What holds a Pod's containers: its volumes and its sandbox, made before the first of them."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.context import Context
from tandem.control.pods.environment import MissingReference
from tandem.control.pods.events import PodEvents
from tandem.control.pods.plan import Role
from tandem.control.pods.spec import sandbox_spec
from tandem.control.pods.status import container_entries
from tandem.control.pods.volumes import VolumeNotReady, Volumes
from tandem.control.runtime import Operations, Runtime
from tandem.control.workloads import Item
from tandem.errors import AlreadyExists, DeadlineExceeded, TandemError, Unavailable
from tandem.runtimes.adapter import RuntimeStatus
from tandem.store import Key


class Sandboxes:
    """Makes sandboxes, and makes them anew."""

    def __init__(
        self, context: Context, runtime: Runtime, volumes: Volumes, operations: Operations
    ) -> None:
        self._context = context
        self._runtime = runtime
        self._volumes = volumes
        self._operations = operations
        self._events = PodEvents(context.recorder)

    async def make(self, item: Item, pod: Doc, lost: RuntimeStatus | None) -> RuntimeStatus | None:
        """The Pod's sandbox, its volumes before it; ``lost`` is what is left of one before it.

        None when that was interrupted. Raises what keeps it from being made, after saying so.
        """
        if lost is not None or _has_run(pod):
            self._events.sandbox_changed(pod)
        if lost is not None:
            await self._runtime.delete(item.uid, grace_seconds=0)
        made: list[RuntimeStatus] = []

        async def make() -> None:
            await self._volumes.set_up(pod)
            spec = sandbox_spec(pod, cluster=self._context.cluster, handler=self._handler(pod))
            try:
                made.append(await self._runtime.create(spec))
            except AlreadyExists:
                # Made before the Pod was changed; it holds what it was made for.
                if found := await self._runtime.observe(item.uid):
                    made.append(found)

        try:
            await self._operations.run(item.uid, make)
        except (Unavailable, DeadlineExceeded):
            raise
        except VolumeNotReady as error:
            self._events.mount_failed(pod, error.reason, str(error))
            raise
        except TandemError as error:
            self._events.sandbox_failed(pod, error)
            raise
        return made[0] if made else None

    def _handler(self, pod: Doc) -> str:
        name = get(pod, "spec.runtimeClassName")
        if not name:
            return ""
        key = Key("runtimeclasses.node.k8s.io", "", name)
        runtime_class = objects.find(self._context.store, key)
        if runtime_class is None:
            message = f'failed to get sandbox runtime: RuntimeClass "{name}" not found'
            raise MissingReference(message, key)
        return str(runtime_class.get("handler") or "")


def _has_run(pod: Doc) -> bool:
    """Whether any container ran before, in a sandbox that is not there any more."""
    return any(
        "waiting" not in entry.get("state", {}) or entry.get("lastState")
        for role in Role
        for entry in container_entries(pod, role)
    )
