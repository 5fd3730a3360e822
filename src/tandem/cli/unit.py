"""The daemon as a systemd unit, where systemd runs the machine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tandem.config import Settings
from tandem.errors import Unavailable
from tandem.host.run import Finished, run

NAME = "tandem.service"
FILE = Path("/etc/systemd/system") / NAME
_BOOTED = Path("/run/systemd/system")


def applies(settings: Settings) -> bool:
    """Whether the daemon is to be a unit: systemd runs, and this is the machine's one daemon (those
    with a data directory of their own are somebody's experiment)."""
    return _BOOTED.is_dir() and settings.data_dir == Settings().data_dir


def text(arguments: list[str]) -> str:
    """The unit file."""
    command = " ".join(_quoted(word) for word in [sys.executable, "-P", "-m", "tandem", *arguments])
    # KillMode=process is not needed: no workload is a child of the daemon.
    return f"""\
# Written by `tandem up`, which writes it again. Add settings with: systemctl edit {NAME}
[Unit]
Description=Kubernetes API for containers and virtual machines on this host
After=network.target containerd.service libvirtd.service virtlogd.socket

[Service]
Type=notify
ExecStart={command}
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-500
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""


def start(arguments: list[str]) -> None:
    """Write the unit, start it now and at every boot; returns when it serves."""
    try:
        FILE.write_text(text(arguments), encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"cannot write {FILE}: {error.strerror}", hint="run as root") from error
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", NAME)


def stop() -> None:
    """Stop the unit until the next start or boot."""
    _systemctl("stop", NAME)


def is_active() -> bool:
    """Whether systemd runs the daemon."""
    return _systemctl("is-active", "--quiet", NAME, accept=None).returncode == 0


def _systemctl(*arguments: str, accept: tuple[int, ...] | None = (0,)) -> Finished:
    asked = run("systemctl", *arguments, accept=accept, hint=f"see: journalctl -u {NAME}")
    return asyncio.run(asked)


def _quoted(word: str) -> str:
    """A word as systemd reads it: ``%`` and ``$`` stand for themselves."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word or not word else word
