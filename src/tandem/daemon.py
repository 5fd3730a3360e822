"""The composition root: builds the daemon's parts, starts them in order, stops them in reverse.

    lock - store - certificates - adapters - control - server

The server comes last and is the first to go. A runtime that is absent or slow delays none of it: its
adapter says so, and control takes it up when it comes.
Stopping touches no workload.

This module is also the verb ``tandem serve``: the command line finds it by name, as everything here
stands above it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from tandem import __version__, log
from tandem.cli.context import Context, add_settings
from tandem.config import Settings
from tandem.errors import InvalidSpec, Unavailable
from tandem.instance import InstanceLock, notify

if TYPE_CHECKING:
    from tandem.runtimes.adapter import RuntimeAdapter
    from tandem.server.pki import Pki
    from tandem.store import Store

logger = logging.getLogger(__name__)

# Each part is given this long to stop. The promise is two seconds for all of them together.
_STOP_SECONDS = 2.0


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``tandem serve``: every setting."""
    add_settings(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """``tandem serve``: serve in the foreground until SIGTERM or SIGINT."""
    settings = context.settings(args)
    log.set_up(settings.log_level)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    async with Daemon(settings) as daemon:
        # What is there now stays until the end: the collector need not look at it ever again.
        gc.collect()
        gc.freeze()
        # By default it looks at all objects so often that, with 10,000 of them, half of the work per
        # change is the collector's (measured: 1.5 ms a Pod against 0.6 ms). Cycles are rare here.
        gc.set_threshold(20_000, 20, 50)
        notify(f"READY=1\nSTATUS=serving {daemon.url}")
        await daemon.until(stop)
        notify("STOPPING=1")
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(sign)  # who asks twice does not want to wait
        logger.info("stopping; workloads go on")
    logger.info("stopped")


class Daemon:
    """The parts of a daemon, alive between ``async with`` and its end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = ""
        self._parts = AsyncExitStack()
        self._adapters: dict[str, RuntimeAdapter] = {}
        self._control: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Daemon:
        """Start. Raises ``Conflict`` (another daemon has the data directory), ``Unavailable`` (a
        directory or the address cannot be used), ``InvalidSpec`` (an unknown runtime type)."""
        began = time.monotonic()
        try:
            await self._start()
        except BaseException:
            await self._parts.aclose()
            raise
        logger.info(
            "serving",
            extra={
                "fields": {
                    "url": self.url,
                    "version": __version__,
                    "ms": round((time.monotonic() - began) * 1000),
                }
            },
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything, in reverse."""
        await self._parts.aclose()

    async def until(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Raises what control's start failed with, if it does."""
        assert self._control is not None, "it was not started"
        self._control.add_done_callback(lambda task: stop.set() if _failed(task) else None)
        await stop.wait()
        if _failed(self._control):
            self._control.result()

    async def _start(self) -> None:
        settings = self.settings
        lock = InstanceLock(settings.lock_file)
        self._parts.callback(lock.release)

        # The disk is busy with these while the imports below keep the processor busy.
        reading = asyncio.create_task(_open_store(settings))
        issuing = asyncio.create_task(_certificates(settings))
        await asyncio.sleep(0)
        try:
            from tandem import statusz
            from tandem.api.kinds import REGISTRY
            from tandem.control import Manager
            from tandem.host.tokens import Tokens
            from tandem.server.app import Server

            self._adapters = _build_adapters(settings)
        finally:
            await asyncio.wait([reading, issuing])
            if not reading.exception():
                self._parts.push_async_callback(reading.result().close)
        store = reading.result()
        pki = issuing.result()
        for name, adapter in self._adapters.items():
            self._parts.push_async_callback(_bounded, f"the {name} runtime", adapter.close)

        manager = Manager(store, REGISTRY, self._adapters, settings)
        self._parts.push_async_callback(_bounded, "control", manager.stop)
        # The namespaces are what the first client may count on. The rest of control takes as long as
        # the slowest runtime does to answer, and what it finds later is as good as found at once.
        await manager.namespaces.ensure()
        self._control = asyncio.create_task(manager.start(), name="control-start")
        self._parts.push_async_callback(_cancelled, self._control)

        server = Server(
            store,
            REGISTRY,
            self._adapters,
            tls=pki.server_context(),
            host=settings.listen_address,
            port=settings.listen_port,
            describe=partial(statusz.describe, store, REGISTRY, self._adapters),
            signer=Tokens(settings.data_dir / "pki"),
        )
        try:
            await server.start()
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {settings.listen_address} port {settings.listen_port}: "
                f"{os.strerror(error.errno) if error.errno else error}",
                hint="choose another with --listen-port, or stop what has it",
            ) from error
        self._parts.push_async_callback(_bounded, "the server", server.stop)
        self.url = server.url
        await asyncio.to_thread(_write_kubeconfig, settings, pki.kubeconfig(self.url))


def _build_adapters(settings: Settings) -> dict[str, RuntimeAdapter]:
    from tandem import adapters

    try:
        return adapters.build(settings)
    except ValueError as error:
        raise InvalidSpec(str(error)) from error
    except ImportError as error:
        raise Unavailable(
            f"a runtime's library is missing: {error}",
            hint="pip install 'tandem-runtime[libvirt]' brings libvirt's",
        ) from error


async def _open_store(settings: Settings) -> Store:
    from tandem.store import Store

    return await Store.open(settings.data_dir / "store.db")


async def _certificates(settings: Settings) -> Pki:
    from tandem.host.run import run
    from tandem.server import pki

    folder = settings.data_dir / "pki"
    names = [settings.listen_address, *settings.server_names]
    if not folder.exists():
        # The first time, everything has to be issued. What that takes would stay in this process's
        # memory (15 MB) for as long as it lives, so another one does it.
        issue = "import sys; from pathlib import Path; from tandem.server.pki import ensure; "
        issue += "ensure(Path(sys.argv[1]), addresses=sys.argv[2:])"
        await run(sys.executable, "-P", "-c", issue, folder, *names)
    try:
        found, renewed = await asyncio.to_thread(pki.ensure, folder, addresses=names)
    except OSError as error:
        raise Unavailable(f"cannot keep certificates: {error}") from error
    if renewed:
        logger.info("certificates renewed")
    return found


def _write_kubeconfig(settings: Settings, document: dict[str, Any]) -> None:
    from tandem.server.pki import write_private

    # JSON is YAML: kubectl reads both, and this is read before every command of ours.
    content = json.dumps(document, indent=2).encode() + b"\n"
    path = settings.kubeconfig
    try:
        if not path.exists() or path.read_bytes() != content or path.stat().st_mode & 0o077:
            write_private(path, content)
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def _cancelled(task: asyncio.Task[None]) -> None:
    """End a task that may still run; how it ends has been looked at elsewhere."""
    task.cancel()
    await asyncio.wait([task])


async def _bounded(what: str, stop: Callable[[], Awaitable[None]]) -> None:
    """Stop a part; one that hangs or fails must not keep the others from stopping."""
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await stop()
    except TimeoutError:
        logger.warning("%s did not stop in time", what)
    except Exception:
        logger.exception("%s did not stop cleanly", what)
