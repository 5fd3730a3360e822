"""What the host has for the firmware of machines: EFI, and the servers of TPMs and shared folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tandem.api.quantity import to_bytes
from tandem.errors import Cause, Unsupported

_OVMF = Path("/usr/share/OVMF")
# Code and the variables it begins with; Secure Boot's has the keys that distributions sign with.
_PAIRS = {
    True: ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
    False: ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
}
_VHOST_USER = (Path("/etc/qemu/vhost-user"), Path("/usr/share/qemu/vhost-user"))
_VIRTIOFSD = (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/qemu/virtiofsd"))
_PAGES = Path("/sys/kernel/mm/hugepages")


@dataclass(frozen=True, slots=True)
class Firmware:
    """EFI's code, which machines share, and the variables that each begins with."""

    code: Path
    variables: Path


def efi(*, secure: bool) -> Firmware:
    """EFI, with Secure Boot or without. Raises ``Unsupported``. Blocking."""
    code, variables = (_OVMF / name for name in _PAIRS[secure])
    if not (code.exists() and variables.exists()):
        message = (
            f"EFI OVMF roms missing for booting in EFI mode with SecureBoot={str(secure).lower()}"
        )
        raise _missing("spec.domain.firmware.bootloader.efi", message, "install the package ovmf")
    return Firmware(code, variables)


def check_tpm() -> None:
    """Raise ``Unsupported`` where no TPM can be emulated. Blocking."""
    missing = [name for name in ("swtpm", "swtpm_setup") if shutil.which(name) is None]
    if missing:
        message = f"this host has no {' and no '.join(missing)}"
        hint = "install the packages swtpm and swtpm-tools"
        raise _missing("spec.domain.devices.tpm", message, hint)


def virtiofsd() -> Path:
    """The server of shared folders. Raises ``Unsupported``. Blocking."""
    for folder in _VHOST_USER:
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                document = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
            if document.get("type") == "fs" and Path(str(document.get("binary"))).exists():
                return Path(document["binary"])
    for binary in _VIRTIOFSD:
        if binary.exists():
            return binary
    hint = "install virtiofsd (on Debian 12 it is in qemu-system-common)"
    raise _missing("spec.domain.devices.filesystems", "this host has no virtiofsd", hint)


def check_hugepages(page: str, memory: int) -> None:
    """Raise ``Unsupported`` where the host has not enough free pages of this size for ``memory``
    bytes, in the scheduler's words. Blocking."""
    size = to_bytes(page)
    folder = _PAGES / f"hugepages-{size >> 10}kB"
    try:
        free = int((folder / "free_hugepages").read_text())
    except (OSError, ValueError):
        free = 0
    if free * size >= memory:
        return
    detail = f"the host has {free} free pages of {page}, and {-(-memory // size)} are needed"
    hint = f"write how many there are to be to {folder / 'nr_hugepages'}"
    message = f"0/1 nodes are available: 1 Insufficient hugepages-{page}. {detail}"
    raise _missing("spec.domain.memory.hugepages", message, hint)


def _missing(field: str, message: str, hint: str) -> Unsupported:
    cause = Cause(field, message, "FieldValueNotSupported")
    return Unsupported(f"{field}: {message}", causes=[cause], hint=hint)
