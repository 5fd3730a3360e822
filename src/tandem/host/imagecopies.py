"""Files of images for machines: the image's own file where that can be, else one copy for all.

A machine gets a hard link, which costs nothing and outlives the image. Where the image's own file
cannot be linked (another file system) or must not be (QEMU's user could not read it, as with KubeVirt's
own images; or libvirt would change its owner), one copy serves all machines, who link to that; a copy to
which nobody has linked for a while is removed. The number of links is the only bookkeeping there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from tandem.host.run import blocking, run

COPY_SECONDS = 600.0
"""How long copying one image may take; a link, the usual case, takes no time."""

KEEP_UNUSED_SECONDS = 300.0
"""How long a copy is kept for the next machine that may want it: a restart is common."""

_READ_BY_ALL = 0o644
_PARTIAL = ".part"


class FoundFile(Protocol):
    """A file of an image where the container runtime keeps it, and the image's digest."""

    @property
    def digest(self) -> str: ...

    @property
    def path(self) -> Path: ...


class ImageCopies:
    """The copies in ``folder``. ``keep_unused`` is for how many seconds one waits for its next use."""

    def __init__(self, folder: Path, *, keep_unused: float = KEEP_UNUSED_SECONDS) -> None:
        self.folder = folder
        self._keep_unused = keep_unused
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._timer: asyncio.TimerHandle | None = None
        self._pruning: asyncio.Future[None] | None = None

    async def link(self, found: FoundFile, target: Path) -> None:
        """Make ``target`` a link to the image's own file, else to our copy of it."""
        if not await blocking(_try_link, found.path, target):
            await self.link_copy(found, target)

    async def link_copy(self, found: FoundFile, target: Path) -> None:
        """Make ``target`` a link to our one copy of the image's file."""
        name = hashlib.sha256(f"{found.digest}\0{found.path.name}".encode()).hexdigest()
        async with self._busy.setdefault(name, asyncio.Lock()):
            copy = self.folder / name
            if not await blocking(copy.exists):
                await self._copy(found.path, copy)
            try:
                await blocking(os.link, copy, target)
            except FileNotFoundError:  # pruned, as it had no link, before the lock was held
                await self._copy(found.path, copy)
                await blocking(os.link, copy, target)

    async def prune(self) -> None:
        """Links have gone: remove the copies that have waited long enough, the others in time."""
        await blocking(self.remove_unused, self._keep_unused)
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._keep_unused, self._prune_when_quiet)

    def _prune_when_quiet(self) -> None:
        self._timer = None
        self._pruning = asyncio.ensure_future(blocking(self.remove_unused, self._keep_unused))

    def remove_unused(self, seconds: float, *, partial: bool = False) -> None:
        """Remove the copies that nobody has used for so long; with ``partial``, also what interrupted
        copying left, which is only safe while nothing is copied. Blocking."""
        with contextlib.suppress(FileNotFoundError):
            for copy in self.folder.iterdir():
                if copy.suffix == _PARTIAL:
                    if partial:
                        copy.unlink(missing_ok=True)
                elif copy.name not in self._busy:
                    found = copy.stat()
                    # One link is our own; the time of change is when the last other one went.
                    if found.st_nlink == 1 and time.time() - found.st_ctime >= seconds:
                        copy.unlink(missing_ok=True)

    async def _copy(self, source: Path, copy: Path) -> None:
        partial = copy.with_suffix(_PARTIAL)
        try:
            await run(
                "cp", "--reflink=auto", "--sparse=always", "--", source, partial,
                timeout=COPY_SECONDS,
            )  # fmt: skip
            await blocking(partial.chmod, _READ_BY_ALL)
            await blocking(partial.rename, copy)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def _try_link(source: Path, target: Path) -> bool:
    if not source.lstat().st_mode & stat.S_IROTH:
        return False
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        return False
    return True
