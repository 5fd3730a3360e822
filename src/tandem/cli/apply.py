"""``tandem apply``: makes the objects in manifests so, whether they exist or not.

The same way as kubectl's, and with its own annotation, so that both may be used on one object: what
was applied last is remembered in the object; a field that is gone from the manifest since is removed,
and a field that somebody else set is left alone.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from tandem.cli import manifests, output
from tandem.cli.context import Context, UsageError, add_client
from tandem.cli.manifests import Manifest
from tandem.client.request import Doc
from tandem.client.sync import Client
from tandem.errors import AlreadyExists, NotFound, TandemError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``apply``."""
    add_files(parser, required=True)
    parser.add_argument(
        "--strict", action="store_true", help="refuse unknown fields instead of warning"
    )
    add_client(parser)


def add_files(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """``-f`` and ``-R``."""
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        default=[],
        required=required,
        metavar="FILE",
        help="a file, a directory, or - for stdin; may be repeated",
    )
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="directories with all that is below them"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Apply every object; go on after a failure, and leave with 1 if there was one."""
    found = manifests.read(args.filename, recursive=args.recursive)
    failed = 0
    with context.client(args) as client:
        client.resources()  # unreachable: said once, not for every object
        for manifest in found:
            try:
                print(_apply(client, manifest, args.namespace, strict=args.strict), flush=True)
            except TandemError as error:
                failed += 1
                context.error(f"{manifest.source}: {error.message}", hint=error.hint)
    return 1 if failed else 0


def namespace_of(manifest: Manifest, asked: str | None, client: Client) -> str:
    """Where a manifest's object lives. Raises ``UsageError`` when flag and manifest disagree."""
    if asked and manifest.namespace and asked != manifest.namespace:
        raise UsageError(f"the manifest says namespace {manifest.namespace!r}, the flag {asked!r}")
    return manifest.namespace or asked or client.access.namespace


def _apply(client: Client, manifest: Manifest, asked: str | None, *, strict: bool) -> str:
    resource = client.resources().by_kind(manifest.api_version, manifest.kind)
    namespace = namespace_of(manifest, asked, client)
    if not manifest.name:
        if not manifest.doc.get("metadata", {}).get("generateName"):
            raise UsageError("metadata.name is missing")
        made = client.create(resource, manifest.doc, namespace=namespace, strict=strict)
        return f"{output.reference(resource, made['metadata']['name'])} created"
    named = output.reference(resource, manifest.name)
    wanted = annotated(manifest.doc)
    try:
        live = client.get(resource, manifest.name, namespace=namespace)
    except NotFound:
        try:
            client.create(resource, wanted, namespace=namespace, strict=strict)
            return f"{named} created"
        except AlreadyExists:  # somebody was faster
            live = client.get(resource, manifest.name, namespace=namespace)
    change = three_way(_last_applied(live), wanted, live)
    if not change:
        return f"{named} unchanged"
    after = client.patch(resource, manifest.name, change, namespace=namespace, strict=strict)
    same = after["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
    return f"{named} {'unchanged' if same else 'configured'}"


def annotated(doc: Doc) -> Doc:
    """``doc`` with itself in its annotation."""
    metadata = dict(doc.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(LAST_APPLIED, None)
    plain = {**doc, "metadata": {**metadata, "annotations": annotations}}
    written = json.dumps(plain, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"
    return {**doc, "metadata": {**metadata, "annotations": annotations | {LAST_APPLIED: written}}}


def three_way(last: Doc, wanted: Doc, live: Doc) -> Doc:
    """The JSON merge patch that brings ``live`` to ``wanted``.

    A key of ``last`` that ``wanted`` no longer has is removed; one that only ``live`` has stays.
    """
    patch: Doc = {}
    for key, value in wanted.items():
        had, has = last.get(key), live.get(key)
        if isinstance(value, dict) and isinstance(has, dict):
            if inner := three_way(had if isinstance(had, dict) else {}, value, has):
                patch[key] = inner
        elif has != value and not (had == value and _covers(has, value)):
            patch[key] = value
    for key in last:
        if key not in wanted and key in live:
            patch[key] = None
    return patch


def _covers(live: Any, wanted: Any) -> bool:
    """Whether ``live`` is ``wanted`` with nothing but the server's defaults added."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return all(key in live and _covers(live[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(wanted) == len(live) and all(map(_covers, live, wanted))
    return bool(live == wanted)


def _last_applied(live: Doc) -> Doc:
    written = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED, "{}")
    try:
        last = json.loads(written)
    except ValueError:
        return {}
    return last if isinstance(last, dict) else {}
