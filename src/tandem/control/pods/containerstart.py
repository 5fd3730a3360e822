"""Starting one container of a Pod: its image, its environment and mounts, itself, its postStart hook."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.context import Context
from tandem.control.pods import environment
from tandem.control.pods.containerstatus import Waiting
from tandem.control.pods.containerstop import Stopper
from tandem.control.pods.environment import MissingReference
from tandem.control.pods.events import ContainerEvents, PodEvents
from tandem.control.pods.handlers import Handlers
from tandem.control.pods.plan import ENDED, Role
from tandem.control.pods.pullsecrets import pull_credentials
from tandem.control.pods.spec import grace_left, host_fields
from tandem.control.pods.volumes import MountFailed, VolumeNotReady, Volumes
from tandem.control.runtime import CREATE_SECONDS, Runtime
from tandem.errors import Conflict, ImagePullError, InvalidSpec, NotFound, TandemError, Unavailable
from tandem.runtimes.adapter import ContainerStatus, Phase, RuntimeStatus
from tandem.runtimes.capabilities import PulledImage
from tandem.store import Key

_PULL_REASONS_TO_BACK_OFF = ("ErrImagePull", "RegistryUnavailable")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a container was not started. ``key``: the object whose change helps, where there is one.
    ``attempted``: an attempt was made of it, and has ended; it waits as one that crashed does.
    ``pull``: it was the registry, which is asked again more and more seldom."""

    waiting: Waiting
    key: Key | None = None
    attempted: bool = False
    pull: bool = False


class Starter:
    """Starts containers. What goes wrong for good is a :class:`Failure`; raises ``Unavailable`` when
    the runtime is away, ``NotFound`` and ``Conflict`` when the sandbox is not what it was."""

    def __init__(
        self,
        context: Context,
        runtime: Runtime,
        volumes: Volumes,
        handlers: Handlers,
        stopper: Stopper,
    ) -> None:
        self._context = context
        self._runtime = runtime
        self._volumes = volumes
        self._handlers = handlers
        self._stopper = stopper
        self._events = PodEvents(context.recorder)

    # -- the image ---------------------------------------------------------------------------

    async def pull(self, pod: Doc, role: Role, container: Doc) -> Failure | None:
        """Have the container's image on this host."""
        events = self._events.of(pod, role, container)
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        began = asyncio.get_running_loop().time()
        try:
            image = await self._pull(pod, container, policy, events)
        except ImagePullError as error:
            reason = str(error.details.get("reason") or "ErrImagePull")
            events.pull_failed(reason, error)
            backs_off = reason in _PULL_REASONS_TO_BACK_OFF
            return Failure(Waiting(reason, str(error)), pull=backs_off)
        events.pulled(image, asyncio.get_running_loop().time() - began)
        return None

    async def _pull(
        self, pod: Doc, container: Doc, policy: str, events: ContainerEvents
    ) -> PulledImage:
        name = container["image"]
        if policy != "Always":
            # Only so is it known, before it is begun, whether there will be a pull to tell of.
            try:
                return await self._runtime.pull_image(name, pull_policy="Never")
            except ImagePullError as error:
                absent = error.details.get("reason") == "ErrImageNeverPull"
                if policy == "Never" or not absent:
                    raise
        credentials, missing = pull_credentials(pod, name, self._lookup)
        if missing:
            self._events.secrets_missing(pod, missing)
        events.pulling()
        return await self._runtime.pull_image(name, pull_policy=policy, credentials=credentials)

    # -- the container -----------------------------------------------------------------------

    async def run(
        self, pod: Doc, role: Role, container: Doc, *, attempt: int, addresses: Sequence[str]
    ) -> Failure | None:
        """Start the container, whose image is there, and run its postStart hook."""
        events = self._events.of(pod, role, container)
        uid = pod["metadata"]["uid"]
        try:
            document = await self._document(pod, container, addresses)
            status = await self._runtime.start_container(uid, document, attempt=attempt)
        except Unavailable:
            raise
        except (MissingReference, VolumeNotReady) as error:
            events.failed(error)
            return Failure(Waiting("CreateContainerConfigError", str(error)), key=error.key)
        except (NotFound, Conflict):
            raise
        except TandemError as error:
            events.failed(error)
            return Failure(Waiting(_reason_of(error), str(error)))
        started = _container_in(status, container["name"])
        if started.phase is Phase.PENDING:
            raise Conflict(f"container {started.name!r} was made and does not start")
        events.created()
        if started.phase in ENDED and started.reason == "StartError":
            events.failed(started.message)
            return Failure(Waiting("RunContainerError", started.message), attempted=True)
        events.started()
        if hook := get(container, "lifecycle.postStart"):
            return await self._post_start(pod, role, container, hook, addresses)
        return None

    async def _document(self, pod: Doc, container: Doc, addresses: Sequence[str]) -> Doc:
        """The container with nothing left to look up."""
        fields = host_fields(self._context.node, addresses)
        document = environment.resolve(pod, container, self._lookup, fields)
        env = {entry["name"]: entry["value"] for entry in document.get("env") or ()}
        mounts = await self._volumes.mounts(pod, container, env=env, addresses=addresses)
        # The image has been asked for already, as the policy says.
        return {**document, "volumeMounts": mounts, "imagePullPolicy": "IfNotPresent"}

    async def _post_start(
        self, pod: Doc, role: Role, container: Doc, hook: Doc, addresses: Sequence[str]
    ) -> Failure | None:
        address = addresses[0] if addresses else self._context.node.address
        outcome = await self._handlers.hook(
            hook, pod, container, timeout=CREATE_SECONDS, address=address
        )
        if outcome.ok:
            return None
        self._events.of(pod, role, container).hook_failed("PostStart")
        await self._stopper.stop(
            pod, role, container, grace=grace_left(pod), message="FailedPostStartHook"
        )
        return Failure(Waiting("PostStartHookError", outcome.output), attempted=True)

    def _lookup(self, key: Key) -> Doc | None:
        return objects.find(self._context.store, key)


def _reason_of(error: TandemError) -> str:
    if reason := error.details.get("reason"):
        return str(reason)
    if isinstance(error, MountFailed | InvalidSpec):
        return "CreateContainerConfigError"
    return "CreateContainerError"


def _container_in(status: RuntimeStatus, name: str) -> ContainerStatus:
    return next(entry for entry in status.containers if entry.name == name)
