"""Images are pulled when they must be, once at a time, and failures keep the registry's words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tandem.errors import DeadlineExceeded, ImagePullError, Unavailable
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import IMAGE_STATUS, PULL_IMAGE
from tandem.runtimes.cri.images import Images
from tests.unit.runtimes.cri.fake import FakeRuntime, Refusal, serving

REFERENCE = "registry.example/web:1"


class Registry(FakeRuntime):
    """Has every image; counts pulls, and holds them back until ``release`` is set."""

    def __init__(self, *present: str) -> None:
        super().__init__()
        self.present = set(present)
        self.pulls = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()
        self.answer(IMAGE_STATUS, self.status)
        self.answer(PULL_IMAGE, self.pull)

    async def status(self, request: Any) -> cri.ImageStatusResponse:
        if request.image.image in self.present:
            return cri.ImageStatusResponse(image=cri.Image(id="sha256:1"))
        return cri.ImageStatusResponse()

    async def pull(self, request: Any) -> cri.PullImageResponse:
        self.pulls += 1
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.present.add(request.image.image)
        return cri.PullImageResponse(image_ref="sha256:1")


@pytest.mark.parametrize(
    ("policy", "present", "pulls"),
    [
        ("IfNotPresent", True, 0),
        ("IfNotPresent", False, 1),
        ("Always", True, 1),
        ("Never", True, 0),
    ],
)
async def test_an_image_is_pulled_as_its_policy_says(
    tmp_path: Path, policy: str, present: bool, pulls: int
) -> None:
    registry = Registry(*([REFERENCE] if present else []))
    async with serving(registry, tmp_path / "s") as client:
        image = await Images(client, pull_timeout=5).ensure(REFERENCE, policy)
    assert image.id == "sha256:1"
    assert registry.pulls == pulls


async def test_an_absent_image_that_may_not_be_pulled_is_an_error(tmp_path: Path) -> None:
    async with serving(Registry(), tmp_path / "s") as client:
        with pytest.raises(ImagePullError, match="pull policy is Never") as caught:
            await Images(client, pull_timeout=5).ensure(REFERENCE, "Never")
    assert caught.value.details == {"image": REFERENCE}


async def test_those_who_want_the_same_image_share_one_pull(tmp_path: Path) -> None:
    registry = Registry()
    registry.release.clear()
    async with serving(registry, tmp_path / "s") as client:
        images = Images(client, pull_timeout=5)
        waiting = [asyncio.create_task(images.ensure(REFERENCE, "Always")) for _ in range(3)]
        await registry.started.wait()
        waiting[0].cancel()  # one who gives up does not take it from the others
        registry.release.set()
        await asyncio.gather(*waiting[1:])
        assert registry.pulls == 1
        await images.ensure(REFERENCE, "Always")
        assert registry.pulls == 2


async def test_a_pull_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    registry = Registry()
    registry.release.clear()
    async with serving(registry, tmp_path / "s") as client:
        waiting = asyncio.create_task(Images(client, pull_timeout=5).ensure(REFERENCE, "Always"))
        await registry.started.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(2):
            await registry.cancelled.wait()


async def test_a_failed_pull_says_what_the_registry_said(tmp_path: Path) -> None:
    registry = Registry()
    words = "pull access denied, repository does not exist or may require authorization"

    async def refuse(_: Any) -> Any:
        details = (
            f'rpc error: code = NotFound desc = failed to pull and unpack image "{REFERENCE}": '
            f'failed to resolve reference "{REFERENCE}": {words}'
        )
        raise Refusal(grpc.StatusCode.NOT_FOUND, details)

    registry.answer(PULL_IMAGE, refuse)
    async with serving(registry, tmp_path / "s") as client:
        with pytest.raises(ImagePullError) as caught:
            await Images(client, pull_timeout=5).ensure(REFERENCE, "Always")
    assert caught.value.message == f"cannot pull image '{REFERENCE}': {words}"
    assert caught.value.hint


async def test_a_runtime_that_is_away_is_no_fault_of_the_image(tmp_path: Path) -> None:
    registry = Registry()

    async def away(_: Any) -> Any:
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "stopping")

    registry.answer(PULL_IMAGE, away)
    async with serving(registry, tmp_path / "s") as client:
        with pytest.raises(Unavailable):
            await Images(client, pull_timeout=5).ensure(REFERENCE, "Always")


async def test_a_pull_has_a_time_limit_of_its_own(tmp_path: Path) -> None:
    registry = Registry()
    registry.release.clear()
    async with serving(registry, tmp_path / "s") as client:
        with pytest.raises(DeadlineExceeded):
            await Images(client, pull_timeout=0.05).ensure(REFERENCE, "Always")
