"""Which machines there are and how they are, kept in step with libvirt by its events.

Reads go to libvirt each time; what is kept is the index in :mod:`machines`. libvirt's lifecycle events
correct it, record when a machine ended, and are passed on to listeners. After a reconnection
everything is read again and listeners are told to do the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from tandem.errors import DeadlineExceeded, NotFound, TandemError, Unavailable
from tandem.runtimes.adapter import EventKind, RuntimeEvent, RuntimeStatus
from tandem.runtimes.libvirt import domains
from tandem.runtimes.libvirt.connection import Connection
from tandem.runtimes.libvirt.domains import Row
from tandem.runtimes.libvirt.events import RESYNC, Broadcast
from tandem.runtimes.libvirt.machines import Machine, Machines, stranger_status
from tandem.runtimes.libvirt.states import EVENT_KINDS, Event

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.25  # a connection attempt to a socket that is not there costs 0.1 ms
_CLOSE_SECONDS = 2.0


class Inventory:
    """The machines of ``owner`` behind one connection, which it opens and reopens."""

    def __init__(self, uri: str, owner: str, *, threads: int, timeout: float) -> None:
        self.machines = Machines(owner)
        self.connection = Connection(
            uri,
            threads=threads,
            timeout=timeout,
            on_event=self._hear,
            on_open=self._opened,
        )
        self._complete = False  # whether the index has been filled since the connection was made
        self._listeners = Broadcast()
        self._inbox: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    # -- reading -------------------------------------------------------------------------------

    async def find(self, id: str) -> Machine:
        """A machine of ours, by our id or libvirt's UUID. Raises ``NotFound``."""
        if machine := self.machines.find(id):
            return machine
        await self.scan()
        if machine := self.machines.find(id):
            return machine
        raise NotFound(f"there is no virtual machine {id!r}")

    async def by_id(self, id: str) -> Machine | None:
        """A machine of ours by our id, as far as events have told; None when there is none. Other
        than :meth:`find` its cost does not grow with the number of machines."""
        if not (self._complete and self.connection.is_open):
            await self.scan()
        return self.machines.by_id(id)

    async def scan(self) -> list[Row]:
        """Every domain with its state; the index is brought up to date by the way."""
        # On a new connection everything is read again: a UUID may have found another use meanwhile.
        known = self.machines.known() if self._complete else ()
        rows, records = await self.connection.call(lambda native: domains.scan(native, known))
        self.machines.keep({row[0] for row in rows})
        for record in records:
            self.machines.take(record)
        self._complete = True
        return rows

    async def status(self, machine: Machine) -> RuntimeStatus:
        """The machine's status, from libvirt. Raises ``NotFound`` when it is gone."""
        try:
            state, reason = await self.connection.call(
                lambda native: domains.state(native, machine.uuid)
            )
        except NotFound:
            if machine.defined:
                self.machines.drop(machine.uuid)
            raise NotFound(f"there is no virtual machine {machine.spec_id!r}") from None
        return self.report(machine, state, reason)

    async def statuses(self, *, strangers: bool) -> list[RuntimeStatus]:
        """The status of every machine of ours, or of everybody else's."""
        rows = await self.scan()
        if strangers:
            known = self.machines.strangers
            return [stranger_status(known[row[0]], *row[1:]) for row in rows if row[0] in known]
        return [
            self.report(machine, state, reason)
            for uuid, state, reason in rows
            if (machine := self.machines.by_uuid(uuid)) and machine.defined
        ]

    def gone(self, uuid: str) -> None:
        """A domain is no more: forget it, and tell when it was one of ours."""
        machine = self.machines.by_uuid(uuid)
        self.machines.drop(uuid)
        if machine is not None and machine.defined:
            self._listeners.tell(RuntimeEvent(EventKind.DELETED, machine.spec_id))

    def report(self, machine: Machine, state: int, reason: int) -> RuntimeStatus:
        """The status of a machine of which libvirt has just said this. An end is remembered."""
        before = machine.record.end
        status = machine.status(state, reason)
        if machine.record.end is not before:
            self.keep_later(machine)
        return status

    # -- events --------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        """See ``RuntimeAdapter.events``."""
        listener = self._listeners.listen()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._stay_connected())
        elif self.connection.is_open:
            listener.put(RESYNC)
        try:
            while (event := await listener.get()) is not None:
                yield event
        finally:
            self._listeners.leave(listener)

    async def close(self) -> None:
        """Let go of the connection; listeners come to their end."""
        loops = [task for task in (self._keeper, self._reader) if task]
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if self._tasks:  # how machines ended is worth a moment
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        self._listeners.end()
        await self.connection.close()

    async def _stay_connected(self) -> None:
        """Keep a connection open as long as somebody listens, and say so each time it is new."""
        if self.connection.is_open:
            self._listeners.tell(RESYNC)
        while True:
            with contextlib.suppress(Unavailable, DeadlineExceeded):
                await self.connection.open()
            await self.connection.lost()
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _opened(self) -> None:
        self._complete = False
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_inbox())
        if any(self.machines):
            self._background(self.statuses(strangers=False))  # who has ended meanwhile
        self._listeners.tell(RESYNC)

    def _hear(self, uuid: str, event: int, _detail: int) -> None:
        """An event from libvirt's thread, on the event loop."""
        self._inbox.put_nowait((uuid, event))

    async def _read_inbox(self) -> None:
        while True:
            uuid, event = await self._inbox.get()
            try:
                await self._handle(uuid, event)
            except TandemError as error:
                # The connection is gone, and RESYNC will follow; or the domain is.
                logger.debug("event %d of domain %s: %s", event, uuid, error)

    async def _handle(self, uuid: str, event: int) -> None:
        machine = self.machines.by_uuid(uuid)
        if event == Event.UNDEFINED:
            self.gone(uuid)
            return
        if machine is None and uuid not in self.machines.strangers:
            machine = self.machines.take(
                await self.connection.call(lambda native: domains.record(native, uuid))
            )
        if machine is None:
            return
        if event == Event.STARTED and machine.off.is_set():
            machine.started_again()
            self.keep_later(machine)
        elif event in (Event.STOPPED, Event.CRASHED):
            machine.switched_off()
            if not machine.going:
                self._background(self._look_again(machine))
        if kind := EVENT_KINDS.get(event):  # type: ignore[call-overload]
            self._listeners.tell(RuntimeEvent(kind, machine.spec_id))

    def keep_later(self, machine: Machine) -> None:
        """Write the machine's record to libvirt, without waiting for it."""
        self._background(self._keep_life(machine))

    async def _look_again(self, machine: Machine) -> None:
        """Have libvirt say how a machine ended while it knows, and keep that."""
        await self.status(machine)

    async def _keep_life(self, machine: Machine) -> None:
        if not machine.going:
            await self.connection.call(lambda native: domains.keep_life(native, machine.record))

    def _background(self, work: Any) -> None:
        """Run ``work`` without waiting; its failure only means that less is remembered."""

        async def quietly() -> None:
            try:
                await work
            except TandemError as error:
                logger.debug("not recorded: %s", error)

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
