"""Images: present or pulled, each at most once at a time.

Containers of many Pods that name one image share one pull. A pull that nobody waits for any more is
cancelled; the runtime keeps what it has of it and goes on from there the next time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tandem.errors import DeadlineExceeded, ImagePullError, TandemError, Unavailable
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import IMAGE_STATUS, PULL_IMAGE, CriClient

_CONCURRENT_PULLS = 4  # containerd fetches three layers of each at a time


@dataclass(slots=True)
class _Pull:
    task: asyncio.Task[cri.Image]
    waiters: int = 0


class Images:
    """The images of one runtime. ``pull_timeout`` (seconds) bounds each pull."""

    def __init__(self, client: CriClient, *, pull_timeout: float) -> None:
        self._client = client
        self._pull_timeout = pull_timeout
        self._pulls: dict[str, _Pull] = {}
        self._slots = asyncio.Semaphore(_CONCURRENT_PULLS)

    async def ensure(self, reference: str, pull_policy: str) -> cri.Image:
        """The image ``reference``, pulled as ``pull_policy`` (Always, IfNotPresent, Never) says.

        Raises ``ImagePullError`` with the registry's words.
        """
        if pull_policy != "Always" and (image := await self._find(reference)):
            return image
        if pull_policy == "Never":
            raise _failure(reference, "it is not on this host, and its pull policy is Never")
        return await self._pull(reference)

    async def _find(self, reference: str) -> cri.Image | None:
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference))
        response = await self._client.call(IMAGE_STATUS, request)
        return response.image if response.HasField("image") else None

    async def _pull(self, reference: str) -> cri.Image:
        pull = self._pulls.get(reference)
        if pull is None:
            task = asyncio.create_task(self._pull_once(reference), name=f"pull {reference}")
            pull = self._pulls[reference] = _Pull(task)
        pull.waiters += 1
        try:
            return await asyncio.shield(pull.task)
        finally:
            pull.waiters -= 1
            if not pull.waiters:
                pull.task.cancel()
                self._pulls.pop(reference, None)

    async def _pull_once(self, reference: str) -> cri.Image:
        async with self._slots:
            request = cri.PullImageRequest(image=cri.ImageSpec(image=reference))
            try:
                await self._client.call(PULL_IMAGE, request, timeout=self._pull_timeout)
            except (Unavailable, DeadlineExceeded):
                raise
            except TandemError as error:
                raise _failure(reference, _registry_words(error.message, reference)) from error
            if image := await self._find(reference):
                return image
        raise _failure(reference, "it was removed as soon as it was pulled")


def _failure(reference: str, why: str) -> ImagePullError:
    return ImagePullError(
        f"cannot pull image {reference!r}: {why}",
        details={"image": reference},
        hint="check the image's name and tag, and that its registry can be reached",
    )


def _registry_words(message: str, reference: str) -> str:
    """The end of the runtime's account; its beginning repeats the image's name once per layer."""
    words = message.removeprefix("PullImage: ")
    for opening in (
        "rpc error: code = NotFound desc = ",
        "rpc error: code = Unknown desc = ",
        f'failed to pull and unpack image "{reference}": ',
        f'failed to resolve reference "{reference}": ',
    ):
        words = words.removeprefix(opening)
    return words
