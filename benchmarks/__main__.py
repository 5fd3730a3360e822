"""Run every benchmark and print one table: ``scripts/bench``."""

from __future__ import annotations

import asyncio
from datetime import date

from benchmarks import footprint, machines, pods, startup
from benchmarks.daemon import served
from benchmarks.figures import Row, machine, markdown
from tests import world


async def _all() -> list[Row]:
    endpoint, uri = world.containerd(), world.libvirt()
    rows = await startup.rows()
    async with served() as running:
        rows += await footprint.rows(running, world.BUSYBOX)
        rows += await pods.rows(running, endpoint, world.BUSYBOX)
        rows += await machines.rows(running, uri, world.MACHINE)
    return rows


if __name__ == "__main__":
    table = markdown(asyncio.run(_all()))
    print(f"Measured {date.today().isoformat()} on {machine()}.\n\n{table}")
