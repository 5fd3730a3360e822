"""exec, attach, cp, port-forward and run -it against real containers, by each kubectl.

kubectl 1.32 speaks WebSocket and, for ports, SPDY in it; 1.20 speaks SPDY/3.1.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import world
from tests.daemon import Daemon
from tests.e2e.test_pods import container, pod
from tests.terminal import Terminal

pytestmark = [pytest.mark.containerd, pytest.mark.slow]

MEGABYTE = 1 << 20
SECONDS = 120.0

# On 8080 a web server; on 9000 somebody who says the checksum of all there is, once that has ended.
SERVERS = "httpd -p 8080 -h /www; nc -ll -p 9000 -e sha256sum & "
LINES = 'while read -r line; do echo "got $line"; done; echo the end; exec sleep 600'


@dataclass
class Streams:
    """A kubectl and the Pod ``web``, whose container reads lines and serves ports."""

    daemon: Daemon
    namespace: str
    binary: Path

    def command(self, *words: str) -> list[str | Path]:
        return [
            self.binary,
            f"--kubeconfig={self.daemon.kubeconfig}",
            f"--cache-dir={self.daemon.folder / 'kubectl-cache'}",
            f"--namespace={self.namespace}",
            *words,
        ]

    def run(self, *words: str, stdin: bytes = b"", code: int = 0) -> tuple[bytes, str]:
        """What a kubectl that ends with ``code`` printed, and its complaints."""
        done = subprocess.run(
            self.command(*words), input=stdin, capture_output=True, timeout=SECONDS, check=False
        )
        complaint = done.stderr.decode()
        assert done.returncode == code, f"{words}: {complaint}{self.daemon.tail()}"
        return done.stdout, complaint

    def exec(self, *words: str, stdin: bytes | None = None, code: int = 0) -> tuple[bytes, str]:
        flags = () if stdin is None else ("-i",)
        return self.run("exec", *flags, "web", "--", *words, stdin=stdin or b"", code=code)

    def create(self, **container_fields: object) -> None:
        manifest = pod("web", container("main", SERVERS + LINES, stdin=True, **container_fields))
        self.run("apply", "-f", "-", stdin=manifest.encode())
        self.run("wait", "--for=condition=Ready", "--timeout=60s", "pod/web")

    @contextmanager
    def forward(self, *ports: int) -> Iterator[tuple[subprocess.Popen[bytes], dict[int, int]]]:
        """A port-forward, and where each port is found."""
        words = self.command("port-forward", "pod/web", *(f":{port}" for port in ports))
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            found: dict[int, int] = {}
            try:
                while len(found) < len(ports):
                    line = process.stdout.readline().decode()
                    assert line, self.daemon.tail()
                    if match := re.search(r"127\.0\.0\.1:(\d+) -> (\d+)", line):
                        found[int(match[2])] = int(match[1])
                yield process, found
            finally:
                process.kill()


@pytest.fixture
def streams(daemon: Daemon, namespace: str, kubectl: Path) -> Streams:
    made = Streams(daemon, namespace, kubectl)
    made.create()
    return made


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def test_exec_carries_every_byte_and_the_exit_code(streams: Streams) -> None:
    out, complaint = streams.exec("sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert out == b"out\n"
    assert complaint == "err\ncommand terminated with exit code 3\n"
    _, complaint = streams.exec("no-such-program", code=1)
    assert "executable file not found in $PATH" in complaint
    assert streams.exec("true") == (b"", "")

    # The end of the input reaches the command, whatever the bytes are.
    data = os.urandom(100 * MEGABYTE)
    assert streams.exec("sha256sum", stdin=data)[0].split()[0] == digest(data)
    script = "head -c 104857600 /dev/urandom >/tmp/big; sha256sum </tmp/big"
    expected = streams.exec("sh", "-c", script)[0].split()[0]
    assert digest(streams.exec("cat", "/tmp/big")[0]) == expected

    small = data[: 5 * MEGABYTE]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: streams.exec("cat", stdin=small)[0], range(10)))
    assert all(answer == small for answer in answers)


def test_files_are_copied_both_ways(streams: Streams, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    (there / "deep").mkdir(parents=True)
    (there / "deep" / "file").write_bytes(os.urandom(3 * MEGABYTE + 7))
    (there / "empty").touch()
    (there / "nul\u00e9").write_bytes(bytes(range(256)))
    streams.run("cp", str(there), "web:/tmp/copied")
    streams.run("cp", "web:/tmp/copied", str(back))
    for path in there.rglob("*"):
        if path.is_file():
            assert (back / path.relative_to(there)).read_bytes() == path.read_bytes()


def test_attach_joins_the_process_and_its_input_ends_once(streams: Streams) -> None:
    with subprocess.Popen(
        streams.command("attach", "-i", "web"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        for line in (b"one\n", b"two\n"):
            first.stdin.write(line)
            first.stdin.flush()
            assert first.stdout.readline() == b"got " + line
        first.kill()  # leaves the process as it was: its input has not ended
    # What was said before is not said again.
    with subprocess.Popen(
        streams.command("attach", "-i", "web"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as second:
        assert second.stdin is not None
        assert second.stdout is not None
        second.stdin.write(b"three\n")
        second.stdin.flush()
        assert second.stdout.readline() == b"got three\n"
        second.kill()


def test_a_terminal_has_its_size_and_ctrl_c(streams: Streams) -> None:
    with Terminal(streams.command("exec", "-it", "web", "--", "sh")) as terminal:
        terminal.shows("#")
        terminal.type("stty size\r")
        terminal.shows("24 80")
        terminal.resize(120, 50)
        # The kernel tells the shell's terminal when the size has made its way.
        terminal.type("until [ \"$(stty size)\" = '50 120' ]; do sleep 0.1; done; echo so''so\r")
        terminal.shows("soso")
        terminal.type("echo rea''dy; sleep 600\r")
        terminal.shows("ready")
        terminal.type("\x03")
        terminal.type("exit 5\r")
        assert terminal.ends() in (1, 5)  # kubectl 1.20 tells it in words only


def test_run_with_a_terminal_leaves_nothing(daemon: Daemon, namespace: str, kubectl: Path) -> None:
    streams = Streams(daemon, namespace, kubectl)
    words = ("--restart=Never", f"--image={world.BUSYBOX}", "--", "sh")
    with Terminal(streams.command("run", "once", "-it", "--rm", *words)) as terminal:
        terminal.shows("try pressing enter")
        terminal.type("\recho hel''lo\r")
        terminal.shows("hello")
        terminal.type("exit\r")
        assert terminal.ends() == 0
    assert b'pod "once" deleted' in terminal.seen
    daemon.eventually(lambda: streams.run("get", "pods", "-o", "name") == (b"", ""))


def test_ports_carry_every_byte_and_the_end_of_each_way(streams: Streams) -> None:
    data = os.urandom(10 * MEGABYTE)

    def ask(port: int, question: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while more := connection.recv(65536):
                answer += more
            return answer

    streams.exec("sh", "-c", "until netstat -ltn | grep -q :9000; do sleep 0.1; done")
    with streams.forward(8080, 9000, 7) as (process, ports):
        assert b"hello from busybox" in ask(ports[8080], b"GET / HTTP/1.0\r\n\r\n")
        assert ask(ports[9000], data).split()[0] == digest(data)
        parts = [data[: number * 100_000] for number in range(1, 11)]
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda part: ask(ports[9000], part), parts))
        assert [answer.split()[0] for answer in answers] == [digest(part) for part in parts]
        with suppress(ConnectionError):
            assert ask(ports[7], b"") == b""
        assert process.stderr is not None
        said = b""
        while b"failed to connect to localhost:7 inside namespace" not in said:
            more = process.stderr.readline()
            assert more, said
            said += more
        assert b"connection refused" in said


def test_a_daemon_that_dies_ends_streams_and_no_process(
    make_daemon: Callable[..., Daemon], kubectls: dict[str, Path]
) -> None:
    daemon = make_daemon()
    streams = Streams(daemon, "default", kubectls["1.32"])
    streams.create()
    script = "echo begun; sleep 2; echo done >/tmp/done; sleep 600"
    words = streams.command("exec", "web", "--", "sh", "-c", script)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        began = time.monotonic()
        assert daemon.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10  # it did not wait for the stream
        assert process.wait(SECONDS) != 0
    daemon.start()
    daemon.eventually(lambda: streams.exec("sh", "-c", "cat /tmp/done || true")[0] == b"done\n")
    streams.run("delete", "pod", "web", "--grace-period=0", "--force")
