"""What every loop is given: the store, its changes, the recorder, and the node they all run on."""

from __future__ import annotations

import logging
import os
import re
import socket
from dataclasses import dataclass
from functools import cached_property

from tandem.api.kind import Kind, Registry
from tandem.control.changes import Changes
from tandem.control.recorder import Recorder
from tandem.runtimes.adapter import RuntimeStatus
from tandem.store import Key, Store

logger = logging.getLogger(__name__)

LABEL_CLUSTER = "tandem.dev/cluster"
"""In the runtime: the store that a workload was made for (:attr:`Context.cluster`)."""

_CLUSTER = Key("namespaces", "", "kube-system")


@dataclass(frozen=True, slots=True)
class Node:
    """The one node. ``memory_bytes`` and ``cpu_millis`` are what it has, not what is free."""

    name: str
    address: str
    memory_bytes: int
    cpu_millis: int

    @classmethod
    def this(cls) -> Node:
        """The host we run on."""
        return cls(
            name=_node_name(socket.gethostname()),
            address=_address(),
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            cpu_millis=(os.cpu_count() or 1) * 1000,
        )


@dataclass(frozen=True)
class Context:
    """Shared by all loops."""

    store: Store
    registry: Registry
    changes: Changes
    recorder: Recorder
    node: Node

    @cached_property
    def cluster(self) -> str:
        """What tells this store from any other: the UID of the namespace kube-system, as in clusters."""
        return str(self.store.get(_CLUSTER)["metadata"]["uid"])

    def made(self, status: RuntimeStatus) -> bool:
        """Whether a workload was made for an object of this store.

        A workload of ours that no object claims is rubbish only then. When the store was lost, or is
        another one, nobody has asked for it to end: it goes on, and is told of.
        """
        if status.labels.get(LABEL_CLUSTER) == self.cluster:
            return True
        logger.warning(
            "workload %s was made for another store than this one; it is left alone", status.spec_id
        )
        return False

    def kind(self, resource: str) -> Kind:
        """The kind that is kept under ``resource``."""
        for kind in self.registry:
            if kind.resource == resource:
                return kind
        raise KeyError(resource)


def _node_name(hostname: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", hostname.lower()).strip("-.") or "localhost"


def _address() -> str:
    """The address that packets to the world leave from; loopback on a host without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: UDP, so nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
