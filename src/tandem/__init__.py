"""Tandem: one declarative API for containers and virtual machines.

The library's public surface: the adapter layer that the daemon stands on, usable without it.
"""

from tandem.errors import TandemError
from tandem.runtimes.adapter import (
    ContainerStatus,
    EventKind,
    Fingerprint,
    Phase,
    RuntimeAdapter,
    RuntimeEvent,
    RuntimeHandle,
    RuntimeSpec,
    RuntimeStatus,
)
from tandem.runtimes.factory import RuntimeAdapterFactory
from tandem.runtimes.sync import SyncRuntimeAdapter, sync

__version__ = "0.1.0"

__all__ = [
    "ContainerStatus",
    "EventKind",
    "Fingerprint",
    "Phase",
    "RuntimeAdapter",
    "RuntimeAdapterFactory",
    "RuntimeEvent",
    "RuntimeHandle",
    "RuntimeSpec",
    "RuntimeStatus",
    "SyncRuntimeAdapter",
    "TandemError",
    "__version__",
    "sync",
]
