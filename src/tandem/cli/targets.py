"""Which objects a command line names: ``pod web``, ``pod/web vm/db``, ``pods -l app=x``, ``-f file``."""

from __future__ import annotations

from dataclasses import dataclass

from tandem.cli.context import UsageError
from tandem.client.resources import Resource
from tandem.client.sync import Client


@dataclass(frozen=True, slots=True)
class Target:
    """Objects of one kind: those named, or all that are selected when ``names`` is empty."""

    resource: Resource
    names: tuple[str, ...] = ()


def targets(client: Client, words: list[str]) -> list[Target]:
    """What ``words`` name. Raises ``UsageError`` for a mixture, ``NotFound`` for unknown kinds."""
    if not words:
        raise UsageError(
            "which objects? give a kind (pods), a kind and names (pod web) or kind/name",
        )
    resources = client.resources()
    if any("/" in word for word in words):
        found = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not (kind and slash and name) or "/" in name:
                raise UsageError(f"{word!r}: once one object is given as kind/name, all must be")
            found.append(Target(resources.find(kind), (name,)))
        return found
    kinds, *names = words
    chosen = resources.find_all(kinds)
    if not chosen:
        raise UsageError("which objects? no kind is named")
    return [Target(resource, tuple(names)) for resource in chosen]
