"""Draw a recorded terminal session as an SVG, for the README.

    python tools/terminal_svg.py TITLE < session.txt > docs/terminal.svg

Lines that start with ``$ `` are drawn as commands. The input is what was really printed: nothing is
added but the frame.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from html import escape

CELL_WIDTH, LINE_HEIGHT, MARGIN, TITLE_HEIGHT = 8.4, 19, 16, 34
MAX_COLUMNS = 104  # what fits GitHub's column without shrinking the letters


def svg(title: str, lines: Iterable[str]) -> str:
    """The picture of ``lines`` in a window titled ``title``; lines over MAX_COLUMNS are cut."""
    shown = [line.rstrip("\n").expandtabs()[:MAX_COLUMNS] for line in lines]
    columns = max((len(line) for line in shown), default=0)
    width = round(2 * MARGIN + columns * CELL_WIDTH)
    height = TITLE_HEIGHT + 2 * MARGIN + LINE_HEIGHT * len(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#16181d"/>',
        *(
            f'<circle cx="{20 + 18 * i}" cy="17" r="5.5" fill="{colour}"/>'
            for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
        f'<text x="{width / 2}" y="21" text-anchor="middle" fill="#9aa0aa" '
        f'font-family="sans-serif" font-size="13">{escape(title)}</text>',
        '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="14">',
    ]
    for number, line in enumerate(shown, start=1):
        y = TITLE_HEIGHT + MARGIN + LINE_HEIGHT * number - 5
        colour = "#7ee787" if line.startswith("$ ") else "#d7dae0"
        parts.append(
            f'<text x="{MARGIN}" y="{y}" fill="{colour}" xml:space="preserve">{escape(line)}</text>'
        )
    return "\n".join([*parts, "</g></svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(svg(" ".join(sys.argv[1:]) or "terminal", sys.stdin))
