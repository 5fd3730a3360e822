"""Prints objects: tables as the server laid them out, and JSON, YAML or names for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tandem.client.request import Doc
from tandem.client.resources import Resource

FORMATS = ("json", "yaml", "wide", "name")
_GAP = "   "


def print_json(value: Any) -> None:
    """As kubectl prints it: indented by four."""
    print(json.dumps(value, indent=4, ensure_ascii=False))


def print_yaml(value: Any) -> None:
    """YAML with text of several lines as a block, keys sorted as kubectl does."""
    sys.stdout.write(to_yaml(value))


def to_yaml(value: Any) -> str:
    """``value`` as YAML."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """The safe dumper, without its aliases: a manifest is read by people."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: Any, data: str) -> Any:
        style = "|" if "\n" in data else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    written: str = yaml.dump(
        value, Dumper=Dumper, default_flow_style=False, allow_unicode=True, width=1 << 16
    )
    return written


def print_value(value: Any, form: str) -> None:
    """``json`` or ``yaml``."""
    print_json(value) if form == "json" else print_yaml(value)


class TablePrinter:
    """Prints tables that arrive in pieces, as a watch brings them: columns keep the widths that they
    have, and grow when something longer comes."""

    def __init__(
        self,
        resource: Resource,
        *,
        wide: bool = False,
        namespaces: bool = False,
        prefix: bool = False,
        headers: bool = True,
    ) -> None:
        self._resource = resource
        self._wide = wide
        self._namespaces = namespaces and resource.namespaced
        self._prefix = prefix
        self._headers = headers
        self._widths: list[int] = []
        self._columns: list[Doc] = []

    def rows(self, table: Doc) -> list[list[str]]:
        """The cells to show, as text."""
        self._columns = table.get("columnDefinitions") or self._columns
        shown = [i for i, c in enumerate(self._columns) if self._wide or not c.get("priority")]
        found = []
        for row in table.get("rows") or ():
            cells = [_text(row["cells"][i]) for i in shown]
            if self._prefix and cells:
                cells[0] = f"{self._resource.qualified_singular}/{cells[0]}"
            if self._namespaces:
                cells.insert(0, row.get("object", {}).get("metadata", {}).get("namespace", ""))
            found.append(cells)
        return found

    def print(self, table: Doc) -> None:
        """Print a table; its headers only the first time."""
        rows = self.rows(table)
        if self._headers and not self._widths:
            names = [
                c["name"].upper() for c in self._columns if self._wide or not c.get("priority")
            ]
            rows.insert(0, (["NAMESPACE"] if self._namespaces else []) + names)
        self._widths = widths(rows, self._widths)
        for row in rows:
            print(line(row, self._widths))
        sys.stdout.flush()


def print_columns(rows: Sequence[Sequence[str]], *, indent: str = "") -> None:
    """Rows of text in aligned columns."""
    sizes = widths(rows)
    for row in rows:
        print(indent + line(row, sizes))


def widths(rows: Iterable[Sequence[str]], least: Sequence[int] = ()) -> list[int]:
    """How wide each column must be."""
    found = list(least)
    for row in rows:
        found += [0] * (len(row) - len(found))
        found[: len(row)] = [max(w, len(c)) for w, c in zip(found, row, strict=False)]
    return found


def line(row: Sequence[str], sizes: Sequence[int]) -> str:
    """One row, padded but for its end."""
    return _GAP.join(cell.ljust(size) for cell, size in zip(row, sizes, strict=False)).rstrip()


def typed(doc: Doc, resource: Resource) -> Doc:
    """An item of a list with the apiVersion and kind that lists leave out."""
    return {"apiVersion": resource.api_version, "kind": resource.kind} | doc


def reference(resource: Resource, name: str) -> str:
    """``pod/web``, ``virtualmachine.kubevirt.io/db``"""
    return f"{resource.qualified_singular}/{name}"


def _text(cell: Any) -> str:
    if cell is None:
        return "<none>"
    if isinstance(cell, bool):
        return str(cell).lower()
    # A cell is one line: what a workload wrote must not forge rows or drive the terminal.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(cell))
