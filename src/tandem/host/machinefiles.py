"""What a machine's files are, and the record of them in its directory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tandem.errors import Cause, InvalidSpec
from tandem.host import qcow2

RECORD = "files.json"
"""In each machine's directory: what is in it."""

_VERSION = 2
_PLAIN = ("format", "backing_format", "kind", "readonly", "shared", "own_backing")

# Names that become file names: no separators, no leading dot, short.
UID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
VOLUME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A volume's disk. ``backing`` is what it lies on: another file, read-only, and its format.
    ``kind``: a file, or a block device of the host. ``shared``: other machines may write to it.
    ``own_backing``: QEMU's user may be given the backing file; an image's is the container runtime's.
    """

    path: Path
    format: qcow2.Format
    backing: Path | None = None
    backing_format: qcow2.Format = "raw"
    kind: Literal["file", "block"] = "file"
    readonly: bool = False
    shared: bool = False
    own_backing: bool = False


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """The files of one machine: its disks and shared folders by volume name, what it boots from
    directly, and EFI's variables. ``cpus`` are the host's processors that are its own, the last
    ``emulator_cpus`` of them for QEMU's own work."""

    disks: Mapping[str, DiskFile] = field(default_factory=dict)
    kernel: Path | None = None
    initrd: Path | None = None
    nvram: Path | None = None
    shares: Mapping[str, Path] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    emulator_cpus: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim is on this host: a directory for ``disk.img``, or a block device; ``size`` is what
    it is said to hold, in bytes."""

    path: Path
    size: int


class Sources(Protocol):
    """The objects that volumes are made of, in the machine's namespace. Raise ``NotFound`` for what
    is not there, or not yet."""

    def secret(self, name: str) -> Mapping[str, bytes]:
        """The data of a Secret."""
        ...

    def files(self, volume: Mapping[str, Any]) -> Mapping[str, bytes]:
        """What a configMap, secret, downwardAPI, serviceAccount or sysprep volume holds, by name.
        Blocking: a token may have to be signed."""
        ...

    def claim(self, name: str) -> Claim:
        """What a PersistentVolumeClaim is bound to."""
        ...


def check_name(rule: re.Pattern[str], name: str, where: str) -> None:
    """Raise ``InvalidSpec`` for a name that must not become a file's."""
    if not rule.fullmatch(name):
        message = f'Invalid value: "{name}": must match {rule.pattern}'
        raise InvalidSpec(f"{where}: {message}", causes=[Cause(where, message)])


def owner_of(vmi: Mapping[str, Any]) -> str:
    """The UID of the VirtualMachine that the instance is a run of, else its own."""
    for reference in vmi["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == "VirtualMachine":
            return str(reference["uid"])
    return str(vmi["metadata"].get("uid", ""))


def write_private(path: Path, content: bytes) -> None:
    """A new file that only root reads."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def complete(work: Path, target: Path, files: MachineFiles) -> None:
    """Write the record and give the finished directory its name."""

    def name(path: Path | None) -> str | None:
        if path is None:
            return None
        return path.name if path.parent == target else str(path)

    record = {
        "version": _VERSION,
        "disks": {
            volume: {
                **{key: getattr(disk, key) for key in _PLAIN},
                "path": name(disk.path),
                "backing": name(disk.backing),
            }
            for volume, disk in files.disks.items()
        },
        "shares": {volume: name(path) for volume, path in files.shares.items()},
        **{key: name(getattr(files, key)) for key in ("kernel", "initrd", "nvram")},
        "cpus": files.cpus,
        "emulator_cpus": files.emulator_cpus,
    }
    write_private(work / RECORD, json.dumps(record).encode())
    work.rename(target)


def recorded(target: Path) -> MachineFiles | None:
    """What an earlier preparation made; a directory that is there is complete."""
    try:
        record = json.loads((target / RECORD).read_bytes())
    except FileNotFoundError:
        return None
    if record["version"] != _VERSION:
        raise InvalidSpec(f"{target / RECORD} is of another version of Tandem")

    def path(name: str | None) -> Path | None:
        return target / name if name else None

    return MachineFiles(
        disks={
            volume: DiskFile(
                target / disk["path"],
                backing=path(disk["backing"]),
                **{key: disk[key] for key in _PLAIN},
            )
            for volume, disk in record["disks"].items()
        },
        shares={volume: target / name for volume, name in record["shares"].items()},
        kernel=path(record["kernel"]),
        initrd=path(record["initrd"]),
        nvram=path(record["nvram"]),
        cpus=tuple(record["cpus"]),
        emulator_cpus=record["emulator_cpus"],
    )
