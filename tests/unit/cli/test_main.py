"""How every command begins and ends, whatever it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tandem import __version__
from tandem.cli.main import VERBS, parser_of
from tandem.errors import Conflict
from tests.unit.cli.conftest import Api, Run


def test_help_names_every_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    words = capsys.readouterr().out.split()
    assert [verb for verb in VERBS if verb not in words] == []


def test_without_a_command_the_help_is_an_error(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 2
    assert "usage: tandem COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_command_explains_itself(
    run: Run, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb, "--help") == 0
    assert f"usage: tandem {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_flag_is_explained(verb: str) -> None:
    unexplained = [
        a.option_strings for a in parser_of(verb)._actions if a.option_strings and not a.help
    ]
    assert unexplained == []


def test_an_unknown_command_is_wrong_usage_with_the_nearest(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("staus") == 2
    assert (
        capsys.readouterr().err == "error: unknown command 'staus'\nhint: did you mean 'status'?\n"
    )


def test_an_unknown_flag_is_wrong_usage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("get", "pods", "--nope") == 2
    assert (
        capsys.readouterr().err
        == "error: unrecognized arguments: --nope\nhint: tandem get --help\n"
    )


def test_an_abbreviated_flag_is_not_guessed(run: Run) -> None:
    assert run("get", "pods", "--all-name") == 2


def test_a_bad_setting_is_wrong_usage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", environ={"TANDEM_LISTEN_PORT": "x"}) == 2
    assert (
        "TANDEM_LISTEN_PORT: listen_port is 'x': must be a whole number" in capsys.readouterr().err
    )


def test_an_error_is_one_line_and_its_hint_another(
    run: Run, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/api/v1/namespaces/default/pods"
    api.answers["GET", path] = Conflict("of two\n lines", hint="do this")
    assert run("get", "pods") == 1
    assert capsys.readouterr().err == "error: of two lines\nhint: do this\n"


def test_a_bug_is_one_line_too_unless_debugging(
    run: Run, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["GET", "/api/v1/namespaces/default/pods"] = {"rows": 5}
    assert run("get", "pods") == 1
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(TypeError):
        run("get", "pods", "--debug")
    with pytest.raises(TypeError):
        run("get", "pods", environ={"TANDEM_DEBUG": "1"})


def test_an_interruption_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tandem.cli.get.targets", interrupted)
    assert run("get", "pods") == 130


def test_a_missing_kubeconfig_says_how_to_get_one(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("get", "pods", "--kubeconfig", str(tmp_path / "none")) == 1
    assert "hint: start the daemon first: tandem up" in capsys.readouterr().err


def test_version_without_a_daemon(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"client {__version__}\n"


def test_the_kubeconfig_is_printed_as_it_is(
    run: Run, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("kubeconfig") == 0
    assert capsys.readouterr().out == kubeconfig.read_text()


def test_a_closed_pipe_is_silent() -> None:
    script = f"{sys.executable} -m tandem get --help | true; echo ${{PIPESTATUS[0]}}"
    # With a buffer, as users have it, nothing is written before the very end.
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=env
    )
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")


def test_the_quick_commands_import_nothing_heavy() -> None:
    heavy = "aiohttp asyncio grpc libvirt msgspec cryptography yaml subprocess importlib.metadata"
    code = (
        "import sys; from tandem.cli.main import main; main(['status']); main(['--help']);"
        f"print([m for m in '{heavy}'.split() if m in sys.modules], file=sys.stderr)"
    )
    environ = {"TANDEM_KUBECONFIG": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]"
