"""Taking away what nobody knows any more after containerd was killed in the middle of its work.

containerd removes most of that itself when it starts again. What it does not know of stays: a task
whose shim had not said where it listens, a network that was made before its Pod was recorded. Such a
thing has no record in containerd, and is older than the containerd that runs now; that is what tells
it from everything that belongs to somebody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import struct
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tandem.errors import NotFound, TandemError
from tandem.host import groups, netns, shims
from tandem.runtimes.cri._gen import containerd_containers_pb2 as containers
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import (
    CONTAINERD_NAMESPACE,
    GET_CONTAINER,
    LIST_CONTAINERS,
    LIST_SANDBOXES,
    SANDBOX_STATUS,
    STATUS,
    VERSION,
    CriClient,
)

_log = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{64}")

_PAUSE = 2.0
"""Seconds after which a removal, or a restart of containerd, is through with its own cleaning."""

_SHAKEN = 600.0
"""Seconds after which nothing is left of what a containerd was at when it was killed: what it had half
recorded is removed by then, and what hung on the record is nobody's from that moment on."""


class Sweeper:
    """Sweeps one containerd after it may have been started again."""

    def __init__(self, client: CriClient) -> None:
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._asked = False
        self._shaken_until = 0.0

    def connected(self) -> None:
        """The runtime is there, or there again: sweep a moment from now."""
        self._shaken_until = time.monotonic() + _SHAKEN
        self.removed()

    def removed(self) -> None:
        """Something was removed, and with it perhaps the last who knew of something else: sweep soon,
        if the runtime was away not long ago. Asking often costs one sweep."""
        if time.monotonic() > self._shaken_until:
            return
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="sweep of the container runtime")

    async def close(self) -> None:
        """Stop."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            await asyncio.sleep(_PAUSE)
            try:
                await self.sweep()
            except (TandemError, OSError) as error:
                _log.info("not swept: %s", error)
            except Exception:
                _log.exception("the sweep failed")

    async def sweep(self) -> None:
        """Take away what is nobody's."""
        version = await self._client.call(VERSION, cri.VersionRequest())
        if version.runtime_name != "containerd" or not self._client.endpoint.startswith("/"):
            return
        status = await self._client.call(STATUS, cri.StatusRequest(verbose=True))
        try:
            config: dict[str, Any] = json.loads(status.info["config"])
        except (KeyError, ValueError):
            return
        await self._sweep_tasks(config)
        began = await asyncio.to_thread(started_at, self._client.endpoint)
        await self._sweep_networks(config, began)

    async def _sweep_tasks(self, config: dict[str, Any]) -> None:
        state = Path(str(config.get("stateDir", ""))).parent
        bundles = state / "io.containerd.runtime.v2.task" / CONTAINERD_NAMESPACE
        there = await asyncio.to_thread(_names, bundles)
        named = await asyncio.to_thread(groups.names_in, CONTAINERD_NAMESPACE)
        there |= {name for name in named if _ID.fullmatch(name)}
        if not there or not (orphans := await self._unrecorded(there - await self._listed())):
            return
        await asyncio.sleep(_PAUSE)  # a record goes last; but who is sure may remove
        for id in await self._unrecorded(orphans):
            if (bundles / id).is_dir():
                _log.warning("removing a task that was left by a killed containerd: %s", id)
                await asyncio.to_thread(shims.remove_task, bundles / id, self._client.endpoint)
            else:
                # It may be another containerd's, which has the same names for its groups; but one
                # in which nothing runs is not missed.
                await asyncio.to_thread(groups.remove_empty, CONTAINERD_NAMESPACE, id)

    async def _listed(self) -> set[str]:
        """What has a record for sure."""
        sandboxes = await self._client.call(LIST_SANDBOXES, cri.ListPodSandboxRequest())
        listed = await self._client.call(LIST_CONTAINERS, cri.ListContainersRequest())
        return {item.id for item in sandboxes.items} | {item.id for item in listed.containers}

    async def _unrecorded(self, ids: Collection[str]) -> list[str]:
        found = []
        for id in ids:
            try:
                await self._client.call(GET_CONTAINER, containers.GetContainerRequest(id=id))
            except NotFound:
                found.append(id)
        return found

    async def _sweep_networks(self, config: dict[str, Any], began: float) -> None:
        cni = config.get("cni") or {}
        network = await asyncio.to_thread(_network, Path(str(cni.get("confDir", ""))))
        listed = await self._client.call(LIST_SANDBOXES, cri.ListPodSandboxRequest())
        known = {item.id for item in listed.items}
        if network:
            for item in await asyncio.to_thread(netns.old_attachments, network, known, began):
                _log.warning("giving back the address of a Pod that was never made: %s", item.id)
                with contextlib.suppress(TandemError):
                    await netns.detach(item, Path(str(cni.get("binDir", ""))))
        paths = await asyncio.to_thread(netns.old_namespaces, began)
        if paths:
            used = await self._namespaces(listed.items)
            for path in paths:
                if path.name not in used:
                    _log.warning("removing a network namespace that is nobody's: %s", path)
                    await asyncio.to_thread(netns.remove_namespace, path)

    async def _namespaces(self, sandboxes: Collection[cri.PodSandbox]) -> set[str]:
        """The names of those that belong to Pods."""
        found = set()
        for sandbox in sandboxes:
            request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox.id, verbose=True)
            try:
                status = await self._client.call(SANDBOX_STATUS, request)
            except NotFound:
                continue
            info = json.loads(status.info.get("info", "{}"))
            for item in ((info.get("runtimeSpec") or {}).get("linux") or {}).get(
                "namespaces"
            ) or ():
                found.add(Path(str(item.get("path", ""))).name)
        return found


def started_at(endpoint: str) -> float:
    """When the process that listens at a unix socket began, as a time of files. Blocking."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(endpoint)
        size = struct.calcsize("3i")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid = struct.unpack("3i", credentials)[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


def _network(folder: Path) -> dict[str, Any]:
    """The configuration list that containerd takes: the first one; empty when there is none."""
    try:
        for path in sorted(folder.glob("*.conflist")):
            document = json.loads(path.read_bytes())
            if isinstance(document, dict):
                return document
    except (OSError, ValueError):
        pass
    return {}


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
