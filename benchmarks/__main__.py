"""Run every benchmark and print one table: ``scripts/bench``."""

from __future__ import annotations

import asyncio
import sys
from datetime import date

from benchmarks import footprint, idle, machines, peer, pods, startup
from benchmarks.daemon import served
from benchmarks.figures import Row, machine, markdown
from tests import world


async def _all(endpoint: str, uri: str) -> list[Row]:
    rows = _shown(await startup.rows())
    rows += _shown(await idle.rows(world.BUSYBOX))
    async with served() as running:
        rows += _shown(await footprint.rows(running, world.BUSYBOX))
        rows += _shown(await pods.rows(running, endpoint, world.BUSYBOX))
        rows += _shown(await peer.rows(running, world.BUSYBOX))
        rows += _shown(await machines.rows(running, uri, world.MACHINE))
    return rows


def _shown(rows: list[Row]) -> list[Row]:
    """The rows, once they have been shown to whoever waits."""
    for row in rows:
        print(row.what, row.ours, row.reference, row.ratio, sep="  ", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    table = markdown(asyncio.run(_all(world.containerd(), world.libvirt())))
    print(f"Measured {date.today().isoformat()} on {machine()}.\n\n{table}")
