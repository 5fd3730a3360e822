"""``tandem completion``: scripts that make a shell complete commands, flags and names of objects.

The scripts know nothing: they call ``tandem __complete WORDS...`` and offer what it prints, so they
never grow old.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise

from tandem.cli.context import Context
from tandem.errors import TandemError

# Printed instead of words when the shell shall offer files.
_FILES = ":files"

_SCRIPTS = {
    "bash": """\
# Add to ~/.bashrc:  source <(tandem completion bash)
_tandem() {
    local words
    words=$(tandem __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [ "$words" = ":files" ]; then
        compopt -o default
        COMPREPLY=()
    else
        local IFS=$'\\n'
        COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _tandem tandem
""",
    "zsh": """\
#compdef tandem
# Add to ~/.zshrc:  source <(tandem completion zsh)
_tandem() {
    local -a found
    found=(${(f)"$(tandem __complete -- ${words[2,CURRENT]} 2>/dev/null)"})
    if [[ "$found" == ":files" ]]; then
        _files
    else
        compadd -a found
    fi
}
compdef _tandem tandem
""",
    "fish": """\
# Add to ~/.config/fish/completions/tandem.fish:  tandem completion fish
function __tandem_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (tandem __complete -- $words[2..-1] 2>/dev/null)
    if test "$found" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $found
    end
end
complete -c tandem -f -a '(__tandem_complete)'
""",
}
_TAKE_KINDS = ("get", "describe", "delete")
_TAKE_MACHINES = ("start", "stop", "console")


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The shell; or the words so far, for the scripts."""
    if verb == "completion":
        parser.add_argument("shell", choices=sorted(_SCRIPTS), help="the shell to complete in")
    else:
        parser.add_argument("words", nargs="*")


def run(args: argparse.Namespace, context: Context) -> int:
    """Print the script, or the possible words."""
    if args.verb == "completion":
        print(_SCRIPTS[args.shell], end="")
        return 0
    for word in candidates(args.words or [""], context):
        print(word)
    return 0


def candidates(words: list[str], context: Context) -> Iterator[str]:
    """What may stand in place of the last of ``words`` (which may be begun), after the others."""
    from tandem.cli.main import VERBS, parser_of

    *before, last = words
    if not before:
        yield from (verb for verb in VERBS if verb.startswith(last))
        return
    if before[0] not in VERBS:
        return
    parser = parser_of(before[0])
    flags = {flag: action for action in parser._actions for flag in action.option_strings}
    if (action := flags.get(before[-1])) and action.nargs != 0:
        yield from _values(action, last)
    elif last.startswith("-"):
        yield from sorted(flag for flag in flags if flag.startswith(last))
    else:
        positional = next((a for a in parser._actions if not a.option_strings and a.choices), None)
        if positional is not None and positional.choices is not None:
            yield from (choice for choice in positional.choices if choice.startswith(last))
            return
        try:
            yield from _names(parser, before, last, context)
        except TandemError:
            return  # no daemon, no names


def _values(action: argparse.Action, last: str) -> Iterator[str]:
    if action.choices is not None:
        yield from (choice for choice in action.choices if choice.startswith(last))
    else:
        yield _FILES


def _names(
    parser: argparse.ArgumentParser, before: list[str], last: str, context: Context
) -> Iterator[str]:
    verb = before[0]
    if verb not in (*_TAKE_KINDS, *_TAKE_MACHINES, "logs"):
        return
    # The command line is unfinished, so only what is surely there is taken from it.
    args = argparse.Namespace(kubeconfig=None, config=None, namespace=None)
    for flag, value in pairwise(before):
        if flag in ("-n", "--namespace"):
            args.namespace = value
        elif flag == "--kubeconfig":
            args.kubeconfig = value
    with context.client(args) as client:
        kind = "pods" if verb == "logs" else "virtualmachines"
        prefix = ""
        if verb in _TAKE_KINDS:
            given = [word for word in before[1:] if not word.startswith("-")]
            if "/" in last:
                kind, prefix = last.partition("/")[0], last.partition("/")[0] + "/"
            elif given:
                kind = given[0]
            else:
                yield from sorted(
                    resource.plural
                    for resource in client.resources()
                    if resource.plural.startswith(last)
                )
                return
        for doc in client.list(kind, namespace=args.namespace)["items"]:
            word = prefix + doc["metadata"]["name"]
            if word.startswith(last):
                yield word
