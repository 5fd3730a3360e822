"""Failure injection: what goes wrong, and at which step, is decided here and nowhere else.

The adapter announces each step it is about to take (``create.pull``, ``create.start``, ``delete``,
``get_status`` ...) and a test or a trial says what shall happen there. Rules are used up in the
order in which they were added, so a scenario reads as the list of what goes wrong.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tandem.errors import TandemError


@dataclass(slots=True)
class _Rule:
    """``skip`` more visits pass untouched, then the next ``times`` visits are hit."""

    step: str
    skip: int
    times: int
    action: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Hold:
    """A step that is stopped until :meth:`release`; ``reached`` is set when somebody waits there."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Let the step, and everyone who reaches it from now on, go through."""
        self.released.set()


class Faults:
    """The rules of one runtime; ``visits`` counts every step that was reached."""

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()
        self._rules: list[_Rule] = []
        self._holds: dict[str, Hold] = {}

    def fail(self, step: str, error: TandemError, *, nth: int = 1, times: int = 1) -> None:
        """Raise ``error`` at the ``nth`` visit of ``step`` from now, and ``times`` in a row."""

        async def action() -> None:
            raise error

        self.call(step, action, nth=nth, times=times)

    def delay(self, step: str, seconds: float, *, nth: int = 1, times: int = 1) -> None:
        """Make ``step`` take ``seconds`` longer."""
        self.call(step, lambda: asyncio.sleep(seconds), nth=nth, times=times)

    def call(
        self, step: str, action: Callable[[], Awaitable[None]], *, nth: int = 1, times: int = 1
    ) -> None:
        """Await ``action`` before ``step`` is taken; what it raises is raised there."""
        self._rules.append(_Rule(step, nth - 1, times, action))

    def hold(self, step: str) -> Hold:
        """Stop everyone who reaches ``step`` until the returned hold is released."""
        return self._holds.setdefault(step, Hold())

    def clear(self) -> None:
        """Forget all rules and let go of whoever is held."""
        self._rules.clear()
        for hold in self._holds.values():
            hold.release()
        self._holds.clear()

    async def at(self, step: str) -> None:
        """Called by the adapter before it takes ``step``."""
        self.visits[step] += 1
        rule = self._take(step)
        if hold := self._holds.get(step):
            hold.reached.set()
            await hold.released.wait()
        if rule is not None:
            await rule.action()

    def _take(self, step: str) -> _Rule | None:
        for rule in self._rules:
            if rule.step != step:
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            rule.times -= 1
            if rule.times == 0:
                self._rules.remove(rule)
            return rule
        return None
