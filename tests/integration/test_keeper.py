"""The keeper, with small programs as its services."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tandem.host import keeper

SECONDS = 10.0
T = TypeVar("T")


def eventually(look: Callable[[], T]) -> T:
    """The first true value of ``look``."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
    return found


class Kept:
    """A keeper's folder, as :mod:`tandem.host.services` uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[int] = set()

    def want(self, name: str, *command: str, want: str = "run") -> None:
        lines = [f"want={want}", f"log={self.folder / name}.log", "env=COLOUR=blue"]
        lines += [f"arg={word}" for word in command]
        keeper.write_file(str(self.folder / f"{name}.service"), "\n".join(lines) + "\n")
        if self.wake() == keeper.ANOTHER_RUNS:
            os.kill(self.pid(), signal.SIGHUP)

    def wake(self) -> int:
        command = [sys.executable, "-S", "-I", keeper.__file__, str(self.folder)]
        with open(self.folder / "keeper.log", "ab") as log:
            return subprocess.call(command, stdout=log, stderr=log, env={})

    def pid(self) -> int:
        return int((self.folder / "lock").read_text())

    def service(self, name: str) -> int:
        """The pid of the service, waited for."""
        pid = eventually(lambda: keeper.running_pid(str(self.folder / f"{name}.pid")))
        self.seen.add(pid)
        return pid

    def log(self) -> str:
        return (self.folder / "keeper.log").read_text()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(kept.pid(), signal.SIGKILL)
    for file in tmp_path.glob("*.pid"):
        kept.seen.add(keeper.running_pid(str(file)))
    for pid in kept.seen - {0}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def state(pid: int) -> str:
    """ "R", "S", "Z", ... of a process; "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_service_runs_below_the_keeper_in_a_session_of_its_own_with_its_environment(
    kept: Kept,
) -> None:
    kept.want("one", "/bin/sh", "-c", "echo $COLOUR; exec sleep 600")
    pid = kept.service("one")
    assert parent(pid) == kept.pid()
    assert os.getsid(pid) == pid
    assert eventually(lambda: read(kept.folder / "one.log")) == "blue\n"


def test_one_folder_has_one_keeper(kept: Kept) -> None:
    kept.want("one", "/bin/sleep", "600")
    assert kept.wake() == keeper.ANOTHER_RUNS


def test_a_service_that_dies_is_started_again(kept: Kept) -> None:
    kept.want("one", "/bin/sleep", "600")
    first = kept.service("one")
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: (pid := kept.service("one")) != first and pid)
    assert f"one: process {first} ended by signal 9" in kept.log()


def test_one_that_keeps_dying_is_started_ever_more_rarely(kept: Kept) -> None:
    kept.want("one", "/bin/sh", "-c", "exit 3")
    eventually(lambda: kept.log().count("ended with status 3") >= 2)
    assert "next start in 0.2 s" in kept.log()
    assert "next start in 1 s" in kept.log()
    assert "status 3" in (kept.folder / "one.exit").read_text()


def test_a_program_that_is_not_there_is_told(kept: Kept) -> None:
    kept.want("one", "/no/such/program")
    assert "No such file" in eventually(lambda: read(kept.folder / "one.exit"))


def test_services_outlive_a_killed_keeper_and_the_next_one_adopts_them(kept: Kept) -> None:
    kept.want("one", "/bin/sleep", "600")
    pid, first = kept.service("one"), kept.pid()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: state(first) in ("", "Z"))
    assert state(pid) in ("S", "R")

    kept.want("two", "/bin/sleep", "600")
    kept.service("two")
    assert kept.pid() != first
    assert f"one: adopted process {pid}" in kept.log()
    assert kept.service("one") == pid

    os.kill(pid, signal.SIGKILL)  # and it looks after the adopted one as after its own
    assert eventually(lambda: (new := kept.service("one")) != pid and new)


def test_a_keeper_that_is_told_to_leave_leaves_the_services(kept: Kept) -> None:
    kept.want("one", "/bin/sleep", "600")
    pid, first = kept.service("one"), kept.pid()
    os.kill(first, signal.SIGTERM)
    eventually(lambda: state(first) in ("", "Z"))
    assert state(pid) in ("S", "R")


def test_only_a_word_stops_a_service_not_a_lost_file(kept: Kept) -> None:
    kept.want("one", "/bin/sleep", "600")
    kept.want("two", "/bin/sleep", "600")
    one, two = kept.service("one"), kept.service("two")
    (kept.folder / "one.service").unlink()
    kept.want("two", "/bin/sleep", "600", want="stop")
    eventually(lambda: not state(two))
    assert state(one) in ("S", "R")
    assert not (kept.folder / "two.pid").exists()


def test_orphans_of_a_service_are_reaped_at_once(kept: Kept) -> None:
    # What libvirtd does with QEMU: start a process that nobody of its own waits for.
    orphan_file = kept.folder / "orphan"
    kept.want("one", "/bin/sh", "-c", f"(sleep 600 & echo $! >{orphan_file}); exec sleep 600")
    orphan = int(eventually(lambda: read(orphan_file)))
    kept.seen.add(orphan)
    eventually(lambda: parent(orphan) == kept.pid())
    os.kill(orphan, signal.SIGKILL)
    eventually(lambda: state(orphan) == "")


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_it_is_small(kept: Kept) -> None:
    kept.want("one", "/bin/sleep", "600")
    kept.service("one")
    status = Path(f"/proc/{kept.pid()}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    assert int(line.split()[1]) <= 10 * 1024


def test_a_log_that_grows_beyond_its_bound_is_cut_with_one_old_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOG_LIMIT_BYTES", 100)
    service = keeper.Service(str(tmp_path), "one")
    service.log = str(tmp_path / "one.log")
    with open(service.log, "ab") as writer:
        writer.write(b"a" * 101)
        writer.flush()
        service.rotate_log()
        writer.write(b"b")
    assert (tmp_path / "one.log").read_bytes() == b"b"
    assert (tmp_path / "one.log.1").read_bytes() == b"a" * 101


def test_a_pid_that_was_used_again_is_not_taken_for_the_service(tmp_path: Path) -> None:
    file = tmp_path / "one.pid"
    file.write_text(f"{os.getpid()} {keeper.start_time(os.getpid())}\n")
    assert keeper.running_pid(str(file)) == os.getpid()
    file.write_text(f"{os.getpid()} 1\n")
    assert keeper.running_pid(str(file)) == 0
