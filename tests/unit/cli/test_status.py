"""status, version and completion."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tandem import __version__
from tandem.cli import completion
from tandem.errors import Unavailable
from tests.unit.cli.conftest import Api, Run

Out = pytest.CaptureFixture[str]
PATH = "/statusz"


def report(**container: Any) -> dict[str, Any]:
    healthy = {"healthy": True, "problem": "", "hint": "", "details": {}}
    return {
        "version": "9.9",
        "pid": 42,
        "runtimes": [
            {"type": "container", "name": "containerd", "version": "1.6", **healthy, **container},
            {
                "type": "vm",
                "name": "libvirt",
                "version": "9.0",
                **healthy,
                "details": {"accelerator": "qemu", "emulation_reason": "a guest hangs under KVM"},
            },
        ],
        "objects": {"pods": {"Running": 2, "Pending": 1}, "configmaps": {"": 4}},
    }


def test_status_shows_runtimes_accelerator_and_counts(run: Run, api: Api, capsys: Out) -> None:
    api.answers["GET", PATH] = report()
    assert run("status") == 0
    assert capsys.readouterr().out.splitlines() == [
        "serving   http://api (version 9.9, process 42)",
        "container containerd 1.6",
        "vm        libvirt 9.0, accelerator qemu (a guest hangs under KVM)",
        "pods: 3 (1 Pending, 2 Running)",
        "configmaps: 4",
    ]


def test_a_runtime_that_is_absent_is_said_and_status_is_still_zero(
    run: Run, api: Api, capsys: Out
) -> None:
    api.answers["GET", PATH] = report(healthy=False, problem="no socket", hint="tandem up")
    assert run("status") == 0
    assert "container not available: no socket (fix: tandem up)" in capsys.readouterr().out


def test_status_without_a_daemon_is_one(run: Run, api: Api, capsys: Out) -> None:
    api.answers["GET", PATH] = Unavailable("cannot reach http://api: Connection refused")
    assert run("status") == 1
    assert "hint: start the daemon: tandem up" in capsys.readouterr().err
    assert run("status", "-o", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {"serving": False, "problem": "cannot reach http://api: Connection refused"}


def test_status_for_programs(run: Run, api: Api, capsys: Out) -> None:
    api.answers["GET", PATH] = report()
    assert run("status", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == report() | {
        "serving": True,
        "server": "http://api",
    }


def test_version_of_both_sides(run: Run, api: Api, capsys: Out) -> None:
    api.answers["GET", PATH] = report()
    assert run("version") == 0
    assert capsys.readouterr().out == f"client {__version__}\nserver 9.9\n"


def test_version_when_the_daemon_cannot_be_asked(run: Run, api: Api, capsys: Out) -> None:
    api.answers["GET", PATH] = Unavailable("gone")
    assert run("version") == 0
    assert capsys.readouterr() == (f"client {__version__}\n", "the daemon cannot be asked: gone\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["st"], ["status", "start", "stop"]),
        (["get", "po"], ["pods"]),
        (["get", "pods", ""], ["web", "worker"]),
        (["get", "pods", "wo"], ["worker"]),
        (["describe", "pods/we"], ["pods/web"]),
        (["logs", ""], ["web", "worker"]),
        (["logs", "-n", "other", ""], []),
        (["console", ""], ["db"]),
        (["get", "-o", "y"], ["yaml"]),
        (["get", "--all"], ["--all-namespaces"]),
        (["apply", "-f", ""], [":files"]),
        (["completion", "f"], ["fish"]),
        (["nonsense", ""], []),
        (["apply", ""], []),
    ],
)
def test_completion_offers_what_may_stand_there(
    run: Run, api: Api, words: list[str], found: list[str], capsys: Out
) -> None:
    api.add("pod", "web")
    api.add("pod", "worker")
    api.add("vm", "db")
    assert run("__complete", "--", *words) == 0
    assert capsys.readouterr().out.split() == found


def test_completion_is_silent_without_a_daemon(run: Run, api: Api, capsys: Out) -> None:
    api.answers["GET", "/api/v1/namespaces/default/pods"] = Unavailable("gone")
    assert run("__complete", "--", "get", "pods", "") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", sorted(completion._SCRIPTS))
def test_a_script_for_each_shell(run: Run, shell: str, capsys: Out) -> None:
    assert run("completion", shell) == 0
    assert "tandem __complete --" in capsys.readouterr().out
