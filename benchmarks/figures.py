"""Paired samples, their summary, and the table that is printed."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Pair:
    """Samples of Tandem and of its reference, in milliseconds, taken in turn."""

    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the ratios, pair by pair."""
        return statistics.median(a / b for a, b in zip(self.ours, self.reference, strict=True))

    @property
    def over(self) -> float:
        """The median of the differences, pair by pair, in milliseconds."""
        return statistics.median(a - b for a, b in zip(self.ours, self.reference, strict=True))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; every cell is a word for a reader."""

    what: str
    ours: str
    reference: str
    ratio: str
    promise: str = ""


async def in_turn(
    count: int,
    ours: Callable[[int], Awaitable[float]],
    reference: Callable[[int], Awaitable[float]],
) -> Pair:
    """Take ``count`` samples of each, alternating, after one of each that is not counted."""
    pair = Pair()
    for number in range(count + 1):
        a, b = await ours(number), await reference(number)
        if number:
            pair.ours.append(a)
            pair.reference.append(b)
    return pair


def latency_row(what: str, pair: Pair, promise: str) -> Row:
    """The row of a latency: medians, and how much ours is over the reference."""
    return Row(
        what,
        f"{statistics.median(pair.ours):.0f} ms",
        f"{statistics.median(pair.reference):.0f} ms",
        f"{pair.ratio:.2f} ({pair.over:+.1f} ms)",
        promise,
    )


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    head = ("what", "Tandem", "reference in the same run", "ratio", "promise")
    cells = [head, ("---",) * len(head)]
    cells += [(r.what, r.ours, r.reference, r.ratio, r.promise) for r in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def machine() -> str:
    """The machine in a line."""
    cpus = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    total = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()[0].split()[1]
    name = cpus[0] if cpus else platform.machine()
    return (
        f"{len(cpus) or 1} x {name}, {int(total) / 2**20:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )
