"""containerd's unpacked images: the layers of one as a read-only view.

The image's id is the digest of its configuration, whose ``rootfs`` names the layers; their snapshots
are there for as long as the image is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence

from tandem.errors import InvalidSpec, NotFound, Unsupported
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

_DEFAULT_SNAPSHOTTER = "overlayfs"
_ROOT_LABEL = "containerd.io/gc.root"
"""Keeps the collector away from what has it."""


class Snapshots:
    """Views of the images in one containerd."""

    def __init__(self, client: CriClient) -> None:
        self._client = client

    async def check(self) -> None:
        """Raise ``Unsupported`` for a runtime other than containerd."""
        version = await self._client.call(VERSION, cri.VersionRequest())
        if version.runtime_name != "containerd":
            raise Unsupported(
                f"{version.runtime_name} does not say where the files of an image lie",
                hint="use containerd where disks or volumes come from images",
            )

    async def view(self, key: str, image_id: str, *, keep: bool = False) -> Sequence[types.Mount]:
        """Make the view ``key`` of an image, and say how to mount it. Without ``keep`` the collector
        takes it away, if nobody else does. Raises ``NotFound`` for what is not unpacked."""
        request = content.ReadContentRequest(digest=image_id)
        blob = bytearray()
        async for part in self._client.stream(READ_CONTENT, request, timeout=30.0):
            blob += part.data
        labels: Mapping[str, str] = {_ROOT_LABEL: "tandem"} if keep else {}
        view = snapshots.ViewSnapshotRequest(
            snapshotter=await self._snapshotter(),
            key=key,
            parent=chain_id(json.loads(blob)["rootfs"]["diff_ids"]),
            labels=labels,
        )
        return (await self._client.call(VIEW_SNAPSHOT, view)).mounts

    async def remove(self, key: str) -> None:
        """Remove a view; one that is gone is success."""
        request = snapshots.RemoveSnapshotRequest(snapshotter=await self._snapshotter(), key=key)
        with contextlib.suppress(NotFound):
            await self._client.call(REMOVE_SNAPSHOT, request)

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


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
