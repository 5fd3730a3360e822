"""The versioned object store: every object of the daemon, durable, watchable, with one revision.

The store knows no kinds: an object is a key and a JSON document whose ``metadata.resourceVersion``
it sets. See :mod:`tandem.store.store` for how writes, reads and watches fit together.
"""

from tandem.store.database import StoreUnreadable
from tandem.store.store import Store
from tandem.store.types import EventType, Key, Listing, RawListing, StoreEvent
from tandem.store.watch import Watch

__all__ = [
    "EventType",
    "Key",
    "Listing",
    "RawListing",
    "Store",
    "StoreEvent",
    "StoreUnreadable",
    "Watch",
]
