"""A real ``tandem serve`` in places of its own, driven as a user would: by kubectl and by signals."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tandem.instance import NOTIFY_VARIABLE, ReadySocket
from tests import world

_READY_SECONDS = 30.0
_COMMAND_SECONDS = 120.0


class Daemon:
    """One daemon and its folder. ``settings`` are flags of ``tandem serve``, by setting name.

    Its owner is a name of its own, so that several can share the runtimes without meeting, and its
    folder can be entered by the user that QEMU runs as, which pytest's own folders cannot.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="daemon-"))
        self.folder.chmod(0o755)
        self.kubeconfig = self.folder / "kubeconfig"
        self.log = self.folder / "daemon.log"
        self.owner = f"test-{secrets.token_hex(4)}"
        self.settings = {
            "data_dir": str(self.folder / "data"),
            "run_dir": str(self.folder / "run"),
            "log_dir": str(self.folder / "log"),
            "config_dir": str(self.folder / "etc"),
            "kubeconfig": str(self.kubeconfig),
            "listen_port": "0",
            "owner": self.owner,
        } | settings
        self._process: subprocess.Popen[bytes] | None = None

    # Life ---------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it serves."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        with open(self.log, "ab") as log, ReadySocket() as ready:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tandem", "serve", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {NOTIFY_VARIABLE: ready.address},
            )
            deadline = time.monotonic() + _READY_SECONDS
            while not ready.wait(0.05):
                assert self._process.poll() is None, f"it ended:\n{self.tail()}"
                assert time.monotonic() < deadline, f"it does not serve:\n{self.tail()}"

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; returns its exit code. Idempotent."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            code = self._process.wait(_READY_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
        return code

    def close(self) -> None:
        """End it and remove its folder."""
        try:
            self.end()
        finally:
            shutil.rmtree(self.folder)

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-lines:])

    # Use ----------------------------------------------------------------------------------------

    def kubectl(
        self, *words: str, binary: Path | None = None, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl (the current one unless told) against it; with ``check`` it must succeed."""
        done = subprocess.run(
            [
                binary or world.kubectl(world.KUBECTL_VERSIONS[0]),
                f"--kubeconfig={self.kubeconfig}",
                f"--cache-dir={self.folder / 'kubectl-cache'}",
                *words,
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"kubectl {' '.join(words)} ended with status {done.returncode}:\n"
                f"{done.stdout}{done.stderr}\ndaemon:\n{self.tail()}"
            )
        return done

    def get(self, *words: str) -> Any:
        """``kubectl get WORDS -o json``, parsed."""
        return json.loads(self.kubectl("get", *words, "-o", "json").stdout)

    def tandem(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line against it."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tandem", *words, f"--kubeconfig={self.kubeconfig}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{done.stdout}{done.stderr}\n{self.tail()}"
        return done

    def eventually(self, look: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        """The first true value of ``look``; fails with the log's end when there is none in time."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not come true in {seconds:g} s:\n{self.tail()}")
            time.sleep(0.05)
        return found
