"""The volumes of all Pods: made, kept true, taken away.

A Pod's volumes lie in a folder of its own, laid out as on a Kubernetes node:

    UID/volumes/kubernetes.io~KIND/NAME     emptyDir, configMap, secret, downwardAPI, projected
    UID/volume-subpaths/NAME/CONTAINER/N    parts of volumes, bound there so that they cannot move
    UID/etc-hosts

What is made of objects is written again when one of them changes; that comes by the store's own
changes, so it costs nothing in between. The folder says what has been made: a daemon that starts anew
goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.pods.pullsecrets import pull_credentials
from tandem.control.pods.volumes import hosts, sources
from tandem.control.pods.volumes.limits import Limits
from tandem.control.pods.volumes.sources import MissingSource
from tandem.control.pods.volumes.work import Folder, VolumeWork, limits_of, place, work_for
from tandem.control.queue import WorkQueue
from tandem.control.runtime import Runtime
from tandem.errors import InvalidSpec, TandemError
from tandem.host import volumes as host
from tandem.host.run import blocking
from tandem.host.tokens import Tokens
from tandem.runtimes.capabilities import ImageDirectories
from tandem.store import Key

logger = logging.getLogger(__name__)

_FINAL = ("Succeeded", "Failed")
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
_HOSTS_MOUNT = "k8s-managed-etc-hosts"


class VolumeNotReady(TandemError):
    """A volume of a Pod cannot be made now. ``key``: the object whose appearance or change helps,
    None where only time does."""

    reason = "FailedMount"

    def __init__(self, message: str, key: Key | None = None) -> None:
        super().__init__(message)
        self.key = key


class MountFailed(TandemError):
    """What a container asks of a volume cannot be had: a part that is not in it, a variable without a
    value."""

    reason = "CreateContainerConfigError"


@dataclass(frozen=True, slots=True)
class _Followed:
    """A Pod whose volumes may change while it runs. ``shown``: what they show of the Pod itself."""

    key: Key
    references: frozenset[Key]
    shown: object


class Volumes:
    """See the module's docstring. ``root``: the folder of all Pods' folders."""

    def __init__(self, context: Context, runtime: Runtime, root: Path) -> None:
        self._context = context
        self._runtime = runtime
        self._root = root
        self._tokens = Tokens(root.parent / "pki")
        self._limits = Limits()
        self._followed: dict[str, _Followed] = {}
        self._users: dict[Key, set[str]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._unseen = _folders(root)
        self.queue: WorkQueue[str] = WorkQueue("volumes", self._refresh)
        context.changes.on("pods", self._pod_changed)
        for resource in ("configmaps", "secrets", "serviceaccounts"):
            context.changes.on(resource, self._object_changed)

    def on_limit(self, callback: Callable[[str, str], None]) -> None:
        """Have ``callback(uid, message)`` called once for a Pod with a volume beyond its limit."""
        self._limits.exceeded = callback

    async def close(self) -> None:
        """Stop following; what has been made stays."""
        await self.queue.close()
        await self._limits.close()

    # -- before a Pod's containers -----------------------------------------------------------

    async def set_up(self, pod: Doc) -> None:
        """Make all volumes of the Pod. Idempotent, and cheap when they are there.

        Raises :class:`VolumeNotReady`, in the kubelet's words.
        """
        uid = pod["metadata"]["uid"]
        volumes = sources.volumes_of(pod, self._lookup)
        if not volumes:
            return
        folder = self._folder(uid)
        works = []
        for volume in volumes:
            if volume.get("image") is not None:
                await self._image(folder, volume, pod)
            elif (work := self._work(folder, volume, pod)) is not None:
                works.append(work)
        self._follow(pod)
        async with self._lock(uid):
            due = await self._make(folder, works)
        self._limits.watch(uid, limits_of(folder, pod))
        if due is not None:
            self.queue.add_after(uid, due)

    def _work(self, folder: Folder, volume: Doc, pod: Doc) -> VolumeWork | None:
        try:
            return work_for(folder, volume, pod, self._lookup, self._context.node.memory_bytes)
        except MissingSource as error:
            if folder.is_written(volume):
                return None  # what it was made of went later: it stays as it was
            raise _not_set_up(volume["name"], error, error.key) from error
        except TandemError as error:
            raise _not_set_up(volume["name"], error) from error

    def _place(self, folder: Folder, volume: Doc, pod: Doc) -> tuple[Path, bool]:
        try:
            return place(folder, volume, pod, self._lookup)
        except MissingSource as error:
            raise _not_set_up(volume["name"], error, error.key) from error
        except TandemError as error:
            raise _not_set_up(volume["name"], error) from error

    async def _make(self, folder: Folder, works: Sequence[VolumeWork]) -> float | None:
        def make_all() -> list[float]:
            folder.ensure()
            found = []
            for work in works:
                try:
                    due = work.make(self._tokens)
                except (OSError, TandemError) as error:
                    raise _not_set_up(work.shown, error) from error
                if due is not None:
                    found.append(due)
            return found

        return min(await blocking(make_all), default=None)

    async def _image(self, folder: Folder, volume: Doc, pod: Doc) -> Path:
        adapter = self._runtime.adapter
        if not isinstance(adapter, ImageDirectories):
            message = f"the runtime {self._runtime.name} has no image volumes"
            raise _not_set_up(volume["name"], TandemError(message))
        source = volume["image"]
        image = str(source.get("reference", ""))
        credentials, _ = pull_credentials(pod, image, self._lookup)
        await blocking(folder.ensure)
        await blocking(folder.mark, "image", volume["name"])
        try:
            return await adapter.image_directory(
                image,
                holder=folder.uid,
                pull_policy=source.get("pullPolicy") or "IfNotPresent",
                credentials=credentials,
            )
        except TandemError as error:
            raise _not_set_up(volume["name"], error) from error

    # -- before each container ---------------------------------------------------------------

    async def mounts(
        self, pod: Doc, container: Doc, *, env: Mapping[str, str], addresses: Sequence[str]
    ) -> list[Doc]:
        """The container's ``volumeMounts``, each with the ``hostPath`` it stands for, after
        :meth:`set_up`; and ``/etc/hosts``, where it is ours.

        ``env``: the container's variables in their order, for ``subPathExpr``; ``addresses``: the
        Pod's. Raises :class:`MountFailed`, :class:`VolumeNotReady`.
        """
        folder = self._folder(pod["metadata"]["uid"])
        volumes = {v["name"]: v for v in sources.volumes_of(pod, self._lookup)}
        found: list[Doc] = []
        parts: list[tuple[Path, str, Path, str]] = []
        for index, mount in enumerate(self._wanted(container, volumes)):
            volume = volumes.get(mount["name"])
            if volume is None:
                raise MountFailed(
                    f'cannot find volume "{mount["name"]}" to mount into container '
                    f'"{container["name"]}"'
                )
            if volume.get("image") is not None:
                path, read_only = await self._image(folder, volume, pod), True
            else:
                path, read_only = self._place(folder, volume, pod)
            if part := _sub_path(mount, env):
                target = folder.part(volume["name"], container["name"], index)
                parts.append((path, part, target, mount["name"]))
                path = target
            kept = {k: v for k, v in mount.items() if k not in ("subPath", "subPathExpr")}
            found.append(kept | {"hostPath": str(path)} | ({"readOnly": True} if read_only else {}))
        own_hosts = hosts.managed(pod, container, addresses)
        if own_hosts:
            hosts_path = str(folder.hosts)
            found.append({"name": _HOSTS_MOUNT, "mountPath": hosts.PATH, "hostPath": hosts_path})

        def prepare() -> None:
            folder.ensure()
            for base, part, target, name in parts:
                _bind(base, part, target, name, container["name"])
            if own_hosts:
                of_the_host = _read(hosts.PATH) if get(pod, "spec.hostNetwork") else ""
                folder.write_hosts(hosts.hosts_file(pod, addresses, of_the_host))

        if parts or own_hosts:
            async with self._lock(folder.uid):
                try:
                    await blocking(prepare)
                except OSError as error:
                    message = f"cannot write {hosts.PATH}: {error.strerror}"
                    raise VolumeNotReady(message) from error
        return found

    @staticmethod
    def _wanted(container: Doc, volumes: Mapping[str, Doc]) -> list[Doc]:
        wanted: list[Doc] = list(container.get("volumeMounts") or ())
        taken = {mount.get("mountPath") for mount in wanted}
        if sources.TOKEN_VOLUME in volumes and sources.TOKEN_PATH not in taken:
            wanted.append({"name": sources.TOKEN_VOLUME, "mountPath": sources.TOKEN_PATH})
        return wanted

    # -- after a Pod -------------------------------------------------------------------------

    async def tear_down(self, uid: str) -> None:
        """Unmount and remove all that was made for a Pod, whose containers are gone. Idempotent.

        Follows no link and leaves alone what is not in the Pod's own folder. Raises
        :class:`VolumeNotReady` when something cannot be removed.
        """
        self._unfollow(uid)
        self._limits.forget(uid)
        folder = self._folder(uid)
        if not folder.path.exists():
            return
        async with self._lock(uid):
            try:
                images = await blocking(folder.has, "image")
                await blocking(host.remove, folder.path)
            except OSError as error:
                message = f"cannot remove volumes of {uid}: {error.strerror} ({error.filename})"
                raise VolumeNotReady(message) from error
            adapter = self._runtime.adapter
            if images and isinstance(adapter, ImageDirectories):
                await adapter.release_image_directories(uid)
        self._locks.pop(uid, None)

    async def sweep(self, uids: Collection[str]) -> None:
        """Remove what is left of all Pods but these."""
        left = await blocking(_folders, self._root)
        for uid in left.difference(uids):
            logger.info("removing the volumes of %s, which no Pod claims", uid)
            await self.tear_down(uid)
        adapter = self._runtime.adapter
        if isinstance(adapter, ImageDirectories):
            for holder in set(await adapter.image_directory_holders()).difference(uids):
                await adapter.release_image_directories(holder)

    # -- while it runs -----------------------------------------------------------------------

    def _follow(self, pod: Doc) -> None:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        references = frozenset(sources.references(pod, self._lookup))
        shown = _shown(pod) if sources.tells_of_the_pod(pod, self._lookup) else None
        known = self._followed.get(uid)
        if known is None or known.references != references:
            self._unfollow(uid)
            for reference in references:
                self._users.setdefault(reference, set()).add(uid)
        if references or shown is not None:
            key = Key("pods", metadata["namespace"], metadata["name"])
            self._followed[uid] = _Followed(key, references, shown)

    def _unfollow(self, uid: str) -> None:
        known = self._followed.pop(uid, None)
        for reference in known.references if known else ():
            users = self._users[reference]
            users.discard(uid)
            if not users:
                del self._users[reference]

    def _object_changed(self, change: Change) -> None:
        if not change.deleted:  # what it said last stays
            for uid in self._users.get(change.key, ()):
                self.queue.add(uid)

    def _pod_changed(self, change: Change) -> None:
        if change.deleted or get(change.doc, "status.phase") in _FINAL:
            self._unfollow(change.uid)
            self._limits.forget(change.uid)
            return
        if change.uid in self._unseen:  # an earlier daemon made its volumes: they may be outdated
            self._unseen.discard(change.uid)
            self._follow(change.doc)
            self._limits.watch(change.uid, limits_of(self._folder(change.uid), change.doc))
            self.queue.add(change.uid)
            return
        known = self._followed.get(change.uid)
        if known is not None and known.shown not in (None, _shown(change.doc)):
            self._follow(change.doc)
            self.queue.add(change.uid)

    async def _refresh(self, uid: str) -> float | None:
        """Write again what is made of objects, where that is not what they say now."""
        known = self._followed.get(uid)
        pod = objects.find(self._context.store, known.key, uid) if known else None
        if pod is None or get(pod, "status.phase") in _FINAL:
            return None
        folder = self._folder(uid)
        works = []
        for volume in sources.volumes_of(pod, self._lookup):
            try:
                work = work_for(folder, volume, pod, self._lookup, self._context.node.memory_bytes)
            except TandemError as error:
                # Taken away while it is in use: the files stay as they were, as on a node.
                logger.debug("volume %s of pod %s stays: %s", volume["name"], uid, error)
                continue
            if work.changes:
                works.append(work)
        async with self._lock(uid):
            if uid not in self._followed:
                return None
            return await self._make(folder, works)

    # -- small things ------------------------------------------------------------------------

    def _lookup(self, key: Key) -> Doc | None:
        return objects.find(self._context.store, key)

    def _folder(self, uid: str) -> Folder:
        if not _UID.fullmatch(uid):
            raise InvalidSpec(f"{uid!r} is no Pod's uid")
        return Folder(self._root / uid)

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())


def _not_set_up(name: str, error: Exception, key: Key | None = None) -> VolumeNotReady:
    words = str(error)
    if isinstance(error, OSError):
        words = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return VolumeNotReady(f'MountVolume.SetUp failed for volume "{name}" : {words}', key)


def _folders(root: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(root)}
    except FileNotFoundError:
        return set()


def _shown(pod: Doc) -> object:
    metadata = pod["metadata"]
    return metadata.get("labels") or {}, metadata.get("annotations") or {}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _sub_path(mount: Doc, env: Mapping[str, str]) -> str:
    """The part of the volume that is mounted, relative; empty for all of it."""
    part = str(mount.get("subPath") or "")
    if expression := mount.get("subPathExpr"):
        part = _expand(str(expression), env)
    if part.startswith("/"):
        raise MountFailed(f"error SubPath `{part}` must not be an absolute path")
    if ".." in part.split("/"):
        raise MountFailed(f"unable to provision SubPath `{part}`: must not contain '..'")
    return part


def _expand(expression: str, env: Mapping[str, str]) -> str:
    values: dict[str, str] = {}
    for name, value in env.items():  # each may refer to those before it
        values[name] = _replaced(value, lambda known, whole: values.get(known, whole))

    def required(name: str, _: str) -> str:
        if name not in values:
            raise MountFailed(f'missing value for "{name}"')
        return values[name]

    return _replaced(expression, required)


def _replaced(text: str, value_of: Callable[[str, str], str]) -> str:
    return _REFERENCE.sub(lambda m: "$" if m[0] == "$$" else value_of(m[1], m[0]), text)


def _bind(base: Path, part: str, target: Path, mount: str, container: str) -> None:
    try:
        host.bind_part(base, part, target)
    except OSError as error:
        # No more than that is said: the rest would tell of the host's file system.
        logger.warning("subPath %s of %s: %s", part, base, error)
        raise MountFailed(
            f'failed to prepare subPath for volumeMount "{mount}" of container "{container}"'
        ) from error
