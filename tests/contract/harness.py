"""What the contract suite needs to know about an adapter, and how it finds the adapters.

An adapter joins the suite with one file, ``tests/contract/harness_<name>.py``, that defines a
subclass of :class:`Harness` and nothing else; every test of the suite then runs over it. What a
harness cannot do it says by leaving the optional parts at their defaults, and the tests that need
them are not generated for it (they are not skipped: the suite shows what runs).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import importlib
import inspect
import pkgutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tandem.runtimes.adapter import Phase, RuntimeAdapter, RuntimeSpec, RuntimeStatus


class Harness(abc.ABC):
    """One adapter under test. A new instance serves each test; ``world`` is shared by all of them.

    ``grace``: seconds of grace in the tests about it, long enough to be told from none.
    ``patience``: seconds within which a started thing must have happened.
    ``steps``: names of the steps inside ``create`` that :meth:`intercept` can stop at.
    ``cancel_after``: delays in seconds after which a running ``create`` is cancelled.
    ``clean_end``: the phase of a workload that ended by itself, successfully.
    ``exit_codes``: whether the runtime reports exit codes.
    """

    name: ClassVar[str]
    marks: ClassVar[Sequence[pytest.MarkDecorator]] = ()
    grace: ClassVar[float] = 1.0
    patience: ClassVar[float] = 20.0
    steps: ClassVar[Sequence[str]] = ()
    cancel_after: ClassVar[Sequence[float]] = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2)
    clean_end: ClassVar[Phase] = Phase.SUCCEEDED
    exit_codes: ClassVar[bool] = True

    def __init__(self, world: Any, tmp_path: Path) -> None:
        self.world = world
        self.tmp_path = tmp_path

    @classmethod
    @contextlib.contextmanager
    def open_world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        """Start, once a session, what all tests of this adapter share (a private daemon)."""
        yield None

    # -- making things -----------------------------------------------------------------------

    @abc.abstractmethod
    def make_adapter(self, owner: str = "tandem") -> RuntimeAdapter:
        """A new adapter on the runtime under test."""

    @abc.abstractmethod
    def make_absent_adapter(self) -> RuntimeAdapter:
        """An adapter whose runtime is not there."""

    @abc.abstractmethod
    def spec(self, id: str, *, labels: dict[str, str] | None = None) -> RuntimeSpec:
        """A workload that runs until it is stopped and obeys when asked."""

    @abc.abstractmethod
    def other_spec(self, id: str) -> RuntimeSpec:
        """One that differs from :meth:`spec`."""

    @abc.abstractmethod
    def stubborn_spec(self, id: str) -> RuntimeSpec:
        """One that does not end when it is asked to."""

    @abc.abstractmethod
    def ending_spec(self, id: str, code: int) -> RuntimeSpec:
        """One that ends by itself, with ``code`` where the runtime has codes."""

    @abc.abstractmethod
    def failing_spec(self, id: str) -> RuntimeSpec:
        """One that passes validation and that the runtime cannot start, as late as possible."""

    @abc.abstractmethod
    def invalid_specs(self) -> Sequence[tuple[RuntimeSpec, str]]:
        """Invalid specs (beyond a bad id), each with a word that the guilty field's path has."""

    # -- the world outside -------------------------------------------------------------------

    @abc.abstractmethod
    async def add_stranger(self) -> str:
        """Make a workload without Tandem; returns the id that ``list(strangers=True)`` shows."""

    @abc.abstractmethod
    async def stranger_runs(self, id: str) -> bool:
        """Whether a stranger still runs, asked of the runtime itself."""

    @abc.abstractmethod
    async def remove_stranger(self, id: str) -> None:
        """Take the stranger away again."""

    @abc.abstractmethod
    async def crash(self, id: str) -> None:
        """Kill the workload ``RuntimeSpec.id`` from outside."""

    @abc.abstractmethod
    async def leftovers(self) -> Sequence[str]:
        """Everything in the runtime and on disk that our workloads left; empty when clean."""

    async def settle(self) -> None:
        """Wait until the workload just created would notice a stop request (a booting guest)."""
        return

    # -- optional ----------------------------------------------------------------------------

    def sandbox_spec(self, id: str) -> RuntimeSpec:
        """A workload without containers, which come later."""
        raise NotImplementedError

    def container(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        """A container for it that runs the shell's ``script``."""
        raise NotImplementedError

    async def lose_sandbox(self, id: str) -> None:
        """Take away from outside what holds the workload's containers."""
        raise NotImplementedError

    def intercept(
        self, adapter: RuntimeAdapter, step: str, action: Callable[[], Awaitable[None]]
    ) -> None:
        """Have ``adapter`` await ``action`` before it takes ``step`` of ``create``, once."""
        raise NotImplementedError

    async def drop_events(self, adapter: RuntimeAdapter) -> None:
        """Break the event stream under ``adapter``, which then reconnects."""
        raise NotImplementedError

    @classmethod
    def can(cls, ability: str) -> bool:
        """Whether this harness overrides the optional method ``ability``."""
        return getattr(cls, ability) is not getattr(Harness, ability)

    # -- helpers -----------------------------------------------------------------------------

    async def wait_for(
        self, adapter: RuntimeAdapter, id: str, good: Callable[[RuntimeStatus], bool]
    ) -> RuntimeStatus:
        """Ask for the status until it is ``good``; the suite's only polling."""
        deadline = time.monotonic() + self.patience
        while True:
            status = await adapter.get_status(id)
            if good(status):
                return status
            assert time.monotonic() < deadline, f"{id} did not get there, it is {status}"
            await asyncio.sleep(0.01)


def discover() -> list[type[Harness]]:
    """Every harness that a ``harness_*.py`` beside this file defines, by name."""
    found = []
    for module_info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module_info.name.startswith("harness_"):
            module = importlib.import_module(f"{__package__}.{module_info.name}")
            found += [
                value
                for value in vars(module).values()
                if inspect.isclass(value)
                and issubclass(value, Harness)
                and value.__module__ == module.__name__
                and not inspect.isabstract(value)
            ]
    return sorted(found, key=lambda harness: harness.name)
