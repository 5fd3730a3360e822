"""How long the daemon takes to serve, and the command line to answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from benchmarks.daemon import served
from benchmarks.figures import Row, in_turn, latency_row

_RUNS = 7
_LIBRARIES = "import asyncio, ssl, sqlite3, aiohttp.web, msgspec, grpc.aio, libvirt"


async def rows() -> list[Row]:
    """The daemon against an interpreter that only imports its libraries; the command line against a
    bare interpreter."""

    async def daemon(_number: int) -> float:
        async with served() as running:
            return running.start_ms

    async def run(*command: str) -> float:
        began = time.monotonic()
        await asyncio.to_thread(
            subprocess.run,
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return (time.monotonic() - began) * 1000

    async def libraries(_number: int) -> float:
        return await run(sys.executable, "-c", _LIBRARIES)

    async def version(_number: int) -> float:
        return await run(sys.executable, "-m", "tandem", "version", "--client")

    async def nothing(_number: int) -> float:
        return await run(sys.executable, "-c", "pass")

    start = await in_turn(_RUNS, daemon, libraries)
    command = await in_turn(_RUNS, version, nothing)
    return [
        latency_row("daemon: start to serving", start, "at most 500 ms"),
        latency_row("command line: start to end", command, "at most 100 ms"),
    ]
