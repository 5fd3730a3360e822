"""What asyncio leaves open where a half-done thing in a runtime must not be left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` whole: a cancellation is held back until it is done, and raised then.

    For calls whose effect would be unknown if nobody waited for their answer, so ``work`` must be
    bounded in time by itself.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not task.cancelled():
            task.exception()  # seen, so that it is not reported as lost
        raise asyncio.CancelledError
    return task.result()


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of ``work`` at once. The first failure cancels the rest, is raised when they are done,
    and raised as itself rather than in a group."""
    coroutines = list(work)
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
