"""``tandem delete``: deletes objects, and waits until they are gone."""

from __future__ import annotations

import argparse

from tandem.cli import manifests
from tandem.cli.apply import add_files, namespace_of
from tandem.cli.context import Context, UsageError, add_client
from tandem.cli.get import add_selection
from tandem.cli.targets import targets
from tandem.client.request import Doc, Selection
from tandem.client.resources import Resource
from tandem.client.sync import Client
from tandem.errors import Expired, NotFound, TandemError


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``delete``."""
    parser.add_argument("objects", nargs="*", metavar="KIND NAME... | KIND/NAME")
    add_files(parser, required=False)
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="every object of the kind")
    parser.add_argument(
        "--grace-period",
        type=int,
        metavar="SECONDS",
        help="how long workloads have to end by themselves; 0: none",
    )
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait until the objects are gone (default)",
    )
    parser.add_argument(
        "--ignore-not-found", action="store_true", help="what is not there counts as deleted"
    )
    add_client(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Delete every object, go on after a failure; 1 if there was one."""
    if bool(args.filename) == bool(args.objects):
        raise UsageError("which objects? give either -f FILE, or a kind and names")
    if args.grace_period is not None and args.grace_period < 0:
        raise UsageError("--grace-period must be 0 or more seconds")
    failed = 0
    pending: list[tuple[Resource, str, Doc]] = []
    with context.client(args) as client:
        for resource, namespace, name in _chosen(args, client):
            try:
                answer = client.delete(
                    resource, name, namespace=namespace, grace_seconds=args.grace_period
                )
                print(f'{resource.qualified_singular} "{name}" deleted', flush=True)
                if answer.get("kind") != "Status":
                    pending.append((resource, namespace, answer))
            except NotFound as error:
                if not args.ignore_not_found:
                    failed += 1
                    context.error(error.message, hint=error.hint)
            except TandemError as error:
                failed += 1
                context.error(error.message, hint=error.hint)
        if args.wait:
            for resource, namespace, doc in pending:
                wait_until_gone(client, resource, namespace, doc)
    return 1 if failed else 0


def wait_until_gone(client: Client, resource: Resource, namespace: str, doc: Doc) -> None:
    """Return when this very object (by its uid) no longer exists."""
    name, uid = doc["metadata"]["name"], doc["metadata"].get("uid")
    select = Selection(fields=f"metadata.name={name}")
    while True:
        listing = client.list(resource, namespace=namespace, select=select)
        if not any(item["metadata"].get("uid") == uid for item in listing["items"]):
            return
        since = listing["metadata"]["resourceVersion"]
        try:
            for kind, seen in client.watch(
                resource, namespace=namespace, since=since, select=select
            ):
                if kind == "DELETED" and seen["metadata"].get("uid") == uid:
                    return
        except Expired:
            continue  # the watch fell behind: list again


def _chosen(args: argparse.Namespace, client: Client) -> list[tuple[Resource, str, str]]:
    found: list[tuple[Resource, str, str]] = []
    if args.filename:
        # In reverse, so that what was made on top of something goes before it.
        for manifest in reversed(manifests.read(args.filename, recursive=args.recursive)):
            resource = client.resources().by_kind(manifest.api_version, manifest.kind)
            namespace = namespace_of(manifest, args.namespace, client)
            found.append((resource, namespace, manifest.name))
        return found
    namespace = args.namespace or client.access.namespace
    select = Selection(args.selector, args.field_selector)
    selected = bool(args.selector or args.field_selector or args.all)
    for target in targets(client, args.objects):
        if target.names and selected:
            raise UsageError("give names, a selector or --all, not several of them")
        if not target.names and not selected:
            raise UsageError(
                f"which {target.resource.plural}? give names, a selector (-l) or --all"
            )
        names = target.names or tuple(
            doc["metadata"]["name"]
            for doc in client.list(target.resource, namespace=namespace, select=select)["items"]
        )
        found += [(target.resource, namespace, name) for name in names]
    return found
