"""``tandem kubeconfig``: prints the kubeconfig that the daemon wrote."""

from __future__ import annotations

import argparse
import sys

from tandem.cli.context import Context, add_settings
from tandem.errors import NotFound, Unavailable


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``kubeconfig``."""
    add_settings(parser, "kubeconfig")


def run(args: argparse.Namespace, context: Context) -> int:
    """Print the file as it is. It holds a private key: print it to where only you can read."""
    path = context.settings(args).kubeconfig
    try:
        sys.stdout.write(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"there is no {path}", hint="start the daemon first: tandem up") from error
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}", hint="run as root") from error
    return 0
