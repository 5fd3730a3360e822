"""A work queue: one item is never worked on twice at once, and every failure is tried again.

Items are small hashable names of objects, not changes: however often an item is added while it waits
or while it is worked on, it is looked at once more, with the state as it is then. An item that nobody
added costs nothing; there is no task, timer or entry for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tandem.errors import Conflict, TandemError, Unavailable

logger = logging.getLogger(__name__)

Item = TypeVar("Item", bound=Hashable)

FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 30.0
"""Failures are retried after these, doubling, a random fifth more or less so that a thousand objects
that failed together do not come back together."""

MAX_AT_WORK = 1024
"""Handlers at work at once. Most of them wait (a grace period, an image), so the bound is only there
to keep a flood from turning into as many tasks; what loads a runtime is bounded where it is called."""


@dataclass(slots=True)
class _Entry:
    """An item that is waiting, at work, or due later."""

    waiting: bool = False
    working: bool = False
    again: bool = False
    failures: int = 0
    timer: asyncio.TimerHandle | None = None


class WorkQueue(Generic[Item]):
    """Calls ``handle(item)`` for every added item, at most once at a time for each.

    ``handle`` returns None when it is done with the item, or the number of seconds after which it
    wants to look again. What it raises is logged and retried.
    """

    def __init__(self, name: str, handle: Callable[[Item], Awaitable[float | None]]) -> None:
        self.name = name
        self._handle = handle
        self._entries: dict[Item, _Entry] = {}
        self._waiting: deque[Item] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many items are waiting, at work, or due later."""
        return len(self._entries)

    @property
    def busy(self) -> bool:
        """Whether anything is waiting or at work (timers do not count)."""
        return bool(self._waiting or self._tasks)

    def add(self, item: Item) -> None:
        """Have ``item`` looked at as soon as possible, whatever back-off it is in."""
        if self._closed:
            return
        entry = self._entries.setdefault(item, _Entry())
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.working:
            entry.again = True
        elif not entry.waiting:
            entry.waiting = True
            self._waiting.append(item)
            self._start()

    def add_after(self, item: Item, seconds: float) -> None:
        """Have ``item`` looked at after ``seconds``, unless that happens sooner anyway."""
        if self._closed:
            return
        entry = self._entries.setdefault(item, _Entry())
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if entry.waiting or entry.again or (entry.timer and entry.timer.when() <= due):
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = loop.call_at(due, self._due, item)

    async def close(self) -> None:
        """Stop: cancel what is at work, forget the rest."""
        self._closed = True
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()
        self._waiting.clear()

    def _due(self, item: Item) -> None:
        self._entries[item].timer = None
        self.add(item)

    def _start(self) -> None:
        while self._waiting and len(self._tasks) < MAX_AT_WORK:
            item = self._waiting.popleft()
            entry = self._entries[item]
            entry.waiting, entry.working, entry.again = False, True, False
            task = asyncio.get_running_loop().create_task(
                self._work(item, entry), name=f"{self.name}:{item}"
            )
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._closed:
            self._start()

    async def _work(self, item: Item, entry: _Entry) -> None:
        delay: float | None
        try:
            delay = await self._handle(item)
            entry.failures = 0
        except Exception as error:
            entry.failures += 1
            delay = _retry_seconds(entry.failures)
            self._report(item, error, delay)
        finally:
            entry.working = False
        if entry.again:
            entry.again = False
            entry.waiting = True
            self._waiting.append(item)
        elif delay is not None:
            self.add_after(item, delay)
        elif entry.timer is None:
            self._entries.pop(item, None)

    def _report(self, item: Item, error: Exception, delay: float) -> None:
        # Somebody else wrote first: ordinary, and soon repaired. A runtime that is away is told once,
        # by who watches over it, and not by each of a thousand objects.
        if isinstance(error, Conflict | Unavailable):
            logger.debug("%s %s: %s; again in %.1f s", self.name, item, error, delay)
        elif isinstance(error, TandemError):
            logger.warning("%s %s: %s; again in %.1f s", self.name, item, error, delay)
        else:
            logger.error("%s %s failed; again in %.1f s", self.name, item, delay, exc_info=error)


def _retry_seconds(failures: int) -> float:
    seconds = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20), LAST_RETRY_SECONDS)
    return seconds * random.uniform(0.8, 1.2)
