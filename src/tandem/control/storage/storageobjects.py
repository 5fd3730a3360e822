"""What the steps for claims and for volumes share: the store, and small writes to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import objects
from tandem.control.context import Context
from tandem.control.storage.volumebinding import PROVISIONED_BY
from tandem.store import Key

PROVISIONER = "tandem.dev/directory"


class StorageObjects:
    """Claims and volumes in the store. ``root``: where our own volumes' directories are made."""

    def __init__(self, context: Context, root: Path) -> None:
        self.context = context
        self.store = context.store
        self.recorder = context.recorder
        self.root = root

    def find(self, key: Key, uid: str = "") -> Doc | None:
        """The object, or None."""
        return objects.find(self.store, key, uid)

    async def change(self, key: Key, doc: Doc, alter: Callable[[Doc], None]) -> Doc | None:
        """Alter the newest state of ``doc``; None when it is gone."""
        return await objects.change(self.store, key, doc["metadata"]["uid"], alter)

    async def release(self, key: Key, doc: Doc, finalizer: str) -> None:
        """Take our finalizer off an object that is to go; it goes, unless another one holds it."""

        def without(current: Doc) -> None:
            kept = [f for f in current["metadata"].get("finalizers") or () if f != finalizer]
            if kept:
                current["metadata"]["finalizers"] = kept
            else:
                current["metadata"].pop("finalizers", None)

        if await self.change(key, doc, without) is not None:
            await objects.remove(self.store, key, doc["metadata"]["uid"])


def is_ours(volume: Doc) -> bool:
    """Whether we made the volume's directory."""
    return bool(get(volume, "metadata.annotations", {}).get(PROVISIONED_BY) == PROVISIONER)


def annotate(doc: Doc, name: str, value: str) -> None:
    """Set an annotation in place."""
    doc["metadata"].setdefault("annotations", {})[name] = value
