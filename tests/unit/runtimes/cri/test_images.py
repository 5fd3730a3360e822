"""Images are pulled when they must be, once at a time, and failures keep the registry's words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tandem.errors import ImagePullError, Unavailable
from tandem.runtimes.capabilities import RegistryCredentials
from tandem.runtimes.cri._gen import containerd_content_pb2 as content
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import IMAGE_STATUS, LIST_INGESTS, PULL_IMAGE
from tandem.runtimes.cri.images import Images
from tandem.runtimes.references import is_reference
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
    assert caught.value.details == {"image": REFERENCE, "reason": "ErrImageNeverPull"}


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


async def test_a_registry_that_stalls_is_named_as_the_one_at_fault(tmp_path: Path) -> None:
    registry = Registry()
    registry.release.clear()
    async with serving(registry, tmp_path / "s") as client:
        with pytest.raises(ImagePullError, match="the registry did not deliver"):
            await Images(client, pull_timeout=0.05).ensure(REFERENCE, "Always")


@pytest.mark.parametrize("fetched", [None, 10], ids=["nothing begun", "begun and stopped"])
async def test_a_registry_that_sends_nothing_is_given_up(
    tmp_path: Path, fetched: int | None
) -> None:
    registry = Registry()
    registry.release.clear()

    async def ingests(_: Any) -> content.ListStatusesResponse:
        if fetched is None:
            return content.ListStatusesResponse()
        return content.ListStatusesResponse(statuses=[content.Status(ref="a", offset=fetched)])

    registry.answer(LIST_INGESTS, ingests)
    async with serving(registry, tmp_path / "s") as client:
        with pytest.raises(ImagePullError, match=r"has sent nothing for 0\.1 s"):
            await Images(client, pull_timeout=60, stall_timeout=0.1).ensure(REFERENCE, "Always")
        async with asyncio.timeout(5):
            await registry.cancelled.wait()


async def test_a_slow_registry_and_a_slow_disk_are_waited_for(tmp_path: Path) -> None:
    registry = Registry()
    registry.release.clear()
    looks = 0

    async def ingests(_: Any) -> content.ListStatusesResponse:
        nonlocal looks
        looks += 1
        if looks > 60:
            registry.release.set()
        if looks > 30:  # all is fetched, and is being unpacked
            return content.ListStatusesResponse()
        return content.ListStatusesResponse(statuses=[content.Status(ref="a", offset=looks)])

    registry.answer(LIST_INGESTS, ingests)
    async with serving(registry, tmp_path / "s") as client:
        await Images(client, pull_timeout=60, stall_timeout=0.24).ensure(REFERENCE, "Always")


async def test_a_name_that_cannot_be_one_is_not_asked_for(tmp_path: Path) -> None:
    async with serving(Registry(), tmp_path / "s") as client:
        with pytest.raises(ImagePullError, match="invalid reference format") as caught:
            await Images(client, pull_timeout=5).ensure("Not/A Name", "Always")
    assert caught.value.details["reason"] == "InvalidImageName"


async def test_credentials_are_tried_in_order_and_none_at_last(tmp_path: Path) -> None:
    registry = Registry()
    asked: list[str] = []

    async def guarded(request: Any) -> Any:
        asked.append(request.auth.username)
        if request.auth.username != "right":
            raise Refusal(grpc.StatusCode.UNKNOWN, f"{request.auth.username}: 401 Unauthorized")
        return await registry.pull(request)

    registry.answer(PULL_IMAGE, guarded)
    wrong, right = RegistryCredentials("wrong", "x"), RegistryCredentials("right", "y")
    async with serving(registry, tmp_path / "s") as client:
        images = Images(client, pull_timeout=5)
        pulled = await images.pull(REFERENCE, "Always", [wrong, right])
        assert (pulled.id, pulled.pulled) == ("sha256:1", True)
        assert asked == ["wrong", "right"]
        asked.clear()
        with pytest.raises(ImagePullError, match="wrong: 401"):  # not what nobody was told
            await images.pull(REFERENCE, "Always", [wrong])
        assert asked == ["wrong", ""]


async def test_pulls_with_other_credentials_are_other_pulls(tmp_path: Path) -> None:
    registry = Registry()
    registry.release.clear()
    async with serving(registry, tmp_path / "s") as client:
        images = Images(client, pull_timeout=5)
        mine, yours = [RegistryCredentials("me")], [RegistryCredentials("you")]
        pulls = [
            asyncio.create_task(images.pull(REFERENCE, "Always", credentials))
            for credentials in (mine, mine, yours)
        ]
        async with asyncio.timeout(5):
            while registry.pulls < 2:  # noqa: ASYNC110  (the registry tells the first only)
                await asyncio.sleep(0.01)
        registry.release.set()
        await asyncio.gather(*pulls)
    assert registry.pulls == 2


async def test_what_is_there_is_told_from_what_was_pulled(tmp_path: Path) -> None:
    async with serving(Registry(), tmp_path / "s") as client:
        images = Images(client, pull_timeout=5)
        assert (await images.pull(REFERENCE, "IfNotPresent", ())).pulled
        assert not (await images.pull(REFERENCE, "IfNotPresent", ())).pulled
        assert not (await images.pull(REFERENCE, "Never", ())).pulled


@pytest.mark.parametrize(
    "name",
    [
        "busybox", "library/busybox:1.36", "registry.k8s.io/pause:3.9", "localhost:5000/a/b_c/d--e",
        "[::1]:5000/a", "A.example/b", f"a@sha256:{'0' * 64}", f"a:1@sha256:{'0' * 64}",
    ],
)  # fmt: skip
def test_names_that_images_have(name: str) -> None:
    assert is_reference(name)


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a:", "a/", "/a", "a:1:2", "a@sha256:0", "a\n", "-a", "a..b"]
)
def test_names_that_no_image_has(name: str) -> None:
    assert not is_reference(name)
