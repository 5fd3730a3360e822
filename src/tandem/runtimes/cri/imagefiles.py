"""Files out of images, where they lie on the host: for containerDisk and kernelBoot.

containerd unpacks each layer of an image into a directory of its own, and keeps it for as long as the
image is there. A read-only view of the top layer says which directories these are; the view itself is
not needed any longer then and is removed at once. It is never protected from the garbage collector
either, so that one that a crash leaves behind goes away by itself.

The image's id is the digest of its configuration, whose ``rootfs`` names the layers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from tandem.errors import ImagePullError, InvalidSpec, NotFound, TandemError, Unsupported
from tandem.runtimes.capabilities import ImageFile
from tandem.runtimes.cri import layers
from tandem.runtimes.cri._gen import containerd_content_pb2 as content
from tandem.runtimes.cri._gen import containerd_snapshots_pb2 as snapshots
from tandem.runtimes.cri._gen import containerd_types_pb2 as types
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import (
    READ_CONTENT,
    REMOVE_SNAPSHOT,
    STATUS,
    VERSION,
    VIEW_SNAPSHOT,
    CriClient,
)
from tandem.runtimes.cri.images import Images

_DISK_FOLDER = "disk"  # where KubeVirt has the file of a containerDisk
_DEFAULT_SNAPSHOTTER = "overlayfs"


class ImageFinder:
    """Finds files in the images of one containerd."""

    def __init__(self, client: CriClient, images: Images) -> None:
        self._client = client
        self._images = images

    async def find(self, image: str, path: str | None, pull_policy: str) -> ImageFile:
        """See :class:`tandem.runtimes.capabilities.ImageFiles`."""
        version = await self._client.call(VERSION, cri.VersionRequest())
        if version.runtime_name != "containerd":
            raise Unsupported(
                f"{version.runtime_name} does not say where the files of an image lie",
                hint="use containerd for machines whose disks come from images",
            )
        found = await self._images.ensure(image, pull_policy)
        try:
            directories = await self._layers(found.id)
            if path is None:
                file = await asyncio.to_thread(layers.only_file, directories, _DISK_FOLDER)
            else:
                file = await asyncio.to_thread(layers.find_file, directories, path)
        except InvalidSpec as error:
            raise InvalidSpec(f"image {image!r}: {error.message}", causes=error.causes) from error
        except NotFound as error:
            raise ImagePullError(
                f"image {image!r} is not unpacked on this host: {error.message}",
                details={"image": image},
                hint=f"remove it (crictl rmi {image}), so that it is pulled again",
            ) from error
        return ImageFile(found.id, file)

    async def _layers(self, image_id: str) -> Sequence[Path]:
        """The directories of the image's layers, the topmost first."""
        request = content.ReadContentRequest(digest=image_id)
        blob = bytearray()
        async for part in self._client.stream(READ_CONTENT, request, timeout=30.0):
            blob += part.data
        chain = chain_id(json.loads(blob)["rootfs"]["diff_ids"])
        snapshotter = await self._snapshotter()
        key = f"tandem-{secrets.token_hex(8)}"
        view = snapshots.ViewSnapshotRequest(snapshotter=snapshotter, key=key, parent=chain)
        try:
            response = await self._client.call(VIEW_SNAPSHOT, view)
        finally:
            # The collector may have been faster.
            with contextlib.suppress(TandemError):
                remove = snapshots.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
                await self._client.call(REMOVE_SNAPSHOT, remove)
        return directories_of(response.mounts)

    async def _snapshotter(self) -> str:
        """The one that the CRI plugin unpacks images with."""
        status = await self._client.call(STATUS, cri.StatusRequest(verbose=True))
        try:
            name = json.loads(status.info["config"])["containerd"]["snapshotter"]
        except (KeyError, TypeError, ValueError):  # a later version that tells it elsewhere
            name = ""
        return str(name or _DEFAULT_SNAPSHOTTER)


def chain_id(diff_ids: Sequence[str]) -> str:
    """The name of the snapshot with all the layers ``diff_ids``, as the OCI image format has it."""
    chain = ""
    for diff_id in diff_ids:
        chain = _digest(f"{chain} {diff_id}") if chain else diff_id
    if not chain:
        raise InvalidSpec("the image has no layers")
    return chain


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


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
