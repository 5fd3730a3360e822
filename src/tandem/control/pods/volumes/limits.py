"""The size of emptyDir volumes that have a limit, looked at now and then.

The kernel tells nobody that a directory has grown, and a quota needs a file system that has them. So
directories with a limit, and only those, are measured: rarely, and the more rarely the longer it takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tandem.host import volumes as host
from tandem.host.run import blocking

logger = logging.getLogger(__name__)

CHECK_SECONDS = 10.0
"""Between two rounds, as often as the kubelet looks."""

_SHARE = 20
"""A round is followed by a pause of this many times its length."""


@dataclass(frozen=True, slots=True)
class Limit:
    """``text`` is the limit as the Pod has it, ``bytes`` what that is."""

    path: Path
    bytes: int
    text: str


class Limits:
    """Calls back once for each Pod that has exceeded a limit."""

    def __init__(self) -> None:
        self.exceeded: Callable[[str, str], None] = lambda _uid, _message: None
        self._watched: dict[str, Mapping[str, Limit]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, uid: str, limits: Mapping[str, Limit]) -> None:
        """Look after the volumes of a Pod, by name; none is fine."""
        if not limits:
            return
        self._watched[uid] = limits
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="volume-limits")

    def forget(self, uid: str) -> None:
        """Look no more."""
        self._watched.pop(uid, None)

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = CHECK_SECONDS
        while self._watched:
            await asyncio.sleep(pause)
            began = loop.time()
            for uid, limits in list(self._watched.items()):
                for name, limit in limits.items():
                    await self._check(uid, name, limit)
            pause = max(CHECK_SECONDS, _SHARE * (loop.time() - began))
        self._task = None

    async def _check(self, uid: str, name: str, limit: Limit) -> None:
        try:
            used = await blocking(host.usage, limit.path)
        except OSError as error:
            logger.debug("volume %s of %s cannot be measured: %s", name, uid, error)
            return
        if used > limit.bytes and self._watched.pop(uid, None) is not None:
            message = f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit.text}".'
            self.exceeded(uid, message)
