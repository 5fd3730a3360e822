"""What is done to libvirt's own objects. Everything here blocks, and runs in a thread of the pool.

``native`` is libvirt's connection. libvirt's errors pass through, to be translated where they arrive.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from tandem.errors import Conflict
from tandem.runtimes.libvirt import faults, groups
from tandem.runtimes.libvirt.definition import LIFE_NS, Record, life_xml, parse, read
from tandem.runtimes.libvirt.states import Paused, State

logger = logging.getLogger(__name__)

Row = tuple[str, int, int]
"""A domain's UUID, state and reason."""

# libvirt's constants, which its module only has once it is imported.
_AFFECT_CONFIG = 2
_METADATA_ELEMENT = 2
_XML_INACTIVE = 2
_STATS_STATE = 1
_DEFINE_VALIDATE = 1

# VIR_DOMAIN_UNDEFINE_*: managed save, snapshots', checkpoints'; NVRAM and TPM, taken or kept; and what
# an older libvirt or a simpler driver takes instead.
_SAVED, _SNAPSHOTS, _CHECKPOINTS = 1, 2, 16
_NVRAM, _KEEP_NVRAM, _TPM, _KEEP_TPM = 4, 8, 32, 64
_LIBVIRTS_NVRAM = "/var/lib/libvirt/qemu/nvram/"


def lookup(native: Any, uuid: str) -> Any:
    """The domain, or None."""
    import libvirt

    try:
        return native.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() != faults.NO_DOMAIN:
            raise
        return None


def state(native: Any, uuid: str) -> tuple[int, int]:
    """The domain's state and reason."""
    found, reason = native.lookupByUUIDString(uuid).state()
    return found, reason


def record(native: Any, uuid: str) -> Record:
    """What the domain's definition says about it."""
    return _read(native.lookupByUUIDString(uuid))


def _read(domain: Any) -> Record:
    return read(parse(domain.XMLDesc(_XML_INACTIVE)))


def scan(native: Any, known: Collection[str]) -> tuple[list[Row], list[Record]]:
    """All domains, in one call; the definitions only of those not ``known``."""
    import libvirt

    rows, records = [], []
    for domain, stats in native.getAllDomainStats(_STATS_STATE, 0):
        uuid = domain.UUIDString()
        if uuid not in known:
            try:
                records.append(_read(domain))
            except libvirt.libvirtError as error:
                if error.get_error_code() == faults.NO_DOMAIN:
                    continue  # it went meanwhile
                raise
        rows.append((uuid, stats["state.state"], stats["state.reason"]))
    return rows, records


def define(native: Any, xml: str, *, validate: bool) -> None:
    """Define a domain that does not exist."""
    native.defineXMLFlags(xml, _DEFINE_VALIDATE if validate else 0)


def keep_life(native: Any, record: Record) -> None:
    """Write into the domain's definition when it was started and how it ended."""
    if record.started_at is not None:
        native.lookupByUUIDString(record.uuid).setMetadata(
            _METADATA_ELEMENT,
            life_xml(record.started_at, record.boot, record.end),
            "tandem-life",
            LIFE_NS,
            _AFFECT_CONFIG,
        )


def pause(native: Any, uuid: str, paused: bool) -> None:
    """Freeze the domain, or thaw it; one that is so already stays so. Raises ``Conflict`` when it is
    off."""
    domain = native.lookupByUUIDString(uuid)
    if not domain.isActive():
        raise Conflict(f"virtual machine {domain.name()!r} is not running")
    if (domain.state()[0] == State.PAUSED) is not paused:
        if paused:
            domain.suspend()
        else:
            domain.resume()


def ask_to_end(native: Any, uuid: str) -> bool:
    """Press the power button; False when the machine is off already."""
    import libvirt

    domain = native.lookupByUUIDString(uuid)
    found, reason = domain.state()
    if found in (State.SHUTOFF, State.CRASHED):
        return False
    try:
        if (found, reason) == (State.PAUSED, Paused.USER):
            domain.resume()  # frozen, it could not even hear
        domain.shutdown()
    except libvirt.libvirtError as error:
        if faults.is_broken(error) or error.get_error_code() == faults.NO_DOMAIN:
            raise
        # It ended this moment, or cannot be asked now (no ACPI, busy agent): the grace goes on.
        logger.debug("cannot ask domain %s to shut down: %s", uuid, error)
    return True


def force_off_and_undefine(native: Any, uuid: str) -> None:
    """Take the domain away with all that libvirt keeps for it; one that is gone is success."""
    import libvirt

    if (domain := lookup(native, uuid)) is None:
        return
    try:
        if domain.isActive():
            domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (faults.OPERATION_INVALID, faults.NO_DOMAIN):
            raise  # else it ended this moment
    _undefine(domain)
    groups.remove(domain.name())


def _undefine(domain: Any) -> None:
    import libvirt

    root = parse(domain.XMLDesc(_XML_INACTIVE))
    # Variables that are not in libvirt's own folder are the caller's, and so is a TPM that is to last.
    variables = root.findtext("os/nvram") or _LIBVIRTS_NVRAM
    nvram = _NVRAM if variables.startswith(_LIBVIRTS_NVRAM) else _KEEP_NVRAM
    backend = root.find("devices/tpm/backend")
    lasting = backend is not None and backend.get("persistent_state") == "yes"
    tpm = _KEEP_TPM if lasting else _TPM
    everything = _SAVED | _SNAPSHOTS | nvram | _CHECKPOINTS
    for flags in (everything | tpm, everything, _SAVED | _SNAPSHOTS | nvram, _SAVED, 0):
        try:
            domain.undefineFlags(flags)
            return
        except libvirt.libvirtError as error:
            if error.get_error_code() == faults.NO_DOMAIN:
                return
            if error.get_error_code() != faults.INVALID_ARG or not flags:
                raise
