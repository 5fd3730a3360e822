"""The reading half of the adapter: which sandboxes are ours, and how they are.

The runtime's own list is the truth. What is kept here, the sandbox's id for each of our own, only
saves looking it up again; it is dropped when the runtime does not know it any more.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tandem.errors import NotFound
from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER, RuntimeStatus
from tandem.runtimes.cri import messages
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.aio import together
from tandem.runtimes.cri.client import (
    CONTAINER_STATUS,
    LIST_CONTAINERS,
    LIST_SANDBOXES,
    SANDBOX_STATUS,
    CriClient,
)
from tandem.runtimes.cri.container import ANNOTATION_MESSAGE_PATH
from tandem.runtimes.cri.status import Sighting, newest, pod_status, stranger_status

_SETTLE_INTERVAL, _SETTLE_LOOKS = 0.01, 200  # seconds; some 40 ms as a rule
_CONCURRENT_READS = 16  # each is about a millisecond of the runtime's time


class Pods:
    """The Pods of ``owner`` in one runtime."""

    def __init__(self, client: CriClient, owner: str, sightings: Mapping[str, Sighting]) -> None:
        self._client = client
        self._owner = owner
        self._sightings = sightings
        self._sandboxes: dict[str, str] = {}
        self._reading = asyncio.Semaphore(_CONCURRENT_READS)

    def remember(self, id: str, sandbox: str) -> None:
        """The sandbox that was made for ``id``."""
        self._sandboxes[id] = sandbox

    def forget(self, id: str) -> None:
        """There is none any more."""
        self._sandboxes.pop(id, None)

    async def find(self, id: str) -> Sequence[str]:
        """The sandboxes of ``id`` as the runtime lists them: none, one, or, where something went
        wrong, more; the newest first."""
        selector = {LABEL_ID: id, LABEL_OWNER: self._owner}
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=selector))
        response = await self._client.call(LIST_SANDBOXES, request)
        found = sorted(response.items, key=lambda item: item.created_at, reverse=True)
        if found:
            self._sandboxes[id] = found[0].id
        else:
            self._sandboxes.pop(id, None)
        return [item.id for item in found]

    async def sandbox(self, id: str) -> cri.PodSandboxStatus:
        """The sandbox of ``id``, as the runtime has it now. Raises ``NotFound``."""
        if known := self._sandboxes.get(id):
            try:
                return await self.read_sandbox(known)
            except NotFound:
                self._sandboxes.pop(id, None)
        for sandbox in await self.find(id):
            return await self.read_sandbox(sandbox)
        raise NotFound(f"there is no Pod {id!r} in the container runtime")

    async def containers(self, sandbox: str) -> Sequence[cri.Container]:
        """All containers in a sandbox, every attempt of them."""
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=sandbox))
        return list((await self._client.call(LIST_CONTAINERS, request)).containers)

    async def status(self, id: str) -> RuntimeStatus:
        """The status of the Pod ``id``. Raises ``NotFound``."""
        if known := self._sandboxes.get(id):
            try:
                sandbox, containers = await asyncio.gather(
                    self.read_sandbox(known), self.containers(known)
                )
            except NotFound:
                self._sandboxes.pop(id, None)
            else:
                return await self._status(sandbox, containers)
        sandbox = await self.sandbox(id)
        return await self._status(sandbox, await self.containers(sandbox.id))

    async def status_of(
        self, sandbox: cri.PodSandboxStatus, containers: Sequence[str]
    ) -> RuntimeStatus:
        """The status of a Pod of which it is known what it consists of: its sandbox, as it is, and
        the newest attempts of its containers, by the runtime's ids."""
        found = await together(self._whole(id) for id in containers)
        present = [status for status in found if status is not None]
        return pod_status(sandbox, present, self._sightings)

    async def _whole(self, id: str) -> cri.ContainerStatus | None:
        """One container, with its last words when it has ended."""
        status = await self.container(id)
        sighting = self._sightings.get(id)
        seen = sighting.exit_code if sighting else None
        if status is None or (status.state != cri.CONTAINER_EXITED and seen is None):
            return status
        if ANNOTATION_MESSAGE_PATH not in status.annotations:
            return status
        words = await asyncio.to_thread(messages.left_message, status)
        code = status.exit_code if status.state == cri.CONTAINER_EXITED else seen
        if not words and code and status.started_at and messages.wants_log(status):
            # The runtime calls it ended once all that it said is in the log.
            status = await self._settled(status)
            words = await asyncio.to_thread(messages.log_message, Path(status.log_path))
        status.message = ": ".join(part for part in (status.message, words) if part)
        return status

    async def _settled(self, status: cri.ContainerStatus) -> cri.ContainerStatus:
        for _ in range(_SETTLE_LOOKS):
            if status.state == cri.CONTAINER_EXITED:
                break
            await asyncio.sleep(_SETTLE_INTERVAL)
            status = await self.container(status.id) or status
        return status

    def sighting(self, container: str) -> Sighting | None:
        """What an event said of a container that CRI's status may not say yet."""
        return self._sightings.get(container)

    async def list(self, *, strangers: bool) -> Sequence[RuntimeStatus]:
        """All of this owner's, or everybody else's."""
        label = {} if strangers else {LABEL_OWNER: self._owner}
        sandboxes, listed = await asyncio.gather(
            self._client.call(
                LIST_SANDBOXES,
                cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=label)),
            ),
            self._client.call(
                LIST_CONTAINERS,
                cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=label)),
            ),
        )
        by_sandbox = defaultdict(list)
        for container in listed.containers:
            by_sandbox[container.pod_sandbox_id].append(container)
        wanted = [item for item in sandboxes.items if self._ours(item) is not strangers]
        found = await together(
            self._listed(item.id, by_sandbox[item.id], strangers=strangers) for item in wanted
        )
        return [status for status in found if status is not None]

    def _ours(self, sandbox: cri.PodSandbox) -> bool:
        return sandbox.labels.get(LABEL_OWNER) == self._owner and LABEL_ID in sandbox.labels

    async def _listed(
        self, id: str, containers: Sequence[cri.Container], *, strangers: bool
    ) -> RuntimeStatus | None:
        try:
            status = await self._status(await self.read_sandbox(id), containers)
        except NotFound:  # removed since it was listed
            return None
        if strangers:
            return stranger_status(status, id)
        self._sandboxes[status.spec_id] = id
        return status

    async def read_sandbox(self, sandbox: str) -> cri.PodSandboxStatus:
        """One sandbox by the runtime's id. Raises ``NotFound``."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
        async with self._reading:
            return (await self._client.call(SANDBOX_STATUS, request)).status

    async def _status(
        self, sandbox: cri.PodSandboxStatus, containers: Sequence[cri.Container]
    ) -> RuntimeStatus:
        return await self.status_of(sandbox, [item.id for item in newest(containers)])

    async def container(self, id: str) -> cri.ContainerStatus | None:
        """One container by the runtime's id, as CRI has it; None when it is gone."""
        request = cri.ContainerStatusRequest(container_id=id)
        async with self._reading:
            try:
                return (await self._client.call(CONTAINER_STATUS, request)).status
            except NotFound:  # removed since it was listed
                return None
