"""``meta.k8s.io/v1`` Tables: what ``kubectl get`` prints, made by the server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import get, parse_time

IncludeObject = Literal["Metadata", "Object", "None"]

UNKNOWN = "<unknown>"
"""Shown for a time that is not set, as kubectl does."""

_NAME = Column(
    "Name",
    lambda doc: doc["metadata"]["name"],
    format="name",
    description="The object's name, unique in its namespace.",
)
_AGE = Column(
    "Age",
    lambda doc: age(get(doc, "metadata.creationTimestamp")),
    description="How long ago the object was created.",
)


def table(
    kind: Kind,
    docs: Sequence[Doc],
    *,
    include_object: IncludeObject = "Metadata",
    metadata: Doc | None = None,
) -> Doc:
    """The Table of ``docs``: Name, the kind's columns, Age (unless the kind places it itself).

    ``metadata`` is the list's (``resourceVersion``, ``continue``, ``remainingItemCount``).
    """
    columns = columns_of(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata or {},
        "columnDefinitions": [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in columns
        ],
        "rows": [
            {"cells": [column.value(doc) for column in columns]} | _object(doc, include_object)
            for doc in docs
        ],
    }


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The columns of a kind's Table, the automatic ones included."""
    if any(column.name == "Name" for column in kind.columns):
        return kind.columns  # an Event's name says nothing: it comes last, and nothing is added
    if any(column.name == "Age" for column in kind.columns):
        return (_NAME, *kind.columns)
    # Wide columns follow Age, as in kubectl's own tables.
    narrow = tuple(column for column in kind.columns if column.priority == 0)
    wide = tuple(column for column in kind.columns if column.priority > 0)
    return (_NAME, *narrow, _AGE, *wide)


def age(timestamp: str | None, *, at: datetime | None = None) -> str:
    """How long ago ``timestamp`` was, in kubectl's short form; ``<unknown>`` without one."""
    if not timestamp:
        return UNKNOWN
    moment = at or datetime.now(UTC)
    return human_duration((moment - parse_time(timestamp)).total_seconds())


def human_duration(seconds: float) -> str:
    """A duration in at most two units, the fewer the longer it is (``5m13s``, ``3h``, ``2d4h``).

    The steps are kubectl's, so that both print the same age for the same object. Clocks that are a
    little apart show 0s; more than a second into the future is ``<invalid>``.
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    years = days // 365
    if whole < 2 * 60:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 3 * 60:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 2 * 365:
        return f"{days}d"
    if years < 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(first: int, first_unit: str, second: int, second_unit: str) -> str:
    return f"{first}{first_unit}" + (f"{second}{second_unit}" if second else "")


def _object(doc: Doc, include: IncludeObject) -> dict[str, Any]:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": doc}
    return {
        "object": {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": doc["metadata"],
        }
    }
