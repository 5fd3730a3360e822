"""The loops of everything that owns Pods, put together."""

from __future__ import annotations

from typing import Any

from tandem.control.context import Context
from tandem.control.owners import deployments, podfacts
from tandem.control.owners.children import Children
from tandem.control.owners.deployments import Deployments
from tandem.control.owners.jobs import Jobs
from tandem.control.owners.replicas import REPLICA_SETS, REPLICATION_CONTROLLERS, Replicas
from tandem.control.queue import WorkQueue


class Owners:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        pods = Children(context, podfacts.RESOURCE, podfacts.concerns)
        sets = Children(context, REPLICA_SETS.resource, deployments.concerns)
        loops = (
            Replicas(context, pods, REPLICA_SETS),
            Replicas(context, pods, REPLICATION_CONTROLLERS),
            Deployments(context, sets, pods),
            Jobs(context, pods),
        )
        self.queues: tuple[WorkQueue[Any], ...] = tuple(loop.queue for loop in loops)
