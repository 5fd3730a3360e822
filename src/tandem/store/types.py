"""The store's vocabulary: keys, listings and events. Plain immutable values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Doc = dict[str, Any]

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
"""What a watch tells. The store itself never sends ``BOOKMARK``; it is here for those who pass
events on and say by it how far they have come."""


class Key(NamedTuple):
    """Where an object lives. ``resource`` is ``Kind.resource``; ``namespace`` is empty for objects
    that are in none."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects as they all were at ``revision``, ordered by namespace and name."""

    revision: int
    items: list[Doc]


@dataclass(frozen=True, slots=True)
class RawListing:
    """Objects as JSON, as they all were at ``revision``, ordered by namespace and name."""

    revision: int
    items: list[bytes]


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """One committed change.

    ``data`` is the object's JSON after the change, for ``DELETED`` its last state at the revision of
    the deletion; ``previous`` is the JSON before it, None for ``ADDED``.
    """

    type: EventType
    key: Key
    revision: int
    data: bytes
    previous: bytes | None = None
