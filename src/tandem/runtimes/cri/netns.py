"""Connections from inside the network of another process, loopback included.

CRI's own PortForward cannot carry the end of one direction: containerd closes the connection a second
after either side is done. A socket belongs to the network namespace in which it was made, so one that
a thread makes there is all that is needed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading

_CLONE_NEWNET = 0x40000000
_FAMILIES = (
    (socket.AF_INET, "127.0.0.1", "IPv4: dial tcp4 127.0.0.1"),
    (socket.AF_INET6, "::1", "IPv6: dial tcp6 [::1]"),
)


async def connect(pid: int, port: int) -> socket.socket:
    """A connection to ``port`` on the loopback of the network in which ``pid`` lives, by IPv4, else
    by IPv6. Raises ``ProcessLookupError``, ``ConnectionError`` (nobody takes it, in the words of
    the kubelet's runtimes) and other ``OSError``."""
    loop = asyncio.get_running_loop()
    tried = []
    for family, host, words in _FAMILIES:
        try:
            made = await asyncio.to_thread(_socket_in, pid, family)
        except FileNotFoundError as error:
            raise ProcessLookupError(f"there is no process {pid}") from error
        except OSError as error:  # a kernel without IPv6
            tried.append(f"{words}:{port}: {_lower(error)}")
            continue
        try:
            await loop.sock_connect(made, (host, port))
        except OSError as error:
            made.close()
            tried.append(f"{words}:{port}: connect: {_lower(error)}")
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise ConnectionRefusedError(" ".join(tried))


def _socket_in(pid: int, family: int) -> socket.socket:
    """A socket in the network namespace of ``pid``. The thread that goes there never comes back, so
    it is one of its own."""
    made: list[socket.socket | OSError] = []

    def work() -> None:
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(namespace)
                made.append(socket.socket(family, socket.SOCK_STREAM))
            finally:
                os.close(namespace)
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=work, name="netns")
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    result.setblocking(False)
    result.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return result


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _lower(error: OSError) -> str:
    # asyncio has words of its own for a call that failed.
    return os.strerror(error.errno).lower() if error.errno else str(error)
