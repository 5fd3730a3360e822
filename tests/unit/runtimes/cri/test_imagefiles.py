"""Files out of images are looked for once, and again when they are not what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tandem.runtimes.cri._gen import containerd_types_pb2 as types
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.imagefiles import ImageFinder


class Containerd:
    """Stands for both: images by their id, and the directory of each one's only layer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = "sha256:a"
        self.views = 0

    async def check(self) -> None:
        return

    async def ensure(self, reference: str, policy: str) -> cri.Image:
        return cri.Image(id=self.id)

    async def view(self, key: str, image_id: str) -> list[types.Mount]:
        self.views += 1
        return [types.Mount(type="bind", source=str(self.folder / image_id[-1]))]

    async def remove(self, key: str) -> None:
        return


@pytest.fixture
def runtime(tmp_path: Path) -> Containerd:
    for name in "ab":
        (tmp_path / name / "disk").mkdir(parents=True)
        (tmp_path / name / "disk" / "root.img").write_bytes(name.encode())
    return Containerd(tmp_path)


async def test_a_file_is_looked_for_once(runtime: Containerd) -> None:
    either: Any = runtime
    finder = ImageFinder(either, either)
    first = await finder.find("os:1", None, "IfNotPresent")
    assert await finder.find("os:1", None, "IfNotPresent") == first
    assert runtime.views == 1
    runtime.id = "sha256:b"  # the name is another image's by now
    assert (await finder.find("os:1", None, "IfNotPresent")).path.read_bytes() == b"b"
    assert runtime.views == 2


async def test_a_file_that_was_unpacked_anew_is_looked_for_anew(runtime: Containerd) -> None:
    either: Any = runtime
    finder = ImageFinder(either, either)
    path = (await finder.find("os:1", None, "IfNotPresent")).path
    path.rename(path.with_name("other.img"))
    again = await finder.find("os:1", None, "IfNotPresent")
    assert (again.path.name, runtime.views) == ("other.img", 2)
