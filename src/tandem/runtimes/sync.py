"""The synchronous face of an adapter, for scripts and the interactive prompt.

    with tandem.sync("container") as runtime:
        runtime.create(tandem.RuntimeSpec("web", container_spec={"image": "nginx"}))

Adapters are asynchronous and live once; this runs one on an event loop in a thread of its own and
waits for each answer. Ctrl-C while waiting cancels the call *and waits for its undoing*, so that the
promise that a cancelled ``create`` leaves nothing behind holds for scripts too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tandem.runtimes.adapter import (
    Fingerprint,
    RuntimeAdapter,
    RuntimeEvent,
    RuntimeHandle,
    RuntimeSpec,
    RuntimeStatus,
)
from tandem.runtimes.factory import RuntimeAdapterFactory

if TYPE_CHECKING:
    import asyncio
    import threading

T = TypeVar("T")


def sync(runtime_type: str, **options: Any) -> SyncRuntimeAdapter:
    """The adapter of ``runtime_type`` (as :class:`RuntimeAdapterFactory` knows it) with plain,
    blocking methods. Raises ``ValueError`` naming the known types for any other."""
    return SyncRuntimeAdapter(RuntimeAdapterFactory.get_adapter(runtime_type, **options))


class SyncRuntimeAdapter:
    """The verbs of :class:`RuntimeAdapter`, each blocking until its answer is there.

    Use as a context manager, or call :meth:`close`; workloads go on. Safe to share between threads.
    Not for use inside a running event loop: take the adapter itself there.
    """

    def __init__(self, adapter: RuntimeAdapter) -> None:
        self.adapter = adapter
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def fingerprint(self) -> Fingerprint:
        """See :meth:`RuntimeAdapter.fingerprint`."""
        return self.run(self.adapter.fingerprint)

    def create(self, spec: RuntimeSpec) -> RuntimeStatus:
        """See :meth:`RuntimeAdapter.create`."""
        return self.run(lambda: self.adapter.create(spec))

    def delete(self, id: str, *, grace_seconds: float | None = None) -> None:
        """See :meth:`RuntimeAdapter.delete`."""
        return self.run(lambda: self.adapter.delete(id, grace_seconds=grace_seconds))

    def get_status(self, id: str) -> RuntimeStatus:
        """See :meth:`RuntimeAdapter.get_status`."""
        return self.run(lambda: self.adapter.get_status(id))

    def list(self, *, strangers: bool = False) -> Sequence[RuntimeStatus]:
        """See :meth:`RuntimeAdapter.list`."""
        return self.run(lambda: self.adapter.list(strangers=strangers))

    def recover(self, handle: RuntimeHandle) -> RuntimeStatus:
        """See :meth:`RuntimeAdapter.recover`."""
        return self.run(lambda: self.adapter.recover(handle))

    def events(self) -> Iterator[RuntimeEvent]:
        """See :meth:`RuntimeAdapter.events`; blocks between events until the iterator is closed."""
        return self.iterate(self.adapter.events)

    def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run any coroutine of the adapter's, as for a capability: ``run(lambda: adapter.pause(id))``."""
        import asyncio
        import concurrent.futures

        task: asyncio.Task[T] | None = None

        async def work() -> T:
            nonlocal task
            task = asyncio.current_task()
            return await call()

        async def undo() -> None:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

        loop = self._running_loop()
        coroutine = work()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        except KeyboardInterrupt:
            # The interrupt may come before this thread knows the call's future, and a future counts
            # as cancelled before its coroutine has undone anything. Only the loop knows both, and it
            # works in order: what was handed to it has begun when ``undo`` begins.
            concurrent.futures.wait([asyncio.run_coroutine_threadsafe(undo(), loop)])
            coroutine.close()  # never handed over
            raise

    def iterate(self, call: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """Walk any asynchronous iterator of the adapter's, such as ``adapter.logs(...)``."""
        iterator: AsyncIterator[T] | None = None

        async def advance() -> tuple[T] | None:
            nonlocal iterator
            if iterator is None:
                iterator = aiter(call())
            try:
                return (await anext(iterator),)
            except StopAsyncIteration:
                return None

        async def finish() -> None:
            if iterator is not None and (aclose := getattr(iterator, "aclose", None)):
                await aclose()

        try:
            while item := self.run(advance):
                yield item[0]
        finally:
            if not self._closed:
                self.run(finish)

    def close(self) -> None:
        """Close the adapter and end the thread. Idempotent."""
        if self._closed:
            return
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            self.run(self.adapter.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
        self._closed = True

    def __enter__(self) -> SyncRuntimeAdapter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise RuntimeError("this runtime is closed")
        if self._loop is None:
            import asyncio
            import threading

            self._loop = asyncio.new_event_loop()
            # A daemon thread, so that a script that forgets close() still ends.
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="tandem-sync", daemon=True
            )
            self._thread.start()
        return self._loop
