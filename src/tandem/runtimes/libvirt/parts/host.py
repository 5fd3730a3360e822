"""What a host has given to one machine, beyond its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Given:
    """``cpus``: the host's processors that are the machine's alone, one for each of its own, and
    ``emulator_cpus`` for QEMU's other work; empty where none were asked for. ``shared_cpus``: all that
    a machine without processors of its own may run on, empty for any. ``loader``: EFI's code.
    ``virtiofsd``: the server of shared file systems."""

    cpus: tuple[int, ...] = ()
    emulator_cpus: tuple[int, ...] = ()
    shared_cpus: tuple[int, ...] = ()
    loader: Path | None = None
    virtiofsd: Path | None = None
