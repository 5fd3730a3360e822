"""The real thing, as processes: up, status, down, and what signals do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tandem.instance import running_pid

pytestmark = pytest.mark.slow


class Command:
    """``tandem`` with places of its own and the in-memory runtime."""

    def __init__(self, folder: Path) -> None:
        self.lock = folder / "data" / "daemon.lock"
        self.environ = {
            "PATH": os.environ["PATH"],
            "TANDEM_DATA_DIR": str(folder / "data"),
            "TANDEM_RUN_DIR": str(folder / "run"),
            "TANDEM_LOG_DIR": str(folder / "log"),
            "TANDEM_CONFIG_DIR": str(folder / "etc"),
            "TANDEM_KUBECONFIG": str(folder / "kubeconfig"),
            "TANDEM_LISTEN_PORT": "0",
            "TANDEM_CONTAINER_RUNTIME": "memory",
            "TANDEM_VM_RUNTIME": "memory",
        }

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tandem", *words],
            env=self.environ, input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return running_pid(self.lock)


@pytest.fixture
def tandem(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    if pid := command.pid:
        os.kill(pid, signal.SIGKILL)


def test_up_then_a_workload_then_down_then_up_again(tandem: Command) -> None:
    up = tandem("up")
    assert (up.returncode, up.stderr) == (0, "Starting the daemon: done\n")
    assert f"export KUBECONFIG={tandem.environ['TANDEM_KUBECONFIG']}" in up.stdout
    first = tandem.pid
    assert os.getsid(first) == first, "it hangs on its starter's session"
    assert tandem("up").returncode == 0
    assert tandem.pid == first, "a second up started another daemon"

    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}
    pod["spec"] = {"containers": [{"name": "c", "image": "i", "command": ["sleep", "999"]}]}
    applied = tandem("apply", "-f", "-", stdin=json.dumps(pod))
    assert (applied.returncode, applied.stdout) == (0, "pod/web created\n")
    status = tandem("status", "-o", "json")
    assert status.returncode == 0
    assert sum(json.loads(status.stdout)["objects"]["pods"].values()) == 1

    down = tandem("down")
    assert (down.returncode, tandem.pid) == (0, 0)
    assert tandem("status").returncode == 1
    assert tandem("up").returncode == 0
    assert tandem("get", "pods", "-o", "name").stdout == "pod/web\n"


def test_several_ups_at_once_start_one_daemon(tandem: Command) -> None:
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: tandem("up"), range(3)))
    assert [up.returncode for up in done] == [0, 0, 0]
    assert sum("Starting the daemon: done" in up.stderr for up in done) == 1


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_two_seconds_with_a_watch_open(
    tandem: Command, sign: signal.Signals
) -> None:
    tandem("up")
    with subprocess.Popen(
        [sys.executable, "-m", "tandem", "get", "namespaces", "-w"],
        env=tandem.environ,
        stdout=subprocess.PIPE,
    ) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().startswith(b"NAME")
        began = time.monotonic()
        os.kill(tandem.pid, sign)
        while tandem.pid:
            assert time.monotonic() - began < 2.0
            time.sleep(0.01)
        watch.communicate()
    log = Path(tandem.environ["TANDEM_LOG_DIR"], "tandem.log").read_text()
    assert log.rstrip().endswith("stopped")
    assert "Traceback" not in log


def test_a_killed_daemon_leaves_nothing_that_keeps_the_next_from_starting(tandem: Command) -> None:
    tandem("up")
    os.kill(tandem.pid, signal.SIGKILL)
    again = tandem("up")
    assert again.returncode == 0, again.stderr
