"""Structural validation (types, required and unknown fields) from the OpenAPI definitions."""

from __future__ import annotations

from dataclasses import dataclass, field

from tandem.api.kind import Doc
from tandem.errors import Cause


@dataclass(slots=True)
class SchemaReport:
    """What is wrong with a document's structure."""

    causes: list[Cause] = field(default_factory=list)
    unknown_fields: list[str] = field(default_factory=list)

    def tidy(self) -> None:
        """Apply what decoding does to a document: unknown fields and nulls go."""


def check(doc: Doc, schema_name: str) -> SchemaReport:
    """Hold ``doc`` against a definition."""
    return SchemaReport()
