"""One connection to libvirt for asyncio: calls in threads, events in one thread, and it comes back.

libvirt's Python binding is blocking and lets other threads run while it waits, so every call runs in
a small pool of threads. Its events are delivered by libvirt's own event loop, of which a process has
one; it runs in one thread for all adapters, and what it delivers is handed to the asyncio loop with
``call_soon_threadsafe``. (``libvirtaio`` would put libvirt's timers on the asyncio loop, from
whichever thread made the call, and loses events that way.)

A connection that breaks is found by libvirt's event thread, or by keepalive where the other side has
frozen; the next call, or whoever listens, makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tandem.errors import DeadlineExceeded, TandemError, Unavailable
from tandem.runtimes.libvirt import faults

logger = logging.getLogger(__name__)

T = TypeVar("T")

LifecycleListener = Callable[[str, int, int], None]
"""Called with a domain's UUID, the event (``virDomainEventType``) and its detail."""

# A frozen libvirtd is given up after 5 s x 3; more often would wake it up for nothing.
_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT = 5, 3

_START_HINT = "start libvirtd, or run `tandem up`, which does"


def load() -> Any:
    """The libvirt module. Raises ``Unavailable`` with the fix where the binding is missing."""
    try:
        import libvirt
    except ImportError as error:
        raise Unavailable(
            "the Python binding of libvirt is not installed",
            hint="install python3-libvirt, or 'tandem-runtime[libvirt]' with libvirt-dev, "
            "pkg-config and gcc",
        ) from error
    return libvirt


class _EventThread:
    """libvirt's event loop, in the process's one thread for it."""

    _lock = threading.Lock()
    _running = False

    @classmethod
    def start(cls, libvirt: Any) -> None:
        """Start it, once; must have happened before the first connection is opened."""
        with cls._lock:
            if cls._running:
                return
            libvirt.virEventRegisterDefaultImpl()
            # Otherwise the binding prints every error to standard error as well as raising it.
            libvirt.registerErrorHandler(lambda *_: None, None)

            def run() -> None:
                while True:
                    libvirt.virEventRunDefaultImpl()

            threading.Thread(target=run, name="libvirt-events", daemon=True).start()
            cls._running = True


