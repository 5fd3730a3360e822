"""A daemon of its own for a benchmark, as ``tandem serve`` starts it, and what it weighs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tandem.client import AsyncClient, load
from tandem.instance import NOTIFY_VARIABLE, ReadySocket

_READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running daemon: its process, a client of it, and how long it took to serve."""

    process: subprocess.Popen[bytes]
    api: AsyncClient
    start_ms: float
    folder: Path

    def memory_kib(self) -> int:
        """Its resident memory (``VmRSS``), in KiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError("the daemon has gone")

    def processor_seconds(self) -> float:
        """The processor time it has used so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    """Run a daemon on the real runtimes until the block ends. Its workloads must be gone by then."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir="/var/lib/tandem") as name,
        ReadySocket() as ready,
    ):
        folder = Path(name)
        began = time.monotonic()
        process = await asyncio.to_thread(_start, folder, ready.address)
        try:
            if not await asyncio.to_thread(ready.wait, _READY_SECONDS):
                raise RuntimeError((folder / "daemon.log").read_text())
            start_ms = (time.monotonic() - began) * 1000
            async with AsyncClient(load(folder / "kubeconfig")) as api:
                yield Served(process, api, start_ms, folder)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 10)


def _start(folder: Path, ready: str) -> subprocess.Popen[bytes]:
    folder.chmod(0o711)  # QEMU's user goes through it
    settings = {
        "TANDEM_DATA_DIR": str(folder / "data"),
        "TANDEM_LOG_DIR": str(folder / "log"),
        "TANDEM_RUN_DIR": str(folder / "run"),
        "TANDEM_KUBECONFIG": str(folder / "kubeconfig"),
        "TANDEM_LISTEN_PORT": "0",
        "TANDEM_OWNER": "bench",
        NOTIFY_VARIABLE: ready,
    }
    with (folder / "daemon.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tandem", "serve"],
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
        )
