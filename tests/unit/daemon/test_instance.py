"""One daemon per data directory, and how its starter hears that it serves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tandem import instance
from tandem.errors import Conflict, Unavailable
from tandem.instance import InstanceLock, ReadySocket, notify, running_pid


def test_a_second_daemon_is_refused_with_the_firsts_pid(tmp_path: Path) -> None:
    path = tmp_path / "data" / "daemon.lock"
    lock = InstanceLock(path)
    with pytest.raises(Conflict, match=rf"another daemon \(process {os.getpid()}\) runs on"):
        InstanceLock(path)
    lock.release()
    lock.release()
    InstanceLock(path).release()


def test_the_lock_tells_who_runs_and_a_stale_file_nobody(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    assert running_pid(path) == 0
    lock = InstanceLock(path)
    assert running_pid(path) == os.getpid()
    lock.release()
    assert path.read_text() == f"{os.getpid()}\n"
    assert running_pid(path) == 0


def test_a_longer_pid_of_before_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    path.write_text("123456789012\n")
    lock = InstanceLock(path)
    assert running_pid(path) == os.getpid()
    lock.release()


def test_a_lock_that_nobody_signs_is_said_to_be_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "_PID_SECONDS", 0.0)
    path = tmp_path / "daemon.lock"
    lock = InstanceLock(path)
    os.truncate(path, 0)
    with pytest.raises(Unavailable, match="no daemon of ours"):
        running_pid(path)
    lock.release()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"cannot use .*file/data: Not a directory"):
        InstanceLock(tmp_path / "file" / "data" / "daemon.lock")


def test_readiness_is_heard_and_nothing_else_is_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ReadySocket() as ready:
        monkeypatch.setenv("NOTIFY_SOCKET", ready.address)
        notify("STATUS=NOT_READY=1")
        assert not ready.wait(0.01)
        notify("READY=1\nSTATUS=serving")
        assert ready.wait(1.0)


def test_a_starter_that_went_away_or_never_was_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ReadySocket() as ready:
        monkeypatch.setenv("NOTIFY_SOCKET", ready.address)
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
