"""Logs of real containers by real kubectls: whole whatever is rotated, and bounded on disk."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import world
from tests.daemon import Daemon
from tests.e2e.test_pods import Client, container, pod

pytestmark = [pytest.mark.containerd, pytest.mark.slow]

LINE = 100  # bytes of each numbered line, its end included
AWK = "awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf \"%099d\\n\", i }}'"


def numbered(path: Path) -> int:
    """How many lines the file has, which are 1, 2, 3 and so on; fails at the first that is not."""
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            assert line == b"%099d\n" % number
    return number


def fill(file: Path) -> None:
    """Take all that is left of the file system."""
    with file.open("wb", buffering=0) as hog, contextlib.suppress(OSError):
        while True:
            hog.write(bytes(4096))


class Logs(Client):
    """kubectl whose output is too long to be held in memory."""

    def is_empty(self) -> bool:
        """Whether there is no Pod any more."""
        return not self("get", "pods", "-o", "name")

    def into(self, file: Path, *words: str) -> Path:
        """The output of kubectl, which must succeed, as a file."""
        command = [
            str(self.binary or world.kubectl(world.KUBECTL_VERSIONS[0])),
            f"--kubeconfig={self.daemon.kubeconfig}",
            f"--cache-dir={self.daemon.folder / 'kubectl-cache'}",
            f"--namespace={self.namespace}",
            *words,
        ]
        with file.open("wb") as out:
            subprocess.run(command, stdout=out, check=True, timeout=300)
        return file


@pytest.fixture
def make(make_daemon: Callable[..., Daemon]) -> Iterator[Callable[..., Logs]]:
    """Starts a daemon with limits on the logs; its Pods are gone in the end."""
    made: list[Logs] = []

    def start(size: str, files: int, **settings: str) -> Logs:
        limits = {"container_log_max_size": size, "container_log_max_files": str(files)}
        made.append(Logs(make_daemon(**limits, **settings), "default"))
        return made[-1]

    yield start
    for k in made:
        k("delete", "pods", "--all", "--grace-period=0", "--force")
        k.daemon.eventually(k.is_empty)


def test_a_hundred_megabytes_arrive_whole_while_they_are_rotated(
    make: Callable[..., Logs], tmp_path: Path
) -> None:
    k = make("4Mi", 50)
    lines = 1_000_000
    script = f"{AWK.format(lines=lines)}; echo end; exec sleep 600"
    k("apply", "-f", "-", stdin=pod("flood", container("main", script), restartPolicy="Never"))
    k.daemon.eventually(lambda: k("logs", "flood", "--tail=1", check=False).strip().isdigit())

    def follow(number: int) -> Path:
        reader = Logs(k.daemon, "default", world.kubectl(world.KUBECTL_VERSIONS[number % 2]))
        words = ("logs", "-f", "flood", f"--limit-bytes={lines * LINE}")
        return reader.into(tmp_path / f"followed-{number}", *words)

    with ThreadPoolExecutor(2) as readers:
        for file in readers.map(follow, range(2)):
            assert numbered(file) == lines
            file.unlink()
    k.daemon.eventually(lambda: k("logs", "flood", "--tail=1") == "end\n")
    folder = next((Path(k.daemon.settings["log_dir"]) / "pods").glob("default_flood_*/main"))
    assert len(list(folder.iterdir())) > 20

    # The parts are one log for every other question, too.
    whole = k.into(tmp_path / "whole", "logs", "flood", f"--limit-bytes={lines * LINE}")
    assert numbered(whole) == lines
    whole.unlink()
    tail = k("logs", "flood", "--tail=100001").splitlines()
    assert tail[:-1] == [f"{number:099d}" for number in range(lines - 99_999, lines + 1)]
    stamped = k("logs", "flood", "--timestamps", "--tail=2").splitlines()[0]
    moment, _, text = stamped.partition(" ")
    assert text == f"{lines:099d}"
    assert k("logs", "flood", f"--since-time={moment}").endswith(f"{lines:099d}\nend\n")
    assert k("logs", "flood", "--since=1h", "--limit-bytes=100") == f"{1:099d}\n"


def test_a_flood_is_bounded_and_ten_followers_are_served(
    make: Callable[..., Logs], tmp_path: Path
) -> None:
    k = make("1Mi", 3)
    flood = container("main", f"while :; do {AWK.format(lines=100_000)}; done")
    k("apply", "-f", "-", stdin=pod("flood", flood))
    few = container("main", f"sleep 3; {AWK.format(lines=5_000)}")
    k("apply", "-f", "-", stdin=pod("few", few, restartPolicy="Never"))
    k("wait", "--for=condition=Ready", "--timeout=60s", "pod/few", "pod/flood")

    def follow(number: int) -> int:
        return numbered(k.into(tmp_path / f"few-{number}", "logs", "-f", "few"))

    with ThreadPoolExecutor(10) as readers:
        assert set(readers.map(follow, range(10))) == {5_000}

    folder = next((Path(k.daemon.settings["log_dir"]) / "pods").glob("default_flood_*/main"))
    seen: set[str] = set()
    sizes: list[int] = []

    def rotated_often() -> bool:
        files = {}
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                files[path.name] = path.stat().st_size
        assert len(files) <= 4  # 3, and one whose name is just changing
        seen.update(files)
        sizes.append(sum(files.values()))
        return len(seen) > 20

    k.daemon.eventually(rotated_often)
    # What is written between two looks comes on top of the limit.
    assert sorted(sizes)[len(sizes) // 2] < 64 << 20
    # The last line may be half written at this moment.
    assert k("logs", "flood", "--tail=5").count("\n") in (4, 5)


def test_long_lines_are_joined_and_every_container_is_heard(make: Callable[..., Logs]) -> None:
    k = make("10Mi", 5)
    long = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo done"
    spec = {
        "initContainers": [container("before", "echo from before")],
        "restartPolicy": "OnFailure",
    }
    crash = "echo try; sleep 1; [ -e /tmp/again ] && exec sleep 600; exit 3"
    manifest = pod(
        "many", container("main", f"{long}; exec sleep 600"), container("other", crash), **spec
    ).replace('"name": "many"', '"name": "many", "labels": {"app": "many"}')
    k("apply", "-f", "-", stdin=manifest)

    def restarted() -> bool:
        statuses = {entry["name"]: entry for entry in k.status("many").get("containerStatuses", [])}
        return int(statuses.get("other", {}).get("restartCount", 0)) >= 1

    k.daemon.eventually(restarted)
    assert k("logs", "many", "-c", "main") == "x" * 100_000 + "\ndone\n"
    assert k("logs", "many", "-c", "before") == "from before\n"
    assert k("logs", "many", "-c", "other", "--previous") == "try\n"
    together = k("logs", "many", "--all-containers").splitlines()
    assert {"from before", "done", "try"} <= set(together)
    assert "done" in k("logs", "--selector=app=many", "--all-containers", "--prefix", "--tail=2")


def test_a_full_disk_costs_lines_and_nothing_else(make: Callable[..., Logs]) -> None:
    logs = Path("/run/full-disk-logs")
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "logs", str(logs)], check=True)
    try:
        k = make("64Ki", 4, log_dir=str(logs))
        script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"
        k("apply", "-f", "-", stdin=pod("talks", container("main", script)))
        k("wait", "--for=condition=Ready", "--timeout=60s", "pod/talks")
        hog = logs / "hog"
        fill(hog)
        k.daemon.eventually(
            lambda: k("logs", "talks", "--tail=1") == k("logs", "talks", "--tail=1")
        )
        assert k.phase("talks") == "Running"
        before = k("logs", "talks", "--tail=1")
        hog.unlink()
        k.daemon.eventually(lambda: k("logs", "talks", "--tail=1") != before)
        assert k.status("talks")["containerStatuses"][0]["restartCount"] == 0
    finally:
        # Whoever still has a file open in it keeps it until they let go.
        subprocess.run(["umount", "--lazy", str(logs)], check=True)
        logs.rmdir()
