"""up and down around the daemon itself: what is checked, handed on and said. The daemon's own start
and end are in tests/unit/daemon."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tandem.cli import lifecycle, unit
from tandem.cli.main import parser_of
from tandem.config import Settings
from tandem.errors import TandemError, Unavailable
from tandem.instance import InstanceLock
from tests.unit.cli.conftest import Api, Run
from tests.unit.cli.test_status import report

Out = pytest.CaptureFixture[str]
MEMORY = ("--container-runtime", "memory", "--vm-runtime", "memory")


def parsed(*words: str) -> argparse.Namespace:
    return parser_of("up").parse_args(words)


def test_up_hands_its_own_flags_to_the_daemon_and_no_more() -> None:
    args = parsed("--config", "c.yaml", "--listen-port", "0", "--registry-mirrors", "a=http://b")
    assert lifecycle._arguments(args) == [
        "serve", "--config", str(Path("c.yaml").absolute()),
        "--listen-port", "0", "--registry-mirrors", "a=http://b",
    ]  # fmt: skip


def test_up_needs_root_for_real_runtimes_only(
    run: Run, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert run("up") == 1
    assert "hint: sudo tandem up" in capsys.readouterr().err
    monkeypatch.setattr(lifecycle, "_start", lambda *_: None)
    api.answers["GET", "/statusz"] = report()
    assert run("up", *MEMORY) == 0


def test_up_leaves_a_running_daemon_and_says_what_to_do_next(
    run: Run, api: Api, tmp_path: Path, kubeconfig: Path, capsys: Out
) -> None:
    lock = InstanceLock(tmp_path / "data" / "daemon.lock")
    api.answers["GET", "/statusz"] = report()
    assert run("up", *MEMORY) == 0
    out, err = capsys.readouterr()
    assert "runs already" in err
    assert "The daemon is version 9.9 and this is" in err
    assert f"export KUBECONFIG={kubeconfig}" in out
    lock.release()


class Services:
    """The host's services, where containerd starts and libvirt does not."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def ensure_containerd(self) -> None:
        assert self.options["registry_mirrors"] == {"a": "http://b"}
        self.options["progress"]("starting containerd")

    def ensure_libvirt(self) -> None:
        raise Unavailable("libvirtd is not installed", hint="apt-get install it")


def test_a_runtime_that_cannot_be_started_does_not_keep_the_daemon_from_starting(
    run: Run, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("tandem.host.services.HostServices", Services)
    started: list[list[str]] = []
    monkeypatch.setattr(lifecycle, "_start", lambda words, _: started.append(words))
    api.answers["GET", "/statusz"] = report()
    assert run("up", "--registry-mirrors", "a=http://b") == 0
    err = capsys.readouterr().err
    assert "no virtual machines for now: libvirtd is not installed" in err
    assert "  starting containerd\n" in err
    assert started


def test_runtimes_are_left_alone_when_told_so(
    run: Run, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("tandem.host.services.HostServices", None)
    monkeypatch.setattr(lifecycle, "_start", lambda *_: None)
    api.answers["GET", "/statusz"] = report()
    assert run("up", "--start-runtimes", "never") == 0


def test_a_daemon_that_ends_at_once_is_reported_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(log_dir=tmp_path)
    settings.log_file.write_text("error: an older one\n")
    monkeypatch.setattr("os.environ", {})
    with pytest.raises(
        Unavailable, match=r"start: flag --listen-port: listen_port is 'x'"
    ) as caught:
        lifecycle._start(["serve", "--listen-port", "x"], settings)
    assert caught.value.hint == f"see {settings.log_file}"


def test_down_without_a_daemon_is_done(run: Run, capsys: Out) -> None:
    assert run("down") == 0
    assert "does not run" in capsys.readouterr().err


def test_down_says_what_keeps_running(
    run: Run, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    lock = InstanceLock(tmp_path / "data" / "daemon.lock")
    monkeypatch.setattr(lifecycle, "_stop", lambda *_: None)
    api.answers["GET", "/statusz"] = report()
    assert run("down") == 0
    assert "Still running, as before: 2 pods." in capsys.readouterr().err
    lock.release()


def test_down_forces_a_daemon_that_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "daemon.lock"
    deaf = (
        "import signal, sys; from pathlib import Path; from tandem.instance import InstanceLock\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "lock = InstanceLock(Path(sys.argv[1])); print('up', flush=True); signal.pause()"
    )
    monkeypatch.setattr(lifecycle, "_STOP_SECONDS", 0.05)
    with subprocess.Popen([sys.executable, "-c", deaf, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        lifecycle._stop(process.pid, path)
        assert process.wait() == -9


def test_the_unit_is_ready_when_it_serves_and_keeps_the_words_as_they_are() -> None:
    text = unit.text(["serve", "--registry-mirrors", "a=http://b c$d%e"])
    assert "Type=notify" in text
    [command] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert command.endswith('-P -m tandem serve --registry-mirrors "a=http://b c$$d%%e"')


def test_only_the_machines_one_daemon_becomes_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit, "_BOOTED", tmp_path)
    assert unit.applies(Settings())
    assert not unit.applies(Settings(data_dir=tmp_path))
    monkeypatch.setattr(unit, "_BOOTED", tmp_path / "none")
    assert not unit.applies(Settings())


def test_the_unit_is_written_then_enabled_and_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "systemctl"
    script.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ntest "$1" != stop\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(unit, "FILE", tmp_path / "tandem.service")
    unit.start(["serve"])
    assert (tmp_path / "tandem.service").read_text() == unit.text(["serve"])
    assert unit.is_active()
    with pytest.raises(TandemError, match="systemctl ended with status 1"):
        unit.stop()
    assert (tmp_path / "asked").read_text().splitlines() == [
        "daemon-reload",
        "enable --now tandem.service",
        "is-active --quiet tandem.service",
        "stop tandem.service",
    ]
