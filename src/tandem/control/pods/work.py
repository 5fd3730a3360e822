"""What is under way for one Pod: long steps in tasks of their own, so that its loop is never held up.

All of it is only remembered. A new daemon begins with nothing under way, reads off the runtime how far
things have come, and goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tandem.control.backoff import Backoff
from tandem.control.pods.containerstatus import Waiting

FRESH_SECONDS = 1.0
"""How long a start may take before the status tells of what goes on meanwhile: one write says all that
most starts have to tell."""

PULL_HOLDS_SECONDS = 2.0
"""How long an image may take before the containers after its own stop waiting for their turn."""


@dataclass(slots=True)
class Step:
    """A container that is being started from ``image``. ``pulling``: that is still being had."""

    image: str
    begun: float
    pulling: bool = True
    task: asyncio.Task[None] | None = None

    def holds_others(self, now: float) -> bool:
        """Whether the containers after it wait for it: they begin in the order of the spec."""
        return not self.pulling or now - self.begun < PULL_HOLDS_SECONDS

    def cancel(self) -> None:
        """It is not wanted any more."""
        if self.task is not None:
            self.task.cancel()


@dataclass(slots=True)
class Work:
    """See the module's docstring.

    ``starting``, ``killing``: by container. ``ending``: of the whole Pod. ``waiting``: why a container
    could not be started when that was tried last. ``revived``: containers that are ended in order to
    be started again, whatever the policy says. ``hooked``: those whose preStop hook has been run.
    ``evicted``: why the Pod has to go. ``told``: the end of the Pod has been told of.
    """

    starting: dict[str, Step] = field(default_factory=dict)
    killing: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    ending: asyncio.Task[None] | None = None
    waiting: dict[str, Waiting] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    revived: set[str] = field(default_factory=set)
    hooked: set[str] = field(default_factory=set)
    evicted: str = ""
    told: bool = False

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """All that is under way."""
        found = [step.task for step in self.starting.values()]
        return [task for task in (*found, *self.killing.values(), self.ending) if task]

    @property
    def hidden(self) -> frozenset[str]:
        """The containers that are not told of before they are started."""
        return frozenset(self.starting)

    def is_fresh(self, now: float) -> bool:
        """Whether a start is so new that it is worth waiting for what comes of it."""
        return any(now - step.begun < FRESH_SECONDS for step in self.starting.values())

    def holds(self, now: float) -> bool:
        """Whether something that is being started holds up the containers after it."""
        return any(step.holds_others(now) for step in self.starting.values())

    def start(
        self, name: str, image: str, steps: Callable[[Step], Coroutine[Any, Any, None]]
    ) -> None:
        """Have a container started by ``steps``, which is told what it is a part of."""
        loop = asyncio.get_running_loop()
        step = self.starting[name] = Step(image, loop.time())
        step.task = loop.create_task(steps(step), name=f"start {name}")
        step.task.add_done_callback(lambda _: self.started(name, step))

    def started(self, name: str, step: Step) -> None:
        """The step is done; another one of the same container may be under way already."""
        if self.starting.get(name) is step:
            del self.starting[name]

    def kill(self, name: str, steps: Coroutine[Any, Any, None]) -> None:
        """Have a container ended."""
        task = asyncio.get_running_loop().create_task(steps, name=f"kill {name}")
        self.killing[name] = task
        task.add_done_callback(lambda _: self.killed(name, task))

    def killed(self, name: str, task: asyncio.Task[None] | None) -> None:
        """As :meth:`started`."""
        if task is not None and self.killing.get(name) is task:
            del self.killing[name]

    def end(self, steps: Coroutine[Any, Any, None]) -> None:
        """Have all containers ended."""
        task = asyncio.get_running_loop().create_task(steps, name="end")
        self.ending = task
        task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None] | None) -> None:
        """As :meth:`started`."""
        if task is not None and self.ending is task:
            self.ending = None

    def interrupt(self) -> None:
        """Nothing of it is wanted any more; what was begun is undone, or found again later."""
        for task in self.tasks:
            task.cancel()

    async def stopped(self) -> None:
        """Interrupt it, and return when nothing is under way."""
        self.interrupt()
        await asyncio.gather(*self.tasks, return_exceptions=True)
