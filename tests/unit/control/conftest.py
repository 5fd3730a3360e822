"""Fixtures of the loops' tests."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tandem.store import Store
from tests.unit.control.plant import Plant


class _InlineExecutor(ThreadPoolExecutor):
    """Runs what is short and blocks at once: with a thread, a fake clock would run away meanwhile."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture
async def plant(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plant]:
    """A running manager with nothing to do."""
    monkeypatch.setattr("tandem.store.store.ThreadPoolExecutor", _InlineExecutor)
    asyncio.get_running_loop().set_default_executor(_InlineExecutor())
    store = await Store.open(None)
    plant = Plant(store)
    await plant.start()
    yield plant
    plant.containers.faults.clear()
    plant.machines.faults.clear()
    await plant.stop()
    await store.close()
    shutil.rmtree(plant.folder)
