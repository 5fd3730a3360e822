"""Keeps containerd, virtlogd and libvirtd running on a host that has no service manager.

Run as a program: ``python -S -I keeper.py DIRECTORY``. It uses nothing but small modules of the
standard library, so that it stays below 10 MiB.

Why it exists: libvirt and containerd leave their workloads (QEMU, shims) as orphans on purpose, and
whoever adopts orphans has to reap them promptly, or every stop of a machine takes a second and
libvirt's start takes a minute. Few containers' or virtual machines' PID 1 does. The keeper is a
"child subreaper": orphans of everything it started become its children, and it reaps them at once.

``DIRECTORY`` says what is to run; there is no other protocol:

- ``NAME.service``: lines ``want=run|stop``, ``log=PATH``, ``arg=...`` (one for each argument) and
  ``env=KEY=VALUE``. Written by :mod:`tandem.host.services`; SIGHUP makes the keeper read again.
  Only ``want=stop`` stops a service: a file that is gone says nothing.
- ``NAME.pid``: the process (``PID STARTTIME``), written by the keeper.
- ``NAME.exit``: how the process last ended, until the next start.
- ``lock``: held by the one living keeper, whose pid it contains.

The services do not depend on the keeper: each is a session of its own that writes to its log file
directly. When the keeper ends (by SIGTERM or anyhow) they go on, and the next keeper adopts them by
their pid files.
"""

# ruff: noqa: SIM105 - contextlib brings in half a megabyte of modules
from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

BACKOFF_SECONDS = (0.2, 1.0, 5.0, 30.0)  # before the 1st, 2nd, ... restart; the last one repeats
STEADY_SECONDS = 60.0  # a service that lived this long starts again at the first back-off
STOP_SECONDS = 15.0  # between SIGTERM and SIGKILL; libvirtd takes a few seconds with many machines
LOG_LIMIT_BYTES = 16 << 20
HOUSEKEEPING_SECONDS = 600.0

ANOTHER_RUNS = 3  # exit status: there is a keeper for this directory already


def start_time(pid: int) -> str:
    """When ``pid`` started, in clock ticks since boot; "" when it is gone or a zombie.

    Together with the pid this names one process for good: pids are used again.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def running_pid(path: str) -> int:
    """The pid that the pid file ``path`` names when that very process still runs, else 0."""
    try:
        with open(path, encoding="ascii") as file:
            pid, started = file.read().split()
        return int(pid) if start_time(int(pid)) == started else 0
    except (OSError, ValueError):
        return 0


def write_file(path: str, text: str) -> None:
    """Replace ``path`` in one step, so that no reader sees half of it."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S%z"), text, file=sys.stderr, flush=True)


class Service:
    """One program that is to run, and the process that does."""

    def __init__(self, directory: str, name: str) -> None:
        self.name = name
        self.base = os.path.join(directory, name)
        self.want_run = False
        self.log = "/dev/null"
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        self.pid = 0
        self.started = ""  # its start time, which tells it from a later process with the same pid
        self.pidfd = -1  # readable when the process ends, whether or not it is our child
        self.started_at = 0.0
        self.failures = 0
        self.start_at = 0.0  # monotonic time of the next start that is due
        self.kill_at = 0.0  # monotonic time at which a stop becomes a SIGKILL; 0: no stop under way

    def read(self) -> None:
        """Take up what the service file says now."""
        arguments: list[str] = []
        environment: dict[str, str] = {}
        with open(self.base + ".service", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.rstrip("\n").partition("=")
                if key == "want":
                    if value == "run" and not self.want_run:
                        self.failures, self.start_at = 0, 0.0
                    self.want_run = value == "run"
                elif key == "log":
                    self.log = value
                elif key == "arg":
                    arguments.append(value)
                elif key == "env":
                    variable, _, content = value.partition("=")
                    environment[variable] = content
        self.arguments, self.environment = arguments, environment
        if not self.pid and (pid := running_pid(self.base + ".pid")):
            say(f"{self.name}: adopted process {pid}")
            self._follow(pid)

    def _follow(self, pid: int) -> None:
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:  # it ended between two looks
            return
        self.pid, self.started, self.started_at = pid, start_time(pid), time.monotonic()

    def step(self, now: float) -> float:
        """Bring the process one step nearer to what is wanted; returns when to look again."""
        if self.want_run:
            self.kill_at = 0.0
            if not self.pid and now >= self.start_at:
                self._start()
            return float("inf") if self.pid else self.start_at
        if not self.pid:
            return float("inf")
        if not self.kill_at:
            say(f"{self.name}: stopping process {self.pid}")
            self._signal(signal.SIGTERM)
            self.kill_at = now + STOP_SECONDS
        elif now >= self.kill_at:
            self._signal(signal.SIGKILL)
            self.kill_at = now + STOP_SECONDS
        return self.kill_at

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass  # it has ended, which the pidfd is about to say

    def _start(self) -> None:
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            os.unlink(self.base + ".exit")
        except FileNotFoundError:
            pass
        try:
            pid = os.posix_spawn(
                self.arguments[0],
                self.arguments,
                self.environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, self.log, write, 0o640),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD],
            )
        except (OSError, IndexError, ValueError) as error:
            self._failed(f"cannot start: {error}")
            return
        write_file(self.base + ".pid", f"{pid} {start_time(pid)}\n")
        say(f"{self.name}: started process {pid}")
        self._follow(pid)
        if not self.pid:
            self._failed("ended at once")

    def ended(self, how: str) -> None:
        """The process is gone. ``how`` says with what status, where we could know."""
        if time.monotonic() - self.started_at >= STEADY_SECONDS:
            self.failures = 0
        os.close(self.pidfd)
        pid, self.pid, self.pidfd, self.kill_at = self.pid, 0, -1, 0.0
        try:
            os.unlink(self.base + ".pid")
        except FileNotFoundError:
            pass
        if self.want_run:
            self._failed(f"process {pid} ended {how}")
        else:
            say(f"{self.name}: process {pid} ended {how}")

    def _failed(self, what: str) -> None:
        pause = BACKOFF_SECONDS[min(self.failures, len(BACKOFF_SECONDS) - 1)]
        self.failures += 1
        self.start_at = time.monotonic() + pause
        say(f"{self.name}: {what}; next start in {pause:g} s")
        write_file(self.base + ".exit", what + "\n")

    def rotate_log(self) -> None:
        """Keep the log within bounds: one old copy, and the open file emptied in place, since its
        writer has it open for appending and cannot be told to reopen it."""
        try:
            size = os.stat(self.log).st_size
            if not self.log.startswith("/dev/") and size > LOG_LIMIT_BYTES:
                with open(self.log, "r+b") as current, open(self.log + ".1", "wb") as old:
                    os.sendfile(old.fileno(), current.fileno(), 0, size)
                    current.truncate(0)
        except OSError as error:
            say(f"{self.name}: cannot rotate {self.log}: {error}")


