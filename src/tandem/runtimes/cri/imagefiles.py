"""Files out of images, where they lie on the host: for containerDisk and kernelBoot.

containerd unpacks each layer of an image into a directory of its own, and keeps it for as long as the
image is there. A read-only view of the top layer says which directories these are; the view itself is
not needed any longer then and is removed at once. It is never protected from the garbage collector
either, so that one that a crash leaves behind goes away by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from tandem.errors import ImagePullError, InvalidSpec, NotFound, TandemError, Unsupported
from tandem.runtimes.capabilities import ImageFile
from tandem.runtimes.cri import layers
from tandem.runtimes.cri._gen import containerd_types_pb2 as types
from tandem.runtimes.cri.images import Images
from tandem.runtimes.cri.snapshots import Snapshots

_DISK_FOLDER = "disk"  # where KubeVirt has the file of a containerDisk
_MOST_KNOWN = 256


_Identity = tuple[int, int, int, int]


class ImageFinder:
    """Finds files in the images of one containerd, and remembers where: six calls are spared for
    every further machine on an image. An image's id is its content's, and the directories of its
    layers do not change, so that a file which is still there is still the one."""

    def __init__(self, snapshots: Snapshots, images: Images) -> None:
        self._snapshots = snapshots
        self._images = images
        self._known: dict[tuple[str, str | None], tuple[Path, _Identity]] = {}

    async def find(self, image: str, path: str | None, pull_policy: str) -> ImageFile:
        """See :class:`tandem.runtimes.capabilities.ImageFiles`."""
        if not self._known:
            await self._snapshots.check()
        found = await self._images.ensure(image, pull_policy)
        if known := self._known.get((found.id, path)):
            file, identity = known
            if await asyncio.to_thread(_identity, file) == identity:
                return ImageFile(found.id, file)
        file = await self._look(image, found.id, path)
        self._known.pop((found.id, path), None)
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        if (now := await asyncio.to_thread(_identity, file)) is not None:
            self._known[found.id, path] = file, now
        return ImageFile(found.id, file)

    async def _look(self, image: str, id: str, path: str | None) -> Path:
        try:
            directories = await self._layers(id)
            if path is None:
                return await asyncio.to_thread(layers.only_file, directories, _DISK_FOLDER)
            return await asyncio.to_thread(layers.find_file, directories, path)
        except InvalidSpec as error:
            raise InvalidSpec(f"image {image!r}: {error.message}", causes=error.causes) from error
        except NotFound as error:
            raise ImagePullError(
                f"image {image!r} is not unpacked on this host: {error.message}",
                details={"image": image},
                hint=f"remove it (crictl rmi {image}), so that it is pulled again",
            ) from error

    async def _layers(self, image_id: str) -> Sequence[Path]:
        """The directories of the image's layers, the topmost first."""
        key = f"tandem-{secrets.token_hex(8)}"
        try:
            mounts = await self._snapshots.view(key, image_id)
        finally:
            # The collector may have been faster.
            with contextlib.suppress(TandemError):
                await self._snapshots.remove(key)
        return directories_of(mounts)


def _identity(file: Path) -> _Identity | None:
    """What tells the file from another in its place; None when there is none."""
    try:
        found = file.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def directories_of(mounts: Sequence[types.Mount]) -> list[Path]:
    """The directories behind a read-only view, the topmost first."""
    for mount in mounts:
        if mount.type in ("bind", "rbind"):
            return [Path(mount.source)]
        if mount.type == "overlay":
            for option in mount.options:
                key, _, value = option.partition("=")
                if key == "lowerdir":
                    return [Path(part) for part in value.split(":")]
    kinds = ", ".join(mount.type for mount in mounts)
    raise Unsupported(
        f"the snapshotter does not keep layers as directories (its mounts are: {kinds})",
        hint="use containerd's overlayfs or native snapshotter",
    )
