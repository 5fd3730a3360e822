"""Images as directories of the host: a kept view of each, mounted read-only.

``ROOT/HOLDER/DIGEST`` is the mount, and remembers the view too: the directory is made before the view
and removed after it, so whatever a crash or a reboot leaves is found again by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from tandem.errors import ImagePullError, InvalidSpec, NotFound, Unsupported
from tandem.host import volumes
from tandem.host.run import run
from tandem.runtimes.capabilities import RegistryCredentials
from tandem.runtimes.cri._gen import containerd_types_pb2 as types
from tandem.runtimes.cri.aio import to_the_end
from tandem.runtimes.cri.images import Images
from tandem.runtimes.cri.snapshots import Snapshots

_HOLDER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class ImageMounts:
    """The image directories of one owner, below ``root``."""

    def __init__(self, snapshots: Snapshots, images: Images, root: Path, owner: str) -> None:
        self._snapshots = snapshots
        self._images = images
        self._root = root
        self._owner = owner
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def give(
        self,
        image: str,
        holder: str,
        pull_policy: str,
        credentials: Sequence[RegistryCredentials],
    ) -> Path:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`."""
        if not _HOLDER.fullmatch(holder):
            raise InvalidSpec(f"holder {holder!r} must match {_HOLDER.pattern}")
        await self._snapshots.check()
        found = await self._images.ensure(image, pull_policy, credentials)
        target = self._root / holder / found.id.rpartition(":")[2]
        async with self._lock(holder):
            if not await asyncio.to_thread(volumes.is_mounted, target):
                await to_the_end(self._mount(image, found.id, target))
        return target

    async def release(self, holder: str) -> None:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`."""
        folder = self._root / holder
        if not _HOLDER.fullmatch(holder) or not folder.is_dir():
            return
        async with self._lock(holder):
            await to_the_end(self._remove(folder))

    async def holders(self) -> Collection[str]:
        """See :class:`tandem.runtimes.capabilities.ImageDirectories`."""
        try:
            return await asyncio.to_thread(os.listdir, self._root)
        except FileNotFoundError:
            return []

    async def _mount(self, image: str, digest: str, target: Path) -> None:
        await asyncio.to_thread(target.mkdir, mode=0o700, parents=True, exist_ok=True)
        key = self._key(target)
        try:
            await self._snapshots.remove(key)  # of before a reboot, or a crash
            mounts = await self._snapshots.view(key, digest, keep=True)
            await run(*mount_command(mounts, target))
        except BaseException as error:
            await self._snapshots.remove(key)
            await asyncio.to_thread(_remove_empty, target)
            if isinstance(error, NotFound):
                raise ImagePullError(
                    f"image {image!r} is not unpacked on this host: {error.message}",
                    details={"image": image, "reason": "ErrImagePull"},
                    hint=f"remove it (crictl rmi {image}), so that it is pulled again",
                ) from error
            raise

    async def _remove(self, folder: Path) -> None:
        await asyncio.to_thread(volumes.unmount_below, folder)
        for target in await asyncio.to_thread(lambda: list(folder.iterdir())):
            await self._snapshots.remove(self._key(target))
            await asyncio.to_thread(target.rmdir)
        await asyncio.to_thread(folder.rmdir)

    def _key(self, target: Path) -> str:
        """The view of ``target``: a name of containerd's may have 76 characters at most."""
        name = f"{self._owner}/{target.parent.name}/{target.name}"
        return f"tandem-volume-{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def _lock(self, holder: str) -> asyncio.Lock:
        return self._locks.setdefault(holder, asyncio.Lock())


def mount_command(mounts: Sequence[types.Mount], target: Path) -> list[str]:
    """The program that mounts a view at ``target``."""
    if len(mounts) == 1 and mounts[0].type in ("bind", "rbind"):
        return ["mount", "-o", "bind,ro", mounts[0].source, os.fspath(target)]
    if len(mounts) == 1 and mounts[0].type == "overlay":
        for option in mounts[0].options:
            key, _, value = option.partition("=")
            if key == "lowerdir":
                return _overlay_command(value.split(":"), target)
    kinds = ", ".join(mount.type for mount in mounts)
    raise Unsupported(
        f"the snapshotter's mounts are of a kind that is not known here: {kinds}",
        hint="use containerd's overlayfs or native snapshotter",
    )


def _overlay_command(layers: Sequence[str], target: Path) -> list[str]:
    # The kernel takes one page of options, which the paths of many layers exceed: from the folder that
    # they have in common they are short.
    common = os.path.commonpath(layers)
    lower = ":".join(os.path.relpath(layer, common) for layer in layers)
    script = 'cd "$0" && exec mount -t overlay -o "ro,lowerdir=$1" overlay "$2"'
    return ["sh", "-c", script, common, lower, os.fspath(target)]


def _remove_empty(target: Path) -> None:
    try:
        target.rmdir()
        target.parent.rmdir()
    except OSError:  # another image's is in it
        pass
