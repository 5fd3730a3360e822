"""``tandem status`` and ``tandem version``: is it serving, with what, and what runs on it."""

from __future__ import annotations

import argparse

from tandem import __version__
from tandem.cli import output
from tandem.cli.context import Context, add_client
from tandem.client.request import Doc, Request
from tandem.errors import NotFound, TandemError, Unavailable

STATUS_PATH = "/statusz"
"""Where the daemon tells about itself: its version, runtimes and the number of its objects."""


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``status`` and ``version``."""
    parser.add_argument("-o", "--output", choices=("json", "yaml"), help="for programs")
    if verb == "version":
        parser.add_argument("--client", action="store_true", help="do not ask the daemon")
    add_client(parser, namespace=False)


def run(args: argparse.Namespace, context: Context) -> int:
    """``status`` or ``version``."""
    return _version(args, context) if args.verb == "version" else _status(args, context)


def fetch(context: Context, args: argparse.Namespace) -> Doc:
    """What the daemon says of itself, and where it was asked. Raises ``Unavailable``, ``NotFound``
    (no kubeconfig)."""
    with context.client(args) as client:
        try:
            status: Doc = client.send(Request("GET", STATUS_PATH))
        except Unavailable as error:
            error.hint = "start the daemon: tandem up"
            raise
        return {"serving": True, "server": client.access.server, **status}


def runtime_line(runtime: Doc) -> str:
    """One runtime on one line: what it is, or what is wrong with it and what to do."""
    what = f"{runtime['type']}: "
    if not runtime["healthy"]:
        hint = f" (fix: {runtime['hint']})" if runtime["hint"] else ""
        return f"{what}not available: {runtime['problem']}{hint}"
    shown = f"{runtime['name']} {runtime['version']}"
    if accelerator := runtime["details"].get("accelerator"):
        why = runtime["details"].get("emulation_reason")
        shown += f", accelerator {accelerator}" + (f" ({why})" if why else "")
    return what + shown


def _status(args: argparse.Namespace, context: Context) -> int:
    try:
        status = fetch(context, args)
    except (Unavailable, NotFound) as error:
        if not args.output:
            raise
        output.print_value({"serving": False, "problem": error.message}, args.output)
        return 1
    if args.output:
        output.print_value(status, args.output)
        return 0
    print(f"serving   {status['server']} (version {status['version']}, process {status['pid']})")
    for runtime in status["runtimes"]:
        kind, _, rest = runtime_line(runtime).partition(": ")
        print(f"{kind:<9} {rest}")
    for resource, phases in status["objects"].items():
        total = sum(phases.values())
        counted = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()) if phase)
        print(f"{resource.partition('.')[0]}: {total}" + (f" ({counted})" if counted else ""))
    return 0


def _version(args: argparse.Namespace, context: Context) -> int:
    found: Doc = {"client": __version__}
    if not args.client:
        try:
            found["server"] = fetch(context, args)["version"]
        except TandemError as error:
            found["server"] = None
            if not args.output:
                context.note(f"the daemon cannot be asked: {error.message}")
    if args.output:
        output.print_value(found, args.output)
        return 0
    for side, version in found.items():
        if version:
            print(f"{side} {version}")
    return 0
