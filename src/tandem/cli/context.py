"""What every command needs from the world, in one object that a test can replace.

Output goes to stdout as it is meant to be read by a program; words for the person at the terminal go
to stderr. Colour and moving progress only ever go to a terminal.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.config import Settings, describe, load
from tandem.errors import TandemError

if TYPE_CHECKING:
    from tandem.client.kubeconfig import Access
    from tandem.client.sync import Client


class UsageError(TandemError):
    """Arguments that make no sense together."""


class Context:
    """``environ``, and ``connect``: how to make a client (the real one, unless a test says other)."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        connect: Callable[[Access], Client] | None = None,
    ) -> None:
        self.environ = os.environ if environ is None else environ
        self._connect = connect

    def settings(self, args: argparse.Namespace) -> Settings:
        """The settings in force, with the flags of this command on top."""
        return load(flags_of(args), environ=self.environ, file=getattr(args, "config", None))

    def access(self, args: argparse.Namespace) -> Access:
        """Where the daemon's API is, by the kubeconfig that the settings name."""
        from tandem.client.kubeconfig import load as load_access
        from tandem.errors import NotFound

        settings = self.settings(args)
        try:
            return load_access(settings.kubeconfig)
        except NotFound as error:
            error.hint = (
                "start the daemon first: tandem up (or name a kubeconfig with --kubeconfig)"
            )
            raise

    def client(self, args: argparse.Namespace) -> Client:
        """A client of the daemon. Warnings of the server are shown."""
        access = self.access(args)
        if self._connect is not None:
            return self._connect(access)
        from tandem.client.sync import Client

        return Client(access, on_warning=lambda sentence: self.note(f"Warning: {sentence}"))

    def note(self, words: str) -> None:
        """A line for the person, not part of the output."""
        print(words, file=sys.stderr)

    def error(self, words: str, *, hint: str | None = None) -> None:
        """One line that says what went wrong, and one that says what to do."""
        colour = sys.stderr.isatty() and not self.environ.get("NO_COLOR")
        label = "\033[31merror:\033[0m" if colour else "error:"
        print(label, " ".join(words.split()), file=sys.stderr)
        if hint:
            print("hint:", hint, file=sys.stderr)

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """Something that may take a while: named when it begins on a terminal, with the time it took
        when it ends. Where nobody watches, one plain line when it is done."""
        watched = sys.stderr.isatty()
        if watched:
            print(f"{words} ... ", end="", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            yield
        except BaseException:
            print("failed" if watched else f"{words}: failed", file=sys.stderr)
            raise
        took = time.monotonic() - began
        print(f"done ({took:.1f} s)" if watched else f"{words}: done", file=sys.stderr)


def flags_of(args: argparse.Namespace) -> dict[str, object]:
    """The settings that were given as flags, by name."""
    return {
        setting.name: value
        for setting in describe()
        if (value := getattr(args, setting.name, None)) is not None
    }


def add_settings(parser: argparse.ArgumentParser, *only: str) -> None:
    """Flags for every setting, or for those named, and ``--config``."""
    group = parser.add_argument_group(
        "settings", "each may also come from the environment or the settings file"
    )
    group.add_argument(
        "--config", type=Path, metavar="FILE", help="the settings file (/etc/tandem/config.yaml)"
    )
    for setting in describe():
        if not only or setting.name in only:
            doc = setting.doc.replace("`", "").replace("%", "%%")
            first = doc.partition(". ")[0].rstrip(".")
            group.add_argument(
                setting.flag, metavar="VALUE", help=f"{first} [{shown_default(setting.default)}]"
            )


def add_client(parser: argparse.ArgumentParser, *, namespace: bool = True) -> None:
    """The flags of a command that talks to the API."""
    if namespace:
        parser.add_argument("-n", "--namespace", metavar="NAME", help="the namespace to look in")
    add_settings(parser, "kubeconfig")


def shown_default(value: object) -> str:
    """A setting's default, as help and documentation write it."""
    if value in ("", (), {}):
        return "none"
    return str(value)
