"""``tandem logs``: what a container printed, or a machine wrote to its serial console."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tandem.cli.context import Context, UsageError, add_client
from tandem.cli.targets import targets
from tandem.client.request import LogSlice
from tandem.client.sync import Client


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``logs``."""
    parser.add_argument("object", metavar="POD | vm/NAME")
    parser.add_argument("container", nargs="?", metavar="CONTAINER")
    parser.add_argument(
        "-c", "--container", dest="chosen", metavar="NAME", help="which container of the Pod"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it is written")
    parser.add_argument("-p", "--previous", action="store_true", help="of the attempt before")
    parser.add_argument("--tail", type=int, metavar="LINES", help="only this many, from the end")
    parser.add_argument("--timestamps", action="store_true", help="when each line was written")
    add_client(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Copy the output to stdout as it comes, byte for byte."""
    if args.tail is not None and args.tail < 0:
        raise UsageError("--tail must be 0 or more lines")
    part = LogSlice(args.follow, args.previous, args.timestamps, args.tail)
    with context.client(args) as client:
        for chunk in _output(client, args, part):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    return 0


def _output(client: Client, args: argparse.Namespace, part: LogSlice) -> Iterator[bytes]:
    container = args.chosen or args.container or ""
    if "/" not in args.object:
        return client.log(args.object, container, namespace=args.namespace, part=part)
    [target] = targets(client, [args.object])
    if target.resource.plural == "pods":
        return client.log(target.names[0], container, namespace=args.namespace, part=part)
    if target.resource.plural in ("virtualmachines", "virtualmachineinstances"):
        if container:
            raise UsageError("a machine has no containers: leave out -c")
        return client.machine_log(target.names[0], namespace=args.namespace, part=part)
    raise UsageError(f"a {target.resource.singular} writes no log: give POD or vm/NAME")
