"""The machines of one owner as last seen in libvirt, found by our id or by libvirt's UUID.

libvirt is the truth. What is kept here only saves calls: which domain carries which id (that never
changes in a domain's life), and when we saw it end, which libvirt does not keep.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from tandem.runtimes.adapter import (
    LABEL_ID,
    LABEL_OWNER,
    LABEL_SHUTDOWN_PHASE,
    LABEL_SPEC_HASH,
    Phase,
    RuntimeHandle,
    RuntimeStatus,
)
from tandem.runtimes.libvirt import states
from tandem.runtimes.libvirt.definition import End, Record
from tandem.runtimes.libvirt.states import Condition, ShutOff, State

HANDLE_VERSION = 1


@functools.cache
def boot_id() -> str:
    """Identifies this boot of the host; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def begun(record: Record) -> Record:
    """The record of a machine that was started this moment."""
    return replace(record, started_at=now(), boot=boot_id(), end=None)


class Machine:
    """A domain of ours.

    ``defined``: libvirt has it (False while ``create`` is on its way). ``off`` is set when it is seen
    to be off or gone. ``going``: its deletion has begun, so its end is of no interest any more.
    """

    def __init__(self, record: Record, *, defined: bool) -> None:
        self.record = record
        self.defined = defined
        self.going = False
        self.off = asyncio.Event()
        self._off_at: datetime | None = None

    @property
    def uuid(self) -> str:
        """libvirt's name for it."""
        return self.record.uuid

    @property
    def spec_id(self) -> str:
        """Our caller's name for it."""
        return self.record.spec_id

    def started_again(self) -> None:
        """libvirt said that it was started, after it had been off."""
        self.record = begun(self.record)
        self._off_at = None
        self.off.clear()

    def switched_off(self) -> None:
        """libvirt said that it is off."""
        self._off_at = self._off_at or now()
        self.off.set()

    def observe(self, state: int, reason: int) -> Condition:
        """How it is, given what libvirt says now. An end seen for the first time becomes part of the
        record (:attr:`Record.end`), which the caller then keeps in libvirt."""
        record = self.record
        phase = (
            Phase.SUCCEEDED
            if record.labels.get(LABEL_SHUTDOWN_PHASE) == Phase.SUCCEEDED
            else Phase.STOPPED
        )
        found = states.condition(state, reason, shutdown_phase=phase)
        if state == State.SHUTOFF and reason == ShutOff.UNKNOWN:
            # libvirt was restarted since, or never started it: our own record knows more.
            if record.end:
                end = record.end
                return Condition(Phase(end.phase), end.reason, end.message, ended=True)
            if record.started_at is None:
                return states.NEVER_STARTED
            if record.boot != boot_id():
                found = states.HOST_REBOOTED
        if found.ended and (record.end is None or record.end.reason != found.reason):
            end = End(self._off_at or now(), found.phase, found.reason, found.message)
            self.record = replace(record, end=end)
        if found.ended:
            self.off.set()
        return found

    def status(self, state: int, reason: int) -> RuntimeStatus:
        """The status to report, given what libvirt says now."""
        found = self.observe(state, reason)
        record = self.record
        ours = {
            LABEL_ID: record.spec_id,
            LABEL_OWNER: record.owner,
            LABEL_SPEC_HASH: record.spec_hash,
        }
        return RuntimeStatus(
            found.phase,
            record.uuid,
            spec_id=record.spec_id,
            handle=RuntimeHandle("libvirt", HANDLE_VERSION, {"uuid": record.uuid}),
            reason=found.reason,
            message=found.message,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.end.at if found.ended and record.end else None,
            labels={**record.labels, **ours},
            details={"name": record.name, "accelerator": record.domain_type},
        )


def stranger_status(record: Record, state: int, reason: int) -> RuntimeStatus:
    """The status of a domain that is none of ours."""
    found = states.condition(state, reason)
    return RuntimeStatus(
        found.phase,
        record.uuid,
        reason=found.reason,
        message=found.message,
        details={"name": record.name, "accelerator": record.domain_type},
    )


class Machines:
    """The index. Domains of others are remembered too, so that they are read only once."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._ours: dict[str, Machine] = {}
        self._by_id: dict[str, Machine] = {}
        self.strangers: dict[str, Record] = {}

    def __iter__(self) -> Iterator[Machine]:
        return iter([*self._ours.values()])

    def find(self, id: str) -> Machine | None:
        """By our id, else by libvirt's UUID."""
        return self._by_id.get(id) or self._ours.get(canonical(id))

    def by_id(self, id: str) -> Machine | None:
        """By our id only."""
        return self._by_id.get(id)

    def by_uuid(self, uuid: str) -> Machine | None:
        """By libvirt's UUID only."""
        return self._ours.get(uuid)

    def known(self) -> set[str]:
        """The UUIDs of all domains that need not be read again."""
        return {*self._ours, *self.strangers}

    def add(self, machine: Machine) -> None:
        """Take up a machine of ours."""
        self._ours[machine.uuid] = machine
        self._by_id[machine.spec_id] = machine
        self.strangers.pop(machine.uuid, None)

    def take(self, record: Record) -> Machine | None:
        """Take up a domain that libvirt has, and return it when it is ours."""
        if record.owner != self._owner or not record.spec_id:
            self.strangers[record.uuid] = record
            return None
        machine = self._ours.get(record.uuid)
        if machine is not None and machine.record.created_at == record.created_at:
            return machine
        self.drop(record.uuid)
        machine = Machine(record, defined=True)
        self.add(machine)
        return machine

    def drop(self, uuid: str) -> None:
        """Forget a domain that is gone."""
        self.strangers.pop(uuid, None)
        if machine := self._ours.pop(uuid, None):
            machine.off.set()
            if self._by_id.get(machine.spec_id) is machine:
                del self._by_id[machine.spec_id]

    def keep(self, uuids: Collection[str]) -> None:
        """Forget every domain that is not among ``uuids``, but for those on their way."""
        for machine in self:
            if machine.defined and machine.uuid not in uuids:
                self.drop(machine.uuid)
        for uuid in self.strangers.keys() - set(uuids):
            self.drop(uuid)


def canonical(id: str) -> str:
    """A UUID as libvirt writes it; anything else as it is."""
    try:
        return str(UUID(id))
    except ValueError:
        return id
