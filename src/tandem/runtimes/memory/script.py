"""What a pretend workload does: a few shell-like words, turned into a plan of outputs and an end.

A container's command (or a domain's ``<description>``) is read as statements separated by ``;``,
also inside ``sh -c "..."``: ``echo WORDS``, ``sleep SECONDS``, ``exit CODE``, ``true``, ``false`` and
``ignore-stop`` (``trap '' TERM`` means the same). ``echo WORDS >PATH`` writes a file, of which only the
termination message is ever read. A program below ``/no/such/`` cannot be started. Any other
statement, and no statement at all, runs until it is stopped.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

_SHELLS = ("sh", "/bin/sh", "bash", "/bin/bash", "ash", "/bin/ash")


@dataclass(slots=True)
class Plan:
    """``outputs`` as (seconds after start, line); ``end`` as (seconds, exit code), None: never;
    ``files`` by path, as they are at the end; ``missing``: the program, when there is none."""

    outputs: list[tuple[float, bytes]] = field(default_factory=list)
    end: tuple[float, int] | None = None
    ignores_stop: bool = False
    files: dict[str, str] = field(default_factory=dict)
    missing: str = ""


def plan(command: Sequence[str]) -> Plan:
    """The plan of ``command`` (command and args together)."""
    words = list(command)
    if len(words) >= 3 and words[0] in _SHELLS and words[1] == "-c":
        statements = _split(words[2])
    else:
        statements = [words] if words else []
    result = Plan()
    clock, code = 0.0, 0
    for statement in statements:
        match statement:
            case [program, *_] if program.startswith("/no/such/"):
                result.missing = program
                return result
            case ["echo", *rest, file] if file.startswith(">"):
                result.files[file[1:]] = " ".join(rest) + "\n"
                code = 0
            case ["echo", *rest]:
                result.outputs.append((clock, (" ".join(rest) + "\n").encode()))
                code = 0
            case ["sleep", amount] if _is_number(amount):
                clock += float(amount)
                code = 0
            case ["exit", amount] if amount.isdigit():
                result.end = (clock, int(amount) & 0xFF)
                return result
            case ["true"]:
                code = 0
            case ["false"]:
                code = 1
            case ["ignore-stop"] | ["trap", "", "TERM"]:
                result.ignores_stop = True
                if len(statements) == 1:
                    return result
            case _:
                return result
    if statements:
        result.end = (clock, code)
    return result


def _split(script: str) -> list[list[str]]:
    try:
        words = shlex.split(script.replace(";", " ; ").replace("\n", " ; "))
    except ValueError:  # an open quote: a real shell would fail, here it simply runs
        return [["?"]]
    statements: list[list[str]] = [[]]
    for word in words:
        if word == ";":
            statements.append([])
        else:
            statements[-1].append(word)
    return [statement for statement in statements if statement]


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False
