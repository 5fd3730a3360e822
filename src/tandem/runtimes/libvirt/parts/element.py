"""What every part writes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tandem.errors import Cause, InvalidSpec

Doc = Mapping[str, Any]


def add(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    """A new last child of ``parent``."""
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def part(doc: Doc, *path: str) -> Doc:
    """The document below ``doc`` along ``path``, empty where there is none."""
    for name in path:
        doc = doc.get(name) or {}
    return doc


def is_on(feature: Doc | None, default: bool = False) -> bool:
    """Whether a feature is wanted: one that is given is, unless it says otherwise."""
    if feature is None:
        return default
    return feature.get("enabled") is not False


def virtio(wanted: Doc) -> str:
    """The model of virtio devices: modern ones only, as KubeVirt has it, unless old guests are
    expected."""
    transitional = wanted.get("useVirtioTransitional")
    return "virtio-transitional" if transitional else "virtio-non-transitional"


def refused(field: str, message: str) -> InvalidSpec:
    """What admission would have refused, and library use has not."""
    return InvalidSpec(f"{field}: {message}", causes=[Cause(field, message)])
