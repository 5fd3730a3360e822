"""Writes the parts of the documentation that the code knows best: settings, commands and flags.

    python tools/gen_docs.py

replaces what stands between the markers in docs/configuration.md and docs/cli.md. A test holds that
nothing is left to replace.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tandem.cli.context import shown_default
from tandem.cli.main import GROUPS, parser_of
from tandem.config import describe

DOCS = Path(__file__).parent.parent / "docs"

# Repeated under every command they would drown what is the command's own.
_SETTINGS = {setting.flag for setting in describe()}
_COMMON = {"-h", "--debug", "--config"}


def settings() -> Iterator[str]:
    """The settings, one section each."""
    for setting in describe():
        rule = " ".join((setting.rule.__doc__ or "").split()).rstrip(".")
        yield f"### `{setting.name}`"
        yield ""
        yield setting.doc
        yield ""
        yield f"- Value: {rule[:1].lower()}{rule[1:]}" if rule else "- Value: text"
        yield f"- Default: `{shown_default(setting.default)}`"
        yield f"- Flag: `{setting.flag}`, environment: `{setting.variable}`"
        yield ""


def commands() -> Iterator[str]:
    """The commands, one section each, with every flag that is not a setting."""
    for group, verbs in GROUPS.items():
        yield f"## {group[:1].upper()}{group[1:]}"
        yield ""
        for name, verb in verbs.items():
            parser = parser_of(name)
            yield f"### `tandem {name}`"
            yield ""
            yield f"{verb.help[:1].upper()}{verb.help[1:]}."
            yield ""
            yield f"    tandem {name}{''.join(f' {word}' for word in _positionals(parser))} [flags]"
            yield ""
            yield from _flags(parser)


def _positionals(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not action.option_strings:
            shown = str(action.metavar or "|".join(action.choices or ()) or action.dest.upper())
            yield f"[{shown}]" if action.nargs in ("?", "*") else shown


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    own = [a for a in parser._actions if a.option_strings]
    taken = sorted(_SETTINGS & {flag for action in own for flag in action.option_strings})
    rows = [a for a in own if not {*a.option_strings} & (_SETTINGS | _COMMON)]
    if rows:
        yield "| flag | meaning |"
        yield "|---|---|"
        for action in rows:
            value = "" if action.nargs == 0 else f" {_value(action)}"
            flags = ", ".join(f"`{flag}{value}`" for flag in action.option_strings)
            yield f"| {flags} | {(action.help or '').replace('%%', '%')} |"
        yield ""
    if len(taken) == len(_SETTINGS):
        yield "Every [setting](configuration.md) is a flag as well."
    else:
        yield f"Settings it takes as flags: {', '.join(f'`{flag}`' for flag in taken) or 'none'}."
    yield ""


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "\\|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


GENERATED = {
    "configuration.md": {"settings": settings},
    "cli.md": {"commands": commands},
}


def filled(text: str, name: str) -> str:
    """The page ``name`` with what stands between its markers made afresh."""
    for part, make in GENERATED[name].items():
        begin, end = f"<!-- {part}: made by tools/gen_docs.py -->", f"<!-- end of {part} -->"
        before, _, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not ended:
            raise ValueError(f"{name} has no place for {part}")
        body = "\n".join(make()).rstrip()
        text = f"{before}{begin}\n\n{body}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    for page in GENERATED:
        file = DOCS / page
        file.write_text(filled(file.read_text(encoding="utf-8"), page), encoding="utf-8")