class Connection:
    """A connection to ``uri`` that is opened when first needed and again after it broke.

    ``threads`` bounds the calls that are under way at once; more wait their turn. ``on_event`` and
    ``on_open`` (which runs after every opening, the first included) are called on the event loop.
    """

    def __init__(
        self,
        uri: str,
        *,
        threads: int,
        timeout: float,
        on_event: LifecycleListener,
        on_open: Callable[[], None],
    ) -> None:
        self.uri = uri
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="libvirt-call")
        self._on_event = on_event
        self._on_open = on_open
        self._opening = asyncio.Lock()
        self._native: Any = None
        self._lost = asyncio.Event()
        self._lost.set()
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that is not known to be broken."""
        return self._native is not None

    async def open(self) -> None:
        """Make sure of a connection. Raises ``Unavailable``, ``DeadlineExceeded``."""
        await self._connected()

    async def lost(self) -> None:
        """Wait until the connection is gone; at once when there is none."""
        await self._lost.wait()

    async def call(
        self, function: Callable[[Any], T], *, timeout: float | None = None, drain: bool = False
    ) -> T:
        """The result of ``function(native connection)``, run in a thread.

        ``drain``: when the caller is cancelled, still wait for the call's end, so that what it did
        can be undone. libvirt's errors are raised as Tandem's. After ``timeout`` seconds (default:
        the connection's) ``DeadlineExceeded``; the thread ends when libvirt answers or is given up.
        """
        native = await self._connected()
        work = self._submit(_guarded, function, native)
        try:
            async with asyncio.timeout(timeout or self._timeout):
                return await asyncio.shield(work)
        except TimeoutError as error:
            work.add_done_callback(_forget)
            raise DeadlineExceeded("libvirt did not answer in time") from error
        except asyncio.CancelledError:
            if drain:
                await asyncio.wait({work})
            work.add_done_callback(_forget)
            raise
        except _Broken as error:
            self._drop(native)
            raise error.meaning from error.__cause__

    async def close(self) -> None:
        """Close the connection, for good."""
        self._closed = True
        async with self._opening:
            native, self._native = self._native, None
            self._lost.set()
            if native is not None:
                await asyncio.wait({self._submit(_close, native)}, timeout=self._timeout)
        self._pool.shutdown(wait=False)

    # ------------------------------------------------------------------------------------------

    def _submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        if self._closed and function is not _close:
            raise Unavailable("the adapter is closed")
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def _connected(self) -> Any:
        if self._native is not None:
            return self._native
        async with self._opening:
            if self._native is None:
                work = self._submit(self._open, asyncio.get_running_loop())
                try:
                    async with asyncio.timeout(self._timeout):
                        native = await asyncio.shield(work)
                except TimeoutError as error:
                    work.add_done_callback(_abandon)
                    raise DeadlineExceeded(
                        f"libvirt at {self.uri} did not answer within {self._timeout:g} s",
                        hint="libvirtd may be starting: look at its log",
                    ) from error
                except asyncio.CancelledError:
                    work.add_done_callback(_abandon)
                    raise
                self._native = native
                self._lost.clear()
                # It may have broken before it was ours to drop.
                if not await asyncio.shield(self._submit(native.isAlive)):
                    self._drop(native)
                    raise Unavailable(f"libvirt at {self.uri} hung up")
                self._on_open()
            return self._native

    def _open(self, loop: asyncio.AbstractEventLoop) -> Any:
        libvirt = load()
        _EventThread.start(libvirt)
        try:
            native = libvirt.open(self.uri)
        except libvirt.libvirtError as error:
            said = error.get_error_message()
            denied = "ermission denied" in said or faults.is_refusal(error)
            hint = "run as root, or join the group libvirt" if denied else _START_HINT
            raise Unavailable(
                f"libvirt at {self.uri} cannot be reached: {said}", hint=hint
            ) from error

        def tell(what: Callable[..., None], *args: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
                loop.call_soon_threadsafe(what, *args)

        def closed(_native: Any, reason: int, _opaque: Any) -> None:
            tell(self._drop, native)

        def lifecycle(_native: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
            tell(self._on_event, domain.UUIDString(), event, detail)

        try:
            native.registerCloseCallback(closed, None)
            native.tandem_listener = native.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None
            )
            with contextlib.suppress(libvirt.libvirtError):  # drivers inside this process have none
                native.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            _close(native)
            raise Unavailable(f"libvirt at {self.uri} cannot be used: {error}") from error
        return native

    def _drop(self, native: Any) -> None:
        """Let go of a broken connection."""
        if self._native is native:
            logger.warning("lost the connection to libvirt at %s", self.uri)
            self._native = None
            self._lost.set()
            with contextlib.suppress(TandemError, RuntimeError):
                self._submit(_close, native).add_done_callback(_forget)


class _Broken(Exception):
    """The connection broke under a call, which therefore failed as ``meaning`` says."""

    def __init__(self, meaning: TandemError) -> None:
        super().__init__(meaning.message)
        self.meaning = meaning


def _guarded(function: Callable[[Any], T], native: Any) -> T:
    """Run in a thread: call, and raise errors of ours only."""
    import libvirt

    try:
        return function(native)
    except libvirt.libvirtError as error:
        meaning = faults.translate(error)
        if faults.is_broken(error):
            raise _Broken(meaning) from error
        raise meaning from error


def _close(native: Any) -> None:
    # The callbacks hold references, without whose return libvirt would keep the socket. A broken
    # connection refuses some of this, and then there is nothing to be done.
    with contextlib.suppress(Exception):
        native.domainEventDeregisterAny(native.tandem_listener)
    with contextlib.suppress(Exception):
        native.unregisterCloseCallback()
    with contextlib.suppress(Exception):
        native.close()


def _forget(work: asyncio.Future[Any]) -> None:
    """Take note of the end of a call that nobody waits for, so that asyncio does not complain."""
    if not work.cancelled():
        work.exception()


def _abandon(work: asyncio.Future[Any]) -> None:
    """Close a connection that was opened for nobody."""
    if not work.cancelled() and work.exception() is None:
        threading.Thread(target=_close, args=(work.result(),), daemon=True).start()
