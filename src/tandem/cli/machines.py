"""``tandem start`` and ``tandem stop``: turns virtual machines on and off, keeping them declared."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tandem.cli.context import Context, UsageError, add_client
from tandem.client.request import Request, machine_path
from tandem.errors import TandemError

_KINDS = ("vm", "vms", "virtualmachine", "virtualmachines", "virtualmachine.kubevirt.io")


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``start`` and ``stop``."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="a machine: web, or vm/web")
    if verb == "start":
        parser.add_argument("--paused", action="store_true", help="start it frozen")
    else:
        parser.add_argument(
            "--grace-period",
            type=int,
            metavar="SECONDS",
            help="how long the guest has to shut down; 0: switch it off",
        )
    add_client(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Ask for each machine; 1 if one was refused."""
    body: dict[str, Any] = {}
    if args.verb == "start" and args.paused:
        body["paused"] = True
    if args.verb == "stop" and args.grace_period is not None:
        body["gracePeriod"] = args.grace_period
    failed = 0
    with context.client(args) as client:
        for word in args.names:
            name = machine_name(word)
            try:
                space = args.namespace or client.access.namespace
                path = machine_path(space, "virtualmachines", name, args.verb)
                client.send(Request("PUT", path, body=json.dumps(body).encode()))
                print(f"virtualmachine.kubevirt.io/{name} {_DONE[args.verb]}", flush=True)
            except TandemError as error:
                failed += 1
                context.error(error.message, hint=error.hint)
    return 1 if failed else 0


_DONE = {"start": "starting", "stop": "stopping"}


def machine_name(word: str) -> str:
    """``web`` of ``web`` or ``vm/web``. Raises ``UsageError`` for another kind."""
    kind, slash, name = word.rpartition("/")
    if not name or (
        slash and kind not in _KINDS and not kind.startswith(("vmi", "virtualmachine"))
    ):
        raise UsageError(f"{word!r} is not a virtual machine: give NAME or vm/NAME")
    return name
