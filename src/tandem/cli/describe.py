"""``tandem describe``: an object for people, with its conditions as a table and its events.

Made from the document alone, so that every kind, today's and tomorrow's, is shown in full.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tandem.cli import output
from tandem.cli.apply import LAST_APPLIED
from tandem.cli.context import Context, add_client
from tandem.cli.get import add_selection
from tandem.cli.targets import targets
from tandem.client.request import Doc, Selection
from tandem.client.resources import Resource
from tandem.client.sync import Client
from tandem.errors import NotFound

_HEAD = ("name", "namespace", "labels", "annotations", "creationTimestamp", "uid")
# Shown elsewhere, or of use to programs only.
_OMITTED = {"apiVersion", "kind", "metadata", "managedFields"}
_INDENT = "  "
_COLUMN = 24


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``describe``."""
    parser.add_argument("objects", nargs="+", metavar="KIND [NAME...] | KIND/NAME")
    add_selection(parser)
    add_client(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Describe every object; 1 when something named is not there."""
    failed = printed = False
    with context.client(args) as client:
        namespace = args.namespace or client.access.namespace
        select = Selection(args.selector, args.field_selector)
        for target in targets(client, args.objects):
            try:
                docs = (
                    [client.get(target.resource, n, namespace=namespace) for n in target.names]
                    if target.names
                    else client.list(target.resource, namespace=namespace, select=select)["items"]
                )
            except NotFound as error:
                context.error(error.message, hint=error.hint)
                failed = True
                continue
            for doc in docs:
                if printed:
                    print("\n")
                for line in described(target.resource, doc, _events(client, target.resource, doc)):
                    print(line)
                printed = True
    if not printed and not failed:
        context.note("No resources found.")
    return 1 if failed else 0


def described(resource: Resource, doc: Doc, events: list[Doc]) -> Iterator[str]:
    """The lines that describe an object."""
    metadata = dict(doc["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(LAST_APPLIED, None)  # the manifest again, on one line
    metadata["annotations"] = annotations
    for key in _HEAD:
        if key != "namespace" or resource.namespaced:
            yield from _pair(_title(key), metadata.get(key), "")
    yield from _pair("Kind", f"{resource.kind} ({resource.api_version})", "")
    for key, value in doc.items():
        if key in _OMITTED:
            continue
        if resource.kind == "Secret" and key in ("data", "stringData"):
            value = {k: f"{len(v or '')} characters, not shown" for k, v in (value or {}).items()}
        if key == "status" and isinstance(value, dict):
            conditions = value.get("conditions") or []
            rest = {k: v for k, v in value.items() if k != "conditions"}
            yield from _pair("Status", rest, "")
            yield from _conditions(conditions)
        else:
            yield from _pair(_title(key), value, "")
    yield from _event_table(events)


def _events(client: Client, resource: Resource, doc: Doc) -> list[Doc]:
    metadata = doc["metadata"]
    wanted = f"involvedObject.name={metadata['name']},involvedObject.kind={resource.kind}"
    found = client.list(
        "events", namespace=metadata.get("namespace", ""), select=Selection(fields=wanted)
    )
    uid = metadata.get("uid")
    events: list[Doc] = [
        event for event in found["items"] if event["involvedObject"].get("uid") in (None, "", uid)
    ]
    # Many happen in one second: those are in the order in which they were written.
    return sorted(events, key=lambda e: (_last_seen(e), int(e["metadata"]["resourceVersion"])))


def _conditions(conditions: list[Doc]) -> Iterator[str]:
    if not conditions:
        return
    yield "Conditions:"
    rows = [["Type", "Status", "Reason", "Message"]]
    rows += [
        [str(c.get(key) or "") for key in ("type", "status", "reason", "message")]
        for c in conditions
    ]
    sizes = output.widths(rows)
    for row in rows:
        yield _INDENT + output.line(row, sizes)


def _event_table(events: list[Doc]) -> Iterator[str]:
    if not events:
        yield f"{'Events:':<{_COLUMN}}<none>"
        return
    yield "Events:"
    rows = [["Type", "Reason", "Age", "From", "Message"]]
    for event in events:
        count = event.get("count") or (event.get("series") or {}).get("count") or 1
        age = _age(_last_seen(event)) + (f" (x{count})" if count > 1 else "")
        source = (event.get("source") or {}).get("component") or event.get("reportingComponent")
        message = " ".join(str(event.get("message") or "").split())
        rows.append(
            [event.get("type") or "", event.get("reason") or "", age, source or "", message]
        )
    sizes = output.widths(rows)
    for row in rows:
        yield _INDENT + output.line(row, sizes)


def _pair(title: str, value: Any, indent: str) -> Iterator[str]:
    """``Title:   value``, a mapping or list indented below its title."""
    label = f"{indent}{title}:"
    if isinstance(value, dict) and value:
        yield label
        for key, inner in value.items():
            # The keys of labels and annotations are names, not words to be set apart.
            name = key if "/" in key or "." in key or title in _VERBATIM else _title(key)
            yield from _pair(name, inner, indent + _INDENT)
    elif isinstance(value, list) and value:
        yield label
        for item in value:
            yield from _item(item, indent + _INDENT)
    else:
        shown = "<none>" if value in (None, "", {}, []) else _scalar(value)
        first, *more = shown.split("\n")
        yield f"{label:<{_COLUMN}}{first}" if len(label) < _COLUMN else f"{label} {first}"
        for line in more:
            yield f"{indent}{_INDENT}{line}"


_VERBATIM = {"Labels", "Annotations", "Data", "Match Labels", "Limits", "Requests"}


def _item(item: Any, indent: str) -> Iterator[str]:
    if not isinstance(item, dict) or not item:
        yield f"{indent}- {_scalar(item)}"
        return
    lines = [
        line for key, value in item.items() for line in _pair(_title(key), value, indent + _INDENT)
    ]
    yield f"{indent}- {lines[0].lstrip()}"
    yield from lines[1:]


def _scalar(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _title(key: str) -> str:
    """``podIPs`` -> ``Pod IPs``, ``creationTimestamp`` -> ``Creation Timestamp``"""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key).split(" ")
    return " ".join(_ACRONYMS.get(word.lower(), word[:1].upper() + word[1:]) for word in words)


_ACRONYMS = {"cpu": "CPU", "dns": "DNS", "ip": "IP", "qos": "QoS", "uid": "UID", "uuid": "UUID"}


def _last_seen(event: Doc) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _age(stamp: str) -> str:
    try:
        then = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
