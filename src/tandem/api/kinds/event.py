"""``v1`` Event: what happened to an object, for people. Kept for an hour."""

from __future__ import annotations

from collections.abc import Callable

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import get
from tandem.api.table import age
from tandem.errors import Cause


def _default(doc: Doc) -> None:
    doc.setdefault("involvedObject", {})
    doc.setdefault("source", {})


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    about = get(new, "involvedObject.namespace", "")
    namespace = new["metadata"].get("namespace", "")
    if about and about != namespace and old is None:
        return [causes.invalid("involvedObject.namespace", about, "does not match event.namespace")]
    return []


def _last_seen(doc: Doc) -> str:
    seen = get(doc, "series.lastObservedTime") or doc.get("lastTimestamp") or doc.get("eventTime")
    return age(seen or get(doc, "metadata.creationTimestamp"))


def _first_seen(doc: Doc) -> str:
    return age(doc.get("firstTimestamp") or doc.get("eventTime"))


def _object(doc: Doc) -> str:
    return f"{get(doc, 'involvedObject.kind', '').lower()}/{get(doc, 'involvedObject.name', '')}"


def _source(doc: Doc) -> str:
    component = get(doc, "source.component") or doc.get("reportingComponent") or ""
    host = get(doc, "source.host", "")
    return f"{component}, {host}" if host else component


def _about(field: str) -> Callable[[Doc], str]:
    return lambda doc: str(get(doc, f"involvedObject.{field}", ""))


_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

EVENT = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    schema="io.k8s.api.core.v1.Event",
    short_names=("ev",),
    status=False,
    columns=(
        Column("Last Seen", _last_seen, description="When it was last seen."),
        Column("Type", lambda doc: doc.get("type", ""), description="Normal or Warning."),
        Column("Reason", lambda doc: doc.get("reason", ""), description="One word for machines."),
        Column("Object", _object, description="What it is about."),
        Column(
            "Subobject",
            lambda doc: get(doc, "involvedObject.fieldPath", ""),
            priority=1,
            description="The part of the object that it is about.",
        ),
        Column("Source", _source, priority=1, description="Who reported it."),
        Column("Message", lambda doc: doc.get("message", ""), description="For people."),
        Column("First Seen", _first_seen, priority=1, description="When it was first seen."),
        Column(
            "Count",
            lambda doc: doc.get("count") or get(doc, "series.count", 1),
            type="integer",
            priority=1,
            description="How often it was seen.",
        ),
        Column(
            "Name",
            lambda doc: doc["metadata"]["name"],
            format="name",
            priority=1,
            description="The event's own name.",
        ),
    ),
    default=_default,
    validate=_validate,
    field_labels={
        **{f"involvedObject.{field}": _about(field) for field in _ABOUT},
        "reason": lambda doc: doc.get("reason", ""),
        "type": lambda doc: doc.get("type", ""),
        "source": lambda doc: get(doc, "source.component", ""),
        "reportingComponent": lambda doc: doc.get("reportingComponent", ""),
    },
    spec_fields=(),
)
