"""Images: present or pulled, each at most once at a time.

All who want the same image with the same credentials share one pull. A pull that nobody waits for any
more is cancelled; the runtime keeps what it has of it and goes on from there the next time.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tandem.errors import DeadlineExceeded, ImagePullError, TandemError, Unavailable
from tandem.runtimes.capabilities import PulledImage, RegistryCredentials
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import IMAGE_STATUS, PULL_IMAGE, CriClient
from tandem.runtimes.cri.progress import until_stalled
from tandem.runtimes.references import is_reference

_CONCURRENT_PULLS = 4  # containerd fetches three layers of each at a time

_KNOWN_SECONDS = 5.0
"""For how long an image is taken to be as it was just seen: from a pull to the start of what needed
it. Not longer, because others (``ctr images import``) may give its name to another one."""

_ANOTHER_MAY = re.compile(
    r"\b401\b|\b403\b|\b404\b|unauthori[sz]ed|authorization|authentication|denied|forbidden"
    r"|insufficient_scope|not found",
    re.IGNORECASE,
)
"""What registries answer to those whom they do not let see an image; other credentials may help."""

_Key = tuple[str, tuple[RegistryCredentials, ...]]


@dataclass(slots=True)
class _Pull:
    task: asyncio.Task[cri.Image]
    waiters: int = 0


class Images:
    """The images of one runtime. ``pull_timeout`` (seconds) bounds each pull; ``stall_timeout``, how
    long its registry may send nothing."""

    def __init__(
        self, client: CriClient, *, pull_timeout: float, stall_timeout: float = 60.0
    ) -> None:
        self._client = client
        self._pull_timeout = pull_timeout
        self._stall_timeout = stall_timeout
        self._pulls: dict[_Key, _Pull] = {}
        self._slots = asyncio.Semaphore(_CONCURRENT_PULLS)
        self._seen: dict[str, tuple[float, cri.Image]] = {}

    async def ensure(
        self,
        reference: str,
        pull_policy: str,
        credentials: Sequence[RegistryCredentials] = (),
    ) -> cri.Image:
        """The image ``reference``, pulled as ``pull_policy`` (Always, IfNotPresent, Never) says.

        Raises ``ImagePullError`` with the registry's words.
        """
        if not is_reference(reference):
            raise _failure(
                reference,
                f"couldn't parse image name {reference!r}: invalid reference format",
                reason="InvalidImageName",
            )
        if pull_policy != "Always" and (image := await self._find(reference)):
            return image
        if pull_policy == "Never":
            raise _failure(
                reference,
                "it is not present on this host, and its pull policy is Never",
                reason="ErrImageNeverPull",
            )
        return await self._pull((reference, tuple(credentials)))

    async def pull(
        self, reference: str, pull_policy: str, credentials: Sequence[RegistryCredentials]
    ) -> PulledImage:
        """See :class:`tandem.runtimes.capabilities.Images`."""
        started = time.monotonic()
        present = None
        if pull_policy == "IfNotPresent" and is_reference(reference):
            present = await self._find(reference)
        image = present or await self.ensure(reference, pull_policy, credentials)
        pulled = present is None and pull_policy != "Never"
        seconds = time.monotonic() - started if pulled else 0.0
        return PulledImage(image.id, pulled, seconds, image.size)

    async def _find(self, reference: str) -> cri.Image | None:
        when, image = self._seen.get(reference, (0.0, None))
        if image is not None and time.monotonic() - when < _KNOWN_SECONDS:
            return image
        return await self._look(reference)

    async def _look(self, reference: str) -> cri.Image | None:
        self._seen.pop(reference, None)
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference))
        response = await self._client.call(IMAGE_STATUS, request)
        if not response.HasField("image"):
            return None
        now = time.monotonic()
        self._seen = {
            name: known for name, known in self._seen.items() if now - known[0] < _KNOWN_SECONDS
        }
        self._seen[reference] = (now, response.image)
        return response.image

    async def _pull(self, key: _Key) -> cri.Image:
        pull = self._pulls.get(key)
        if pull is None:
            task = asyncio.create_task(self._pull_once(key), name=f"pull {key[0]}")
            pull = self._pulls[key] = _Pull(task)
        pull.waiters += 1
        try:
            return await asyncio.shield(pull.task)
        finally:
            pull.waiters -= 1
            if not pull.waiters:
                pull.task.cancel()
                if self._pulls.get(key) is pull:
                    del self._pulls[key]

    async def _pull_once(self, key: _Key) -> cri.Image:
        reference, credentials = key
        async with self._slots:
            await self._ask(reference, credentials)
            if image := await self._look(reference):
                return image
        raise _failure(reference, "it was removed as soon as it was pulled")

    async def _ask(self, reference: str, credentials: Sequence[RegistryCredentials]) -> None:
        """Pull with one of ``credentials`` after the other, and at last with none."""
        first: ImagePullError | None = None
        for identity in (*credentials, None):
            request = cri.PullImageRequest(image=cri.ImageSpec(image=reference))
            if identity is not None:
                request.auth.CopyFrom(
                    cri.AuthConfig(
                        username=identity.username,
                        password=identity.password,
                        identity_token=identity.identity_token,
                        registry_token=identity.registry_token,
                    )
                )
            try:
                return await self._call(request)
            except (Unavailable, ImagePullError):
                raise
            except DeadlineExceeded as error:
                why = f"the registry did not deliver it within {self._pull_timeout:g} s"
                raise _failure(reference, why) from error
            except TandemError as error:
                words = _registry_words(error.message, reference)
                failure = _failure(reference, words)
                failure.__cause__ = error
                # What the first was told is what its owner wants to know.
                first = first or failure
                if not _ANOTHER_MAY.search(words):
                    break
        assert first is not None, "every way out of the loop but success has failed"
        raise first

    async def _call(self, request: cri.PullImageRequest) -> None:
        call = asyncio.ensure_future(
            self._client.call(PULL_IMAGE, request, timeout=self._pull_timeout)
        )
        stalled = asyncio.ensure_future(until_stalled(self._client, self._stall_timeout))
        try:
            await asyncio.wait([call, stalled], return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                why = f"the registry has sent nothing for {self._stall_timeout:g} s"
                raise _failure(request.image.image, why)
            call.result()
        finally:
            call.cancel()
            stalled.cancel()
            await asyncio.gather(call, stalled, return_exceptions=True)


def _failure(reference: str, why: str, *, reason: str = "ErrImagePull") -> ImagePullError:
    return ImagePullError(
        f"cannot pull image {reference!r}: {why}",
        details={"image": reference, "reason": reason},
        hint="check the image's name and tag, that its registry can be reached, and, where a mirror "
        "is asked first, whether the mirror has it",
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
