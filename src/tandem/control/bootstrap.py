"""Objects that every cluster has and nobody creates."""

from __future__ import annotations

import copy

from tandem.api.kinds.pod_admission import PRIORITY_CLASSES
from tandem.api.kinds.priorityclass import SYSTEM_CLASSES
from tandem.api.rest import prepare_create
from tandem.control import objects
from tandem.control.context import Context
from tandem.errors import AlreadyExists
from tandem.store import Key


async def ensure(context: Context) -> None:
    """Make those that are not there: the system's PriorityClasses."""
    kind = context.kind(PRIORITY_CLASSES)
    for given in SYSTEM_CLASSES:
        key = Key(kind.resource, "", given["metadata"]["name"])
        if objects.find(context.store, key) is not None:
            continue
        doc = prepare_create(kind, copy.deepcopy(given), namespace="").doc
        try:
            await context.store.create(key, doc)
        except AlreadyExists:
            continue
