"""Committed changes as watches see them: what one means to a selection, and its line on the wire.

A change that a thousand watches see is decoded and encoded once: the first that needs a part of it
makes it, the others find it. Only the newest changes are remembered for that, as watches that keep
up ask for them at the same moment.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tandem.api.kind import Doc, Kind
from tandem.server import respond
from tandem.server.codec import decode, encode
from tandem.server.media import JSON, Form
from tandem.server.selection import Selection
from tandem.store import EventType, StoreEvent

_REMEMBERED = 256
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark that follows the objects a watch begins with."""


@dataclass(frozen=True, slots=True)
class Lines:
    """How the lines of one watch are written: the kind, the form and what a Table's rows hold."""

    kind: Kind
    form: Form
    include_object: str = ""

    def check(self) -> None:
        """Raise ``BadRequest`` now for what the lines could not be written with."""
        self.bookmark(0)

    def line(self, type_: EventType, data: bytes, *, first: bool) -> bytes:
        """One event about an object. A Table names its columns in the ``first`` line only."""
        if self.form.plain:
            return b'{"type":"%b","object":%b}\n' % (type_.encode(), data)
        doc = respond.shape(self.kind, decode(data), self.form, self.include_object)
        if self.form.shape == "Table" and not first:
            doc["columnDefinitions"] = None
        return _line(type_, doc)

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> bytes:
        """A line that says how far the watch has come."""
        metadata: Doc = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_events_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        doc: Doc = {
            "kind": self.kind.kind,
            "apiVersion": self.kind.api_version,
            "metadata": metadata,
        }
        if self.form.shape == "Table":
            doc = respond.as_table(self.kind, [], self.form, self.include_object, metadata)
        elif self.form.shape:
            doc = respond.metadata_only(doc, self.form)
        return _line("BOOKMARK", doc)


def error_line(status: Doc) -> bytes:
    """The line by which a watch that cannot go on says why."""
    return _line("ERROR", status)


class Change:
    """One committed change."""

    __slots__ = ("_doc", "_event", "_lines", "_previous")

    def __init__(self, event: StoreEvent) -> None:
        self._event = event
        self._doc: Doc | None = None
        self._previous: Doc | None = None
        # By how a watch writes: of one change the kind is always the same.
        self._lines: dict[tuple[Form, str, EventType, bool], bytes] = {}

    def line(self, selection: Selection, lines: Lines, *, first: bool) -> bytes | None:
        """What a watch of ``selection`` sends for it; None when it is no concern of that watch."""
        type_ = self._type_for(selection)
        if type_ is None:
            return None
        first = first and lines.form.shape == "Table"
        key = lines.form, lines.include_object, type_, first
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = lines.line(type_, self._data_for(type_), first=first)
        return line

    def _type_for(self, selection: Selection) -> EventType | None:
        event = self._event
        if not selection.wants_key(event.key):
            return None
        if selection.everything:
            return event.type
        if self._doc is None:
            self._doc = decode(event.data)
        after = selection.wants(self._doc)
        if event.type != "MODIFIED" or event.previous is None:
            return event.type if after else None
        if self._previous is None:
            self._previous = decode(event.previous)
        # An object that begins or ceases to match appears or disappears for this watch.
        before = selection.wants(self._previous)
        if before and after:
            return "MODIFIED"
        if after:
            return "ADDED"
        return "DELETED" if before else None

    def _data_for(self, type_: EventType) -> bytes:
        event = self._event
        if type_ != "DELETED" or event.type == "DELETED" or self._previous is None:
            return event.data
        # As Kubernetes has it: the last state that matched, at the revision of the change.
        metadata = self._previous["metadata"] | {"resourceVersion": str(event.revision)}
        return encode(self._previous | {"metadata": metadata})


class Changes:
    """The newest changes, so that watches share what is made of them."""

    def __init__(self) -> None:
        self._by_revision: OrderedDict[int, Change] = OrderedDict()

    def of(self, event: StoreEvent) -> Change:
        """The shared view of ``event``."""
        change = self._by_revision.get(event.revision)
        if change is None:
            change = self._by_revision[event.revision] = Change(event)
            if len(self._by_revision) > _REMEMBERED:
                self._by_revision.popitem(last=False)
        return change


def lines_for(kind: Kind, form: Form, include_object: str) -> Lines:
    """How to write a watch in ``form``; watches are lines of JSON whatever the media type."""
    return Lines(kind, Form(JSON, form.shape, form.version), include_object)


def _line(type_: str, doc: Doc) -> bytes:
    return encode({"type": type_, "object": doc}) + b"\n"
