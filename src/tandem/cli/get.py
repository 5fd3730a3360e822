"""``tandem get``: lists objects in the server's own columns, or watches them."""

from __future__ import annotations

import argparse

from tandem.cli import output
from tandem.cli.context import Context, UsageError, add_client
from tandem.cli.targets import Target, targets
from tandem.client import request as requests
from tandem.client.request import Doc, Selection
from tandem.client.sync import PAGE, Client
from tandem.errors import NotFound, TandemError


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``get``."""
    parser.add_argument("objects", nargs="+", metavar="KIND[,KIND] [NAME...] | KIND/NAME")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="in all namespaces")
    add_selection(parser)
    parser.add_argument("-o", "--output", choices=output.FORMATS, help="instead of plain columns")
    parser.add_argument("-w", "--watch", action="store_true", help="go on with every change")
    parser.add_argument("--no-headers", action="store_true", help="without the line of headers")
    add_client(parser)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Selectors, as every command that takes several objects has them."""
    parser.add_argument(
        "-l", "--selector", default="", metavar="LABELS", help="only with these labels (app=web)"
    )
    parser.add_argument(
        "--field-selector", default="", metavar="FIELDS", help="only with these field values"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Print what is asked for; 1 when something named is not there."""
    with context.client(args) as client:
        namespace = "" if args.all_namespaces else (args.namespace or client.access.namespace)
        chosen = targets(client, args.objects)
        select = Selection(args.selector, args.field_selector)
        if any(target.names for target in chosen):
            if args.all_namespaces:
                raise UsageError("a name is looked up in one namespace: leave out -A")
            if args.selector or args.field_selector:
                raise UsageError("give names or a selector, not both")
        if args.watch:
            return _watch(args, client, chosen, namespace, select)
        if args.output in ("json", "yaml", "name"):
            return _print_objects(args, context, client, chosen, namespace, select)
        return _print_tables(args, context, client, chosen, namespace, select)


def _print_tables(
    args: argparse.Namespace,
    context: Context,
    client: Client,
    chosen: list[Target],
    namespace: str,
    select: Selection,
) -> int:
    several = len({target.resource for target in chosen}) > 1
    failed, printed, last = False, False, None
    printer: output.TablePrinter | None = None
    for target in chosen:
        try:
            pieces = _tables(client, target, namespace, select)
        except NotFound as error:
            context.error(error.message, hint=error.hint)
            failed = True
            continue
        if not any(piece.get("rows") for piece in pieces):
            continue
        if printer is None or target.resource != last:
            if printed:
                print()
            printer = _printer(args, target, prefix=several)
            last = target.resource
        printer.print(_joined(pieces))
        printed = True
    if not printed and not failed:
        where = f"in {namespace} namespace" if namespace else ""
        context.note(" ".join(f"No resources found {where}".split()) + ".")
    return 1 if failed else 0


def _tables(client: Client, target: Target, namespace: str, select: Selection) -> list[Doc]:
    if target.names:
        return [
            client.send(requests.get(target.resource, namespace, name, accept=requests.TABLE))
            for name in target.names
        ]
    pieces: list[Doc] = []
    page = ""
    while True:
        question = requests.list_(
            target.resource, namespace, select=select, limit=PAGE, page=page, accept=requests.TABLE
        )
        pieces.append(client.send(question))
        page = pieces[-1].get("metadata", {}).get("continue", "")
        if not page:
            return pieces


def _joined(pieces: list[Doc]) -> Doc:
    return {**pieces[0], "rows": [row for piece in pieces for row in piece.get("rows") or ()]}


def _printer(args: argparse.Namespace, target: Target, *, prefix: bool) -> output.TablePrinter:
    return output.TablePrinter(
        target.resource,
        wide=args.output == "wide",
        namespaces=args.all_namespaces,
        prefix=prefix,
        headers=not args.no_headers,
    )


def _print_objects(
    args: argparse.Namespace,
    context: Context,
    client: Client,
    chosen: list[Target],
    namespace: str,
    select: Selection,
) -> int:
    found: list[tuple[Target, Doc]] = []
    failed = False
    for target in chosen:
        try:
            if target.names:
                docs = [
                    client.get(target.resource, name, namespace=namespace) for name in target.names
                ]
            else:
                docs = client.list(target.resource, namespace=namespace, select=select)["items"]
            found += [(target, output.typed(doc, target.resource)) for doc in docs]
        except NotFound as error:
            context.error(error.message, hint=error.hint)
            failed = True
    if args.output == "name":
        for target, doc in found:
            print(output.reference(target.resource, doc["metadata"]["name"]))
    elif len(found) == 1 and chosen[0].names:
        output.print_value(found[0][1], args.output)
    elif found or not failed:
        items = [doc for _, doc in found]
        whole = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}
        output.print_value(whole, args.output)
    return 1 if failed else 0


def _watch(
    args: argparse.Namespace,
    client: Client,
    chosen: list[Target],
    namespace: str,
    select: Selection,
) -> int:
    if len(chosen) != 1 or len(chosen[0].names) > 1:
        raise UsageError("one kind, or one object, can be watched at a time")
    target = chosen[0]
    if target.names:
        client.get(target.resource, target.names[0], namespace=namespace)  # NotFound, in words
        select = Selection(fields=f"metadata.name={target.names[0]}")
    if args.output in ("json", "yaml", "name"):
        return _watch_objects(args, client, target, namespace, select)
    printer = _printer(args, target, prefix=False)
    whole = _joined(_tables(client, Target(target.resource), namespace, select))
    printer.print(whole)
    question = requests.watch(
        target.resource,
        namespace,
        since=whole["metadata"]["resourceVersion"],
        select=select,
        accept=requests.TABLE,
    )
    for line in client.lines(question):
        kind, table = requests.watch_event(line)
        if kind != "BOOKMARK":
            printer.print(table)
    return 0


def _watch_objects(
    args: argparse.Namespace, client: Client, target: Target, namespace: str, select: Selection
) -> int:
    def show(doc: Doc) -> None:
        if args.output == "name":
            print(output.reference(target.resource, doc["metadata"]["name"]), flush=True)
            return
        if args.output == "yaml":
            print("---")
        output.print_value(output.typed(doc, target.resource), args.output)
        print(end="", flush=True)

    whole = client.list(target.resource, namespace=namespace, select=select)
    for doc in whole["items"]:
        show(doc)
    since = whole["metadata"]["resourceVersion"]
    try:
        for kind, doc in client.watch(
            target.resource, namespace=namespace, since=since, select=select
        ):
            if kind != "BOOKMARK":
                show(doc)
    except TandemError as error:
        error.hint = error.hint or "watch again"
        raise
    return 0
