"""One daemon per data directory, and how its starter learns that it serves.

The lock is the truth about whether a daemon runs: the kernel lets go of it when the process ends,
however it ends, so there is no stale pid file to be misled by. Readiness is told by systemd's own
protocol (a datagram to ``$NOTIFY_SOCKET``), which ``tandem up`` speaks as well where there is no
systemd.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from tandem.errors import Conflict, Unavailable

NOTIFY_VARIABLE = "NOTIFY_SOCKET"

# Between taking the lock and writing the pid into it lie microseconds.
_PID_SECONDS = 1.0


class InstanceLock:
    """The right to be the daemon of a data directory, held until :meth:`release` or the process's
    end; the file holds the process id."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises ``Conflict`` (another daemon has it) and ``Unavailable``."""
        self.path = path
        try:
            # Passable, not readable: the user that QEMU runs as must get through to its disks.
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(
                f"cannot use {path.parent}: {error.strerror}",
                hint="run as root, or name another directory with --data-dir",
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            pid = running_pid(path)
            raise Conflict(
                f"another daemon (process {pid}) runs on {path.parent}",
                hint="stop it with: tandem down",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another daemon run. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def running_pid(path: Path) -> int:
    """The process id of the daemon that holds the lock ``path``; 0 when none does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}", hint="run as root") from error
    try:
        deadline = time.monotonic() + _PID_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return 0
            except BlockingIOError:
                written = os.pread(descriptor, 32, 0)
            if written.endswith(b"\n"):
                return int(written)
            if time.monotonic() > deadline:
                raise Unavailable(f"{path} is locked by something that is no daemon of ours")
            time.sleep(0.005)
    finally:
        os.close(descriptor)


def notify(state: str) -> None:
    """Tell whoever started us (``READY=1``, ``STOPPING=1``, ``STATUS=...``); nobody is fine too."""
    address = os.environ.get(NOTIFY_VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return  # they no longer listen


class ReadySocket:
    """The listening end of :func:`notify`, for who starts a daemon. A context manager."""

    def __init__(self) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # An abstract address that the kernel picks: no file, so nothing to leave behind, and no
        # path that could be too long.
        self._channel.bind("")
        name: bytes = self._channel.getsockname()
        self.address = "@" + name[1:].decode()

    def __enter__(self) -> ReadySocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def wait(self, seconds: float) -> bool:
        """Whether ``READY=1`` came within ``seconds``."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._channel.settimeout(left)
            try:
                message = self._channel.recv(4096)
            except TimeoutError:
                return False
            if b"READY=1" in message.split(b"\n"):
                return True
        return False
