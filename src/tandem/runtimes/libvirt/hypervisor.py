"""What libvirt and QEMU are here, and whether they are set up to run machines."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.host.run import Account
from tandem.runtimes.libvirt.definition import parse

_VIRTLOGD_SOCKET = Path("/run/libvirt/virtlogd-sock")
_QEMU_CONF = Path("/etc/libvirt/qemu.conf")
_DEVICE = Path("/dev/kvm")
_FALLBACK = Path("/usr/bin/qemu-system-x86_64")


@dataclass(frozen=True, slots=True)
class Facts:
    """``driver`` is libvirt's (``QEMU``, ``TEST``); ``account`` is the user that QEMU runs as, None
    when that is us or cannot be taken on."""

    driver: str
    version: str
    emulator: Path = _FALLBACK
    account: Account | None = None

    @property
    def is_qemu(self) -> bool:
        """Whether real machines run here."""
        return self.driver == "QEMU"


def is_qemu(native: Any) -> bool:
    """Whether this connection runs real machines, rather than libvirt's test driver's."""
    return bool(native.getType() == "QEMU")


def ask(native: Any) -> Facts:
    """Ask libvirt. In a thread."""
    driver = native.getType()
    version = f"{driver} {_dotted(native.getVersion())} / libvirt {_dotted(native.getLibVersion())}"
    if not is_qemu(native):
        return Facts(driver, version)
    capabilities = parse(native.getCapabilities())
    emulator = capabilities.findtext("guest/arch[@name='x86_64']/emulator") or str(_FALLBACK)
    label = ""
    for model in capabilities.findall("host/secmodel"):
        if model.findtext("model") == "dac":
            label = model.findtext("baselabel[@type='kvm']") or ""
    return Facts(driver, version, Path(emulator), _account(label))


def problem(facts: Facts) -> tuple[str, str]:
    """What keeps machines from starting, and the fix; both empty when nothing does."""
    if facts.is_qemu and not _VIRTLOGD_SOCKET.exists() and not _logs_to_files():
        return (
            "virtlogd is not running, and no machine with a logged console starts without it",
            'start virtlogd, or set stdio_handler = "file" in /etc/libvirt/qemu.conf',
        )
    return "", ""


def warning(facts: Facts) -> str:
    """What makes machines start slowly, with the fix; empty when nothing does."""
    if not facts.account or not _DEVICE.exists() or _may_open(_DEVICE, facts.account):
        return ""
    # libvirt finds KVM when it probes QEMU (as root), misses it when it checks that answer (as
    # QEMU's user), and so probes again: half a second, twenty times for each definition.
    return (
        f"{_DEVICE} cannot be opened by QEMU's user, which makes every call of libvirt slow: "
        f"chgrp kvm {_DEVICE} && chmod 660 {_DEVICE}, as udev does"
    )


def _dotted(number: int) -> str:
    """libvirt packs a version as major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _account(label: str) -> Account | None:
    """From libvirt's ``+uid:+gid``, with the groups that it gives to QEMU."""
    user, _, group = label.partition(":")
    if os.geteuid() != 0 or not user or not group:
        return None
    try:
        uid = int(user[1:]) if user.startswith("+") else pwd.getpwnam(user).pw_uid
        gid = int(group[1:]) if group.startswith("+") else grp.getgrnam(group).gr_gid
    except (ValueError, KeyError):
        return None
    if uid == 0:
        return None
    groups: tuple[int, ...] = ()
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(uid)  # libvirt adds to the user's own groups, the primary one included
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(uid, gid, groups)


def _may_open(path: Path, account: Account) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return found.st_mode & 0o600 == 0o600
    if found.st_gid in (account.gid, *account.groups):
        return found.st_mode & 0o060 == 0o060
    return found.st_mode & 0o006 == 0o006


def _logs_to_files() -> bool:
    try:
        lines = _QEMU_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return False
    settings = (line.split("#")[0].replace(" ", "") for line in lines)
    return any(setting == 'stdio_handler="file"' for setting in settings)
