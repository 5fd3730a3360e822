"""``tandem doctor``: checks this machine and says how to mend what is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from tandem.cli import output
from tandem.cli.checks import Check, all_checks
from tandem.cli.context import Context, add_settings

_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Every setting is a flag, as what is checked depends on them."""
    parser.add_argument("-o", "--output", choices=("json", "yaml"), help="for programs")
    add_settings(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Print each check as it is made; 1 when something essential is wrong."""
    settings = context.settings(args)
    made: list[Check] = []
    for check in all_checks(settings):
        made.append(check)
        if not args.output:
            print(_line(check, colour=sys.stdout.isatty() and "NO_COLOR" not in context.environ))
            if check.problem:
                print(f"      fix: {check.fix}")
            sys.stdout.flush()
    failed = [check for check in made if check.verdict == "fail"]
    if args.output:
        checks = [dataclasses.asdict(check) | {"verdict": check.verdict} for check in made]
        output.print_value({"healthy": not failed, "checks": checks}, args.output)
    elif failed:
        context.error(f"{len(failed)} of {len(made)} checks failed")
    return 1 if failed else 0


def _line(check: Check, *, colour: bool) -> str:
    verdict = f"{check.verdict:<4}"
    if colour:
        verdict = f"\033[{_COLOURS[check.verdict]}m{verdict}\033[0m"
    return f"{verdict}  {check.name}: {check.problem or check.detail}"
