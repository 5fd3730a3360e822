"""Objects as bytes and back, at C speed: every document that passes through the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tandem.api.kind import Doc

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
decode: Callable[[bytes], Doc] = msgspec.json.Decoder(dict[str, Any]).decode


def clone(doc: Doc) -> Doc:
    """A deep copy, several times faster than ``copy.deepcopy``."""
    return decode(encode(doc))
