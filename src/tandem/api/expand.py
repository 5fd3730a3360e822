"""``$(NAME)`` in a container's command, arguments and environment, as Kubernetes has it.

``$(NAME)`` becomes the variable's value, and stays as it is when there is none; ``$$`` is one dollar
sign, which keeps the next character from meaning anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[^()]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with the references to ``variables`` replaced."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match["name"], match[0])

    return _REFERENCE.sub(replace, text)
