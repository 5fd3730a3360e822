"""The command ``tandem``: finds the verb, imports the one module behind it, and ends as a program
should.

Every verb is a module with ``arguments(parser, verb)`` and ``run(args, context) -> exit code``, and only
the one asked for is imported, which is how the whole process stays under a tenth of a second. Exit
codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

from tandem.cli.context import Context, UsageError
from tandem.config import InvalidSetting
from tandem.errors import TandemError

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
# 128 + SIGPIPE: what a program that was killed by a closed pipe leaves in the shell.
EXIT_PIPE_CLOSED = 141


class Verb(NamedTuple):
    """Where a verb lives and what it is for, in one line."""

    module: str
    help: str


GROUPS: dict[str, dict[str, Verb]] = {
    "the daemon": {
        "up": Verb(
            "tandem.cli.lifecycle", "start the runtimes and the daemon, and write the kubeconfig"
        ),
        "down": Verb("tandem.cli.lifecycle", "stop the daemon; workloads keep running"),
        "status": Verb("tandem.cli.status", "say whether the daemon serves, and what runs"),
        "doctor": Verb("tandem.cli.doctor", "check this machine, and say how to fix what is wrong"),
        "serve": Verb("tandem.daemon", "run the daemon in the foreground"),
        "kubeconfig": Verb("tandem.cli.kubeconfig", "print the kubeconfig"),
    },
    "objects": {
        "apply": Verb("tandem.cli.apply", "create or change objects from manifests"),
        "get": Verb("tandem.cli.get", "list objects, or watch them"),
        "describe": Verb("tandem.cli.describe", "show an object with its conditions and events"),
        "delete": Verb("tandem.cli.delete", "delete objects"),
        "logs": Verb("tandem.cli.logs", "print the output of a container or a machine"),
    },
    "virtual machines": {
        "start": Verb("tandem.cli.machines", "start a machine"),
        "stop": Verb("tandem.cli.machines", "stop a machine"),
        "console": Verb("tandem.cli.console", "open a machine's serial console"),
    },
    "this program": {
        "version": Verb("tandem.cli.status", "print the version of this program and of the daemon"),
        "completion": Verb(
            "tandem.cli.completion", "print a script that completes commands in a shell"
        ),
    },
}
VERBS: dict[str, Verb] = {name: verb for group in GROUPS.values() for name, verb in group.items()}

# Called by the completion scripts only, so not listed.
_HIDDEN = {"__complete": Verb("tandem.cli.completion", "")}


def main(argv: Sequence[str] | None = None, context: Context | None = None) -> int:
    """Run one command; returns its exit code, and raises nothing a user could cause."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    context = context or Context()
    debug = bool(context.environ.get("TANDEM_DEBUG")) or "--debug" in arguments
    try:
        try:
            code = _dispatch(arguments, context)
        except SystemExit as stop:  # argparse, after --help or a usage error
            code = stop.code if isinstance(stop.code, int) else EXIT_USAGE
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has gone. The interpreter flushes once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except TandemError as error:
        if debug:
            raise
        context.error(error.message, hint=error.hint)
        return EXIT_USAGE if isinstance(error, InvalidSetting | UsageError) else EXIT_ERROR
    except Exception as error:
        if debug:
            raise
        context.error(
            f"{type(error).__name__}: {error}",
            hint="this should not happen: run again with --debug and report what it prints",
        )
        return EXIT_ERROR


class Parser(argparse.ArgumentParser):
    """Errors in the form that every command uses: one line, and one with what to do."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and leave with 2."""
        self.exit(EXIT_USAGE, f"error: {message}\nhint: {self.prog} --help\n")


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one verb, with everything it takes."""
    verb = (VERBS | _HIDDEN)[name]
    parser = Parser(
        prog=f"tandem {name}",
        description=f"{verb.help[:1].upper()}{verb.help[1:]}.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    import_module(verb.module).arguments(parser, name)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def help_text() -> str:
    """What ``tandem --help`` prints."""
    lines = ["usage: tandem COMMAND [ARGUMENTS]", ""]
    lines += ["Containers and virtual machines behind one Kubernetes API.", ""]
    for group, verbs in GROUPS.items():
        lines.append(f"{group}:")
        lines += [f"  {name:<11} {verb.help}" for name, verb in verbs.items()]
        lines.append("")
    lines.append("'tandem COMMAND --help' says more. First of all: tandem up")
    return "\n".join(lines)


def _dispatch(arguments: list[str], context: Context) -> int:
    while arguments[:1] == ["--debug"]:
        arguments.pop(0)
    if not arguments:
        print(help_text(), file=sys.stderr)
        return EXIT_USAGE
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        if rest and rest[0] in VERBS:
            parser_of(rest[0]).print_help()
        else:
            print(help_text())
        return 0
    if name == "--version":
        name = "version"
        rest = ["--client"]
    if name not in VERBS | _HIDDEN:
        from difflib import get_close_matches

        near = get_close_matches(name, VERBS, n=1)
        context.error(
            f"unknown command {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else "tandem --help lists the commands",
        )
        return EXIT_USAGE
    args = parser_of(name).parse_args(rest)
    args.verb = name
    code: int = import_module((VERBS | _HIDDEN)[name].module).run(args, context)
    return code


if __name__ == "__main__":
    sys.exit(main())
