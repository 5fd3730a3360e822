"""The smallest guests: firmware images of a hundred bytes that run the moment QEMU does.

They stand for operating systems where a test is about the machine and not about what runs in it: one
that switches off when the power button is pressed, one that ignores it, one that switches off at once.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).parent / "guest.S"
GREETING = b"up\r\n"
ECHO = b"?"  # what they send back for each byte that they are sent

_ROM_BYTES = 1 << 16


class Behaviour(IntEnum):
    """What a guest does; ``MODE`` in the source."""

    OBEDIENT = 0
    STUBBORN = 1
    ENDING = 2


@functools.cache
def assemble(source: Path, *symbols: str) -> bytes:
    """The last 4 KiB of a firmware image, from x86 assembly with these ``NAME=VALUE`` symbols."""
    with tempfile.TemporaryDirectory() as directory:
        objects, image = Path(directory) / "o", Path(directory) / "bin"
        defines = [f"--defsym={symbol}" for symbol in symbols]
        subprocess.run(["as", "--64", *defines, "-o", objects, source], check=True)
        link = ["ld", "-m", "elf_x86_64", "-Ttext=0xff000", "--oformat", "binary", "-e", "_start"]
        subprocess.run([*link, "-o", image, objects], check=True)
        return image.read_bytes()


def write_rom(directory: Path, behaviour: Behaviour) -> Path:
    """The firmware image of a guest, readable by QEMU's user, in ``directory``."""
    path = directory / f"{behaviour.name.lower()}.rom"
    path.write_bytes(assemble(SOURCE, f"MODE={int(behaviour)}").rjust(_ROM_BYTES, b"\0"))
    path.chmod(0o644)
    return path


def domain_xml(name: str, rom: Path, *, extra: str = "") -> str:
    """A domain that runs ``rom``, without a domain type or a UUID; ``extra`` goes into devices."""
    return f"""
    <domain>
      <name>{name}</name>
      <memory unit='MiB'>16</memory>
      <os>
        <type arch='x86_64' machine='q35'>hvm</type>
        <loader readonly='yes' type='rom'>{rom}</loader>
      </os>
      <features><acpi/></features>
      <devices>
        <controller type='usb' model='none'/>
        <memballoon model='none'/>
        {extra}
      </devices>
    </domain>"""
