"""Whether KVM really runs machines on this host, found out by running one.

That ``/dev/kvm`` exists and opens proves nothing: under some hypervisors it does, and a guest that
leaves real mode stands still for ever. So a tiny firmware image (``probe/probe.S``, 4 KiB) is run by
the host's QEMU as libvirt would run it: as the same user, with ``-accel kvm -cpu host`` on a q35 board.
It goes the way of every operating system's start and says a letter for each thing that worked:

``r`` real mode, ``p`` protected mode, ``l`` long mode with paging, ``u`` an exception and back, ``w``
24 million instructions including SSE, ``m`` pages mapped by a fault handler, ``s`` 20,000 system calls
from user mode, ``t`` ten interrupts of the local APIC's timer, ``.`` all of it.

What passing proves: QEMU may open KVM as that user and set up the host's processor model, and kernel
code, user code, page faults and clock interrupts run, at a processor's speed rather than an
interpreter's. What it does not prove: more than one virtual processor, devices, nested guests.

The image takes 10 ms under KVM and 130 ms emulated. A host that cannot run it is recognized at once
(QEMU gives up) or after two seconds of processor time, so that a host which is merely busy is not
mistaken for one. The verdict is kept, in memory and in a file, for as long as the host's boot, kernel,
QEMU, its user and ``/dev/kvm`` stay the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tandem.errors import DeadlineExceeded, TandemError
from tandem.host.run import Account, Finished, blocking, run

_DEVICE = Path("/dev/kvm")
_IMAGE = Path(__file__).parent / "probe" / "probe.bin"
_ROM_BYTES = 1 << 16  # QEMU maps whole 64 KiB at the top of the first megabyte and of 4 GiB
_PASSED = 42 << 1 | 1  # what isa-debug-exit makes of the image's 42

_CPU_SECONDS = 2
_WALL_SECONDS = 20.0

_STEPS = {
    "": "QEMU could not start a machine",
    "r": "it stopped at the switch to protected mode",
    "p": "it stopped at the switch to long mode",
    "l": "it stopped at the first exception",
    "u": "it was too slow: its instructions are interpreted",
    "w": "it stopped at a page fault",
    "m": "it stopped at user mode",
    "s": "it stopped at the first timer interrupt",
    "t": "it stopped at its end",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether KVM works, and why it does not, in a few words. ``final`` is False where the probe
    could not tell (the host was too busy): the same question may be answered otherwise later."""

    works: bool
    reason: str = ""
    final: bool = True


class Accelerator:
    """The probe for one QEMU, and its memory.

    ``emulator`` is QEMU's path and ``account`` the user that libvirt runs it as (None: ours);
    ``cache_dir`` keeps the verdict between processes.
    """

    def __init__(self, emulator: Path, account: Account | None, cache_dir: Path) -> None:
        self._emulator = emulator
        self._account = account
        self._cache = cache_dir / "accelerator.json"
        self._lock = asyncio.Lock()
        self._known: tuple[str, Verdict] | None = None

    async def decide(self) -> Verdict:
        """Does KVM work here? Takes no time when it is known, else about a tenth of a second where
        KVM works and at most a few where it does not."""
        async with self._lock:
            key = await blocking(self._key)
            if self._known and self._known[0] == key:
                return self._known[1]
            verdict = await blocking(self._remembered, key)
            if verdict is None:
                verdict = await self._probe()
                if verdict.final:
                    await blocking(self._remember, key, verdict)
            if verdict.final:
                self._known = key, verdict
            return verdict

    # -- the probe -----------------------------------------------------------------------------

    async def _probe(self) -> Verdict:
        if problem := await blocking(self._obstacle):
            return Verdict(False, problem)
        with tempfile.TemporaryDirectory(prefix="tandem-probe-") as directory:
            rom = Path(directory) / "rom"
            await blocking(_write_rom, rom)
            try:
                finished = await self._run(rom)
            except DeadlineExceeded:
                return Verdict(False, "the host was too busy to find out", final=False)
            except TandemError as error:
                return Verdict(False, error.message, final=False)
        return _judge(finished)

    def _obstacle(self) -> str:
        """What needs no machine to be known; empty when there is nothing."""
        if not _DEVICE.exists():
            return f"there is no {_DEVICE}"
        if platform.machine() != "x86_64":
            # The image is x86-64 code. Elsewhere no hypervisor is known that pretends.
            return "the probe knows x86-64 only"
        return ""

    async def _run(self, rom: Path) -> Finished:
        return await run(
            self._emulator,
            "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "16",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-bios", rom, "-debugcon", "stdio", "-device", "isa-debug-exit",
            timeout=_WALL_SECONDS,
            cpu_seconds=_CPU_SECONDS,
            account=self._account,
            accept=None,
        )  # fmt: skip

    # -- its memory ----------------------------------------------------------------------------

    def _key(self) -> str:
        """Everything the verdict depends on, as a digest."""
        facts: list[object] = [platform.release(), str(self._emulator), repr(self._account)]
        facts.append(hashlib.sha256(_IMAGE.read_bytes()).hexdigest())
        with suppress(OSError):
            facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        for path in (_DEVICE, self._emulator):
            try:
                found = os.stat(path)
                facts.append([found.st_rdev, found.st_mode, found.st_uid, found.st_gid])
                facts.append([found.st_size, found.st_ino])
                facts.append(found.st_mtime_ns if path == self._emulator else 0)
            except OSError:
                facts.append(None)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _remembered(self, key: str) -> Verdict | None:
        try:
            document = json.loads(self._cache.read_bytes())
            return Verdict(**document["verdict"]) if document["key"] == key else None
        except (OSError, ValueError, TypeError, KeyError):
            return None  # there is none, or not one of ours: probe again

    def _remember(self, key: str, verdict: Verdict) -> None:
        with suppress(OSError):  # without a cache the next process probes again
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            partial = self._cache.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps({"key": key, "verdict": asdict(verdict)}))
            partial.replace(self._cache)


def _write_rom(path: Path) -> None:
    path.parent.chmod(0o755)  # QEMU's user must get to it
    path.write_bytes(_IMAGE.read_bytes().rjust(_ROM_BYTES, b"\0"))
    path.chmod(0o644)


def _judge(finished: Finished) -> Verdict:
    letters = finished.stdout.decode("ascii", "replace")
    if finished.returncode == _PASSED and letters.endswith("."):
        return Verdict(True)
    step = _STEPS.get(letters[-1:], "it failed a check of its own")
    words = finished.said.splitlines()[0] if not letters and finished.said else ""
    return Verdict(False, f"a test machine failed under KVM: {step}{': ' if words else ''}{words}")
