"""The virtual machine adapter: libvirt and QEMU behind the adapter contract.

One :class:`VirtualMachineAdapter` is one connection to one libvirt. Machines are persistent domains
whose metadata says whose they are (see :mod:`definition`), so that they outlive every process of ours
and any adapter of the same owner finds them again.

``RuntimeStatus.id`` is the domain's UUID; every verb takes it as well as ``RuntimeSpec.id``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar
from weakref import WeakValueDictionary

from tandem.errors import (
    AlreadyExists,
    Cause,
    InvalidSpec,
    NotFound,
    TandemError,
    Unavailable,
    Unsupported,
)
from tandem.host.run import blocking
from tandem.runtimes.adapter import (
    Fingerprint,
    Phase,
    RuntimeAdapter,
    RuntimeEvent,
    RuntimeHandle,
    RuntimeSpec,
    RuntimeStatus,
)
from tandem.runtimes.capabilities import ByteStream, LogOptions
from tandem.runtimes.libvirt import domains, hypervisor, serial
from tandem.runtimes.libvirt.accelerator import Accelerator, Verdict
from tandem.runtimes.libvirt.console import SerialConsole
from tandem.runtimes.libvirt.definition import Definition, Record
from tandem.runtimes.libvirt.inventory import Inventory
from tandem.runtimes.libvirt.machines import HANDLE_VERSION, Machine, begun, now

logger = logging.getLogger(__name__)

T = TypeVar("T")

Emulation = Literal["auto", "always", "never"]

DEFAULT_GRACE_SECONDS = 30.0  # Kubernetes' own

_ASK_AGAIN_SECONDS = 5.0  # a guest that is still booting misses the power button
_CAPABILITIES = frozenset({"Logs", "Console", "Pause"})


class VirtualMachineAdapter(RuntimeAdapter):
    """Virtual machines on libvirt.

    ``uri``: libvirt's. ``owner``: whose machines these are. ``emulation``: whether machines that ask
    for KVM may be emulated where it does not work: ``auto``, ``never`` (they are refused), or
    ``always`` (without asking). ``cache_dir`` keeps what was found out about KVM; ``log_dir`` gets a
    directory for each machine with the log of its serial console. ``validate``: hold domain XML
    against libvirt's schema, which finds misspelled elements and costs libvirtd 8 ms.
    ``timeout``: seconds for one call of libvirt, ``start_timeout`` for one that starts QEMU.
    ``max_concurrency``: machines that are started or forced off at once; libvirtd serves five calls
    of a connection at once by default, and one is left for those who only ask.
    """

    name: ClassVar[str] = "libvirt"

    def __init__(
        self,
        uri: str = "qemu:///system",
        *,
        owner: str = "tandem",
        emulation: Emulation = "auto",
        cache_dir: Path = Path("/var/lib/tandem/cache"),
        log_dir: Path = Path("/var/log/tandem/machines"),
        validate: bool = True,
        timeout: float = 60.0,
        start_timeout: float = 120.0,
        max_concurrency: int = 4,
    ) -> None:
        self.uri = uri
        self.owner = owner
        self.emulation: Emulation = emulation
        self._cache_dir = Path(cache_dir)
        self._log_dir = Path(log_dir)
        self._validate = validate
        self._start_timeout = start_timeout
        self._inventory = Inventory(uri, owner, threads=max_concurrency + 4, timeout=timeout)
        self._slots = asyncio.Semaphore(max_concurrency)
        self._creating: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._accelerator: Accelerator | None = None
        self._real: bool | None = None  # whether libvirt runs machines, or plays at it

    # -- the contract --------------------------------------------------------------------------

    async def fingerprint(self) -> Fingerprint:
        try:
            facts = await self._call(hypervisor.ask)
            verdict = await self.accelerator()
        except TandemError as error:
            hint = error.hint or "look at the log of libvirtd"
            return Fingerprint(self.name, "", False, error.message, hint)
        problem, hint = await blocking(hypervisor.problem, facts)
        details = {
            "uri": self.uri,
            "emulation": self.emulation,
            "accelerator": "kvm" if verdict.works else "qemu",
        }
        if not verdict.works:
            details["emulation_reason"] = verdict.reason
        if warning := await blocking(hypervisor.warning, facts):
            details["warning"] = warning
        return Fingerprint(
            self.name, facts.version, not problem, problem, hint, _CAPABILITIES, details
        )

    async def create(self, spec: RuntimeSpec) -> RuntimeStatus:
        definition = Definition(spec, self.owner)
        async with self._creating.setdefault(spec.id, asyncio.Lock()):
            if status := await self._existing(spec.id, definition):
                return status
            try:
                return await self._make(definition)
            except AlreadyExists:
                # Another adapter of this owner may have been quicker than the event of it.
                await self._inventory.scan()
                if status := await self._existing(spec.id, definition):
                    return status
                raise

    async def delete(self, id: str, *, grace_seconds: float | None = None) -> None:
        grace = DEFAULT_GRACE_SECONDS if grace_seconds is None else grace_seconds
        try:
            await self._switch_off(id, grace)
            machine = await self._inventory.find(id)
            machine.going = True
            async with self._slots:
                await self._finish(self._remove(machine))
        except NotFound:
            return

    async def get_status(self, id: str) -> RuntimeStatus:
        return await self._inventory.status(await self._inventory.find(id))

    async def list(self, *, strangers: bool = False) -> Sequence[RuntimeStatus]:
        return await self._inventory.statuses(strangers=strangers)

    def events(self) -> AsyncIterator[RuntimeEvent]:
        return self._inventory.events()

    async def recover(self, handle: RuntimeHandle) -> RuntimeStatus:
        if handle.adapter != self.name or handle.version != HANDLE_VERSION:
            raise InvalidSpec(
                f"a handle of {handle.adapter} version {handle.version} is not one of {self.name} "
                f"version {HANDLE_VERSION}",
                causes=[Cause("handle", "another adapter's, or of another version")],
            )
        return await self.get_status(handle.data["uuid"])

    async def close(self) -> None:
        await self._inventory.close()

    # -- capabilities --------------------------------------------------------------------------

    async def pause(self, id: str) -> RuntimeStatus:
        """Freeze a running machine; one that is paused stays so. Raises ``NotFound``, ``Conflict``
        (it is off)."""
        return await self._set_paused(id, True)

    async def resume(self, id: str) -> RuntimeStatus:
        """Thaw a paused machine; one that runs goes on. Raises ``NotFound``, ``Conflict`` (it is
        off)."""
        return await self._set_paused(id, False)

    async def open_console(self, id: str) -> ByteStream:
        """The serial console; whoever had it before is cut off. It ends when the machine does."""
        machine = await self._inventory.find(id)
        console = SerialConsole()
        await self._call(lambda native: console.attach(native, machine.uuid), drain=True)
        return console

    async def logs(
        self, id: str, *, container: str = "", options: LogOptions
    ) -> AsyncIterator[bytes]:
        """What the machine wrote to its serial console. The console has no times, so ``since`` and
        ``timestamps`` change nothing; there is one attempt only, so ``previous`` is not found."""
        machine = await self._inventory.find(id)
        if container or options.previous or machine.record.log_path is None:
            what = f"log of {container!r}" if container else "previous log"
            what = "logged serial console" if not (container or options.previous) else what
            raise NotFound(f"virtual machine {machine.spec_id!r} has no {what}")
        if options.follow:
            await self._inventory.status(machine)  # it may have ended before we ever looked
        async for chunk in serial.read(machine.record.log_path, options, machine.off):
            yield chunk

    async def accelerator(self) -> Verdict:
        """Whether machines run under KVM here, as the adapter's ``emulation`` has it."""
        if self.emulation == "always":
            return Verdict(False, "emulation is set to always")
        if self._accelerator is None:
            facts = await self._call(hypervisor.ask)
            if not facts.is_qemu:
                return Verdict(False, f"libvirt's driver {facts.driver} has no KVM")
            self._accelerator = Accelerator(facts.emulator, facts.account, self._cache_dir)
        return await self._accelerator.decide()

    # -- create, step by step ------------------------------------------------------------------

    async def _existing(self, id: str, definition: Definition) -> RuntimeStatus | None:
        """The status of the machine that has this id already; one that an interrupted ``create``
        left behind, defined and never started, is taken away."""
        machine = await self._inventory.by_id(id)
        if machine is None:
            return None
        try:
            status = await self._inventory.status(machine)
        except NotFound:
            return None
        if status.phase is Phase.STOPPED and machine.record.started_at is None:
            await self._finish(self._undo(machine))
            return None
        if machine.record.spec_hash != definition.spec_hash:
            raise AlreadyExists(f"virtual machine {id!r} exists with another definition")
        return status

    async def _make(self, definition: Definition) -> RuntimeStatus:
        domain_type = await self._domain_type(definition)
        if definition.uuid_given:
            await self._check_free(definition.uuid)
        xml, record = definition.build(domain_type=domain_type, log_dir=self._log_dir, now=now())
        machine = Machine(record, defined=False)
        self._inventory.machines.add(machine)
        try:
            async with self._slots:
                await self._define(machine, xml)
                return await self._start(machine)
        except BaseException:
            await self._finish(self._undo(machine))
            raise

    async def _domain_type(self, definition: Definition) -> str | None:
        """The domain type to set in place of the document's; None leaves that."""
        if not definition.wants_kvm:
            return None
        if self._real is None:
            self._real = await self._call(hypervisor.is_qemu)
        if not self._real:
            return None
        verdict = await self.accelerator()
        if verdict.works:
            return "kvm"
        if self.emulation == "never":
            message = f"KVM does not work here ({verdict.reason}) and emulation is set to never"
            raise Unsupported(message, causes=[Cause("vm_xml.type", message)])
        return "qemu"

    async def _check_free(self, uuid: str) -> None:
        """libvirt takes a definition with a known UUID and name for a change of that domain."""
        starting = self._inventory.machines.by_uuid(uuid)
        if (starting is not None and not starting.defined) or await self._call(
            lambda native: domains.lookup(native, uuid) is not None
        ):
            raise AlreadyExists(f"a domain with the UUID {uuid} exists")

    async def _define(self, machine: Machine, xml: str) -> None:
        directory = self._log_dir / machine.uuid

        def define(native: Any) -> None:
            directory.mkdir(parents=True, exist_ok=True)
            domains.define(native, xml, validate=self._validate)
            machine.defined = True

        try:
            await self._call(define, drain=True)
        except OSError as error:
            raise Unavailable(f"cannot make {directory}: {error.strerror}") from error

    async def _start(self, machine: Machine) -> RuntimeStatus:
        def start(native: Any) -> tuple[Record, int, int]:
            domain = native.lookupByUUIDString(machine.uuid)
            domain.create()
            record = begun(machine.record)
            domains.keep_life(native, record)
            state, reason = domain.state()
            return record, state, reason

        call = self._call(start, timeout=self._start_timeout, drain=True)
        machine.record, state, reason = await call
        return self._inventory.report(machine, state, reason)

    async def _undo(self, machine: Machine) -> None:
        machine.going = True
        try:
            await self._remove(machine)
        except TandemError as error:
            logger.warning("could not undo the start of %s: %s", machine.spec_id, error)

    # -- delete, step by step ------------------------------------------------------------------

    async def _switch_off(self, id: str, grace_seconds: float) -> None:
        """Have the guest shut down, for so long at most; raises ``NotFound`` when it is gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        while (left := deadline - loop.time()) > 0:
            machine = await self._inventory.find(id)
            machine.off.clear()
            if not await self._call(partial(domains.ask_to_end, uuid=machine.uuid)):
                machine.off.set()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _ASK_AGAIN_SECONDS)):
                    await machine.off.wait()

    async def _remove(self, machine: Machine) -> None:
        """Force it off and take away everything that we, or libvirt for it, made."""
        if machine.defined:
            await self._call(
                lambda native: domains.force_off_and_undefine(native, machine.uuid), drain=True
            )
        self._inventory.gone(machine.uuid)
        await blocking(shutil.rmtree, self._log_dir / machine.uuid, ignore_errors=True)

    # ------------------------------------------------------------------------------------------

    async def _set_paused(self, id: str, paused: bool) -> RuntimeStatus:
        machine = await self._inventory.find(id)
        await self._call(lambda native: domains.pause(native, machine.uuid, paused))
        return await self._inventory.status(machine)

    async def _call(self, function: Callable[[Any], T], **options: Any) -> T:
        return await self._inventory.connection.call(function, **options)

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """See ``work`` to its end, whoever cancels meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise
