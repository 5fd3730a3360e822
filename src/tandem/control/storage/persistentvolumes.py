"""What becomes of a volume: free, bound, released, and gone where its policy says so."""

from __future__ import annotations

from collections.abc import Callable

from tandem.api.kind import Doc
from tandem.api.kinds import persistentvolume
from tandem.api.meta import get
from tandem.control.objects import request_deletion
from tandem.control.pods.volumes.claims import CLAIMS, VOLUMES, path_of
from tandem.control.storage.storageobjects import StorageObjects, is_ours
from tandem.errors import TandemError
from tandem.host import volumes as host
from tandem.host.run import blocking
from tandem.store import Key


class PersistentVolumes:
    """The steps for one volume. ``look_at`` is called with a claim that has something to do."""

    def __init__(self, objects: StorageObjects, look_at: Callable[[Key], None]) -> None:
        self._objects = objects
        self._look_at = look_at

    async def sync(self, key: Key, volume: Doc) -> None:
        """Say whose the volume is; reclaim one that nobody's is any more."""
        reference = get(volume, "spec.claimRef")
        going = bool(get(volume, "metadata.deletionTimestamp"))
        if not reference:
            if going:
                await self._objects.release(key, volume, persistentvolume.PROTECTION)
            else:
                await self._phase(key, volume, "Available")
            return
        claim_at = Key(CLAIMS, reference.get("namespace", ""), reference.get("name", ""))
        claim = self._objects.find(claim_at, reference.get("uid", ""))
        if not reference.get("uid"):  # kept for a claim that may come
            if going:
                await self._objects.release(key, volume, persistentvolume.PROTECTION)
            elif get(volume, "status.phase") != "Available":
                await self._phase(key, volume, "Available")
                self._look_at(claim_at)
            return
        if claim is not None:
            if get(claim, "spec.volumeName") == key.name:
                await self._phase(key, volume, "Bound")
            elif not get(claim, "spec.volumeName"):
                self._look_at(claim_at)  # half bound: the claim's step finishes it
            return
        await self._reclaim(key, volume, going=going)

    async def _reclaim(self, key: Key, volume: Doc, *, going: bool) -> None:
        """Its claim is gone."""
        policy = get(volume, "spec.persistentVolumeReclaimPolicy", "Retain")
        if get(volume, "status.phase") not in ("Released", "Failed"):
            volume = await self._phase(key, volume, "Released") or volume
        if policy != "Delete":
            if going:
                await self._objects.release(key, volume, persistentvolume.PROTECTION)
            return
        if not is_ours(volume) or path_of(volume) != str(self._objects.root / key.name):
            if going:
                await self._objects.release(key, volume, persistentvolume.PROTECTION)
            elif get(volume, "status.phase") != "Failed":
                words = (
                    f'error getting deleter volume plugin for volume "{key.name}": '
                    "no deletable volume plugin matched"
                )
                self._objects.recorder.warning(volume, "VolumeFailedDelete", words)
                await self._phase(key, volume, "Failed", words)
            return
        try:
            await blocking(host.remove, self._objects.root / key.name)
        except OSError as error:
            words = f"{error.filename}: {error.strerror}"
            self._objects.recorder.warning(volume, "VolumeFailedDelete", words)
            await self._phase(key, volume, "Failed", words)
            raise TandemError(f"cannot remove persistent volume {key.name}: {words}") from error
        kind = self._objects.context.kind(VOLUMES)
        await request_deletion(self._objects.store, kind, key, uid=volume["metadata"]["uid"])
        await self._objects.release(key, volume, persistentvolume.PROTECTION)

    async def _phase(self, key: Key, volume: Doc, phase: str, message: str = "") -> Doc | None:
        status = {"phase": phase} | ({"message": message} if message else {})
        if volume.get("status") == status:
            return volume
        return await self._objects.change(key, volume, lambda doc: doc.update(status=status))