class Keeper:
    """The loop: read what is wanted, start and stop, reap, sleep until something happens."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.services: dict[str, Service] = {}
        self.statuses: dict[int, int] = {}  # reaped pids of services -> wait status

    def read(self) -> None:
        for entry in sorted(os.listdir(self.directory)):
            name, dot, suffix = entry.rpartition(".")
            if dot and suffix == "service":
                service = self.services.setdefault(name, Service(self.directory, name))
                try:
                    service.read()
                except OSError as error:
                    say(f"{name}: cannot read what is wanted: {error}")

    def reap(self) -> None:
        """Collect every child that has ended, and keep the status of those that are services."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if any(service.pid == pid for service in self.services.values()):
                self.statuses[pid] = status

    def collect(self) -> None:
        """Tell each service whose process has ended."""
        for service in self.services.values():
            if service.pid and start_time(service.pid) != (service.started or None):
                status = self.statuses.pop(service.pid, None)
                code = None if status is None else os.waitstatus_to_exitcode(status)
                if code is None:
                    service.ended("(not our child, status unknown)")
                elif code < 0:
                    service.ended(f"by signal {-code}")
                else:
                    service.ended(f"with status {code}")

    def run(self) -> None:
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        reread, leave = [True], [False]
        signal.signal(signal.SIGHUP, lambda *_: reread.__setitem__(0, True))
        signal.signal(signal.SIGTERM, lambda *_: leave.__setitem__(0, True))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the poll below
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        housekeeping = 0.0
        while not leave[0]:
            self.reap()
            self.collect()
            if reread[0]:
                reread[0] = False
                self.read()
            now = time.monotonic()
            if now >= housekeeping:
                housekeeping = now + HOUSEKEEPING_SECONDS
                for service in self.services.values():
                    service.rotate_log()
            again = min((s.step(now) for s in self.services.values()), default=housekeeping)
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            for service in self.services.values():
                if service.pid:
                    poll.register(service.pidfd, select.POLLIN)
            poll.poll(max(0.0, min(again, housekeeping) - time.monotonic()) * 1000)
            try:
                os.read(wake, 4096)
            except BlockingIOError:
                pass
        say("told to leave; the services go on")


def become_subreaper() -> None:
    import ctypes  # here, because it costs half a megabyte that only this call needs

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        say(f"cannot become a child subreaper: {os.strerror(ctypes.get_errno())}")


def detach(directory: str) -> int:
    """Start the keeper of ``directory`` in the background; ``ANOTHER_RUNS`` when there is one.

    The caller's process returns once the lock file has the keeper's pid, so whoever waits for it
    knows that a SIGHUP to that pid will be heard.
    """
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ANOTHER_RUNS
    # Until the keeper has its handlers a SIGHUP must wait, not kill: fork and exec keep the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    pid = os.fork()
    if pid:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{pid}\n".encode(), 0)
        return 0
    folder = os.path.dirname(os.path.abspath(__file__))
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    become_subreaper()
    # What was set stays set while the program starts anew, without what setting it took. This time
    # it is imported, as compiled before: compiling it would leave a megabyte behind for good.
    os.set_inheritable(lock, True)
    again = "import sys; sys.path.append(sys.argv[1]); import keeper; keeper.keep(*sys.argv[2:])"
    return os.execv(
        sys.executable, [sys.executable, "-S", "-I", "-c", again, folder, directory, str(lock)]
    )


def keep(directory: str, lock: str) -> None:
    """Be the keeper; ``lock`` is the descriptor of the open lock file, held until the end."""
    os.set_inheritable(int(lock), False)
    Keeper(directory).run()


if __name__ == "__main__":
    sys.exit(detach(os.path.abspath(sys.argv[1])))
