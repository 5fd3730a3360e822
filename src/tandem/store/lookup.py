"""The store's objects, as an admission asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tandem.errors import NotFound
from tandem.store.store import Store
from tandem.store.types import Doc, Key


@dataclass(frozen=True, slots=True)
class StoreLookup:
    """What :class:`tandem.api.kind.Lookup` asks for, out of a store."""

    store: Store

    def get(self, resource: str, namespace: str, name: str) -> Doc | None:
        """An object, or None."""
        try:
            return self.store.get(Key(resource, namespace, name))
        except NotFound:
            return None

    def list(self, resource: str) -> Sequence[Doc]:
        """All objects of a resource."""
        return self.store.list(resource).items
