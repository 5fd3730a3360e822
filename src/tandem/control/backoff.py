"""How long to wait before something is tried once more, as the kubelet does it.

What has ended is started again at once, the next time after ten seconds, then twice as long each time
up to five minutes; ten minutes without trouble and all is forgiven. What could not be started waits
from the first time on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass

FIRST_SECONDS = 10.0
LAST_SECONDS = 300.0
FORGIVEN_SECONDS = 600.0


@dataclass(slots=True)
class _Entry:
    """``due``: when it may be tried again; ``mark``: the end that has been counted last."""

    delay: float
    due: float
    mark: Hashable = None


class Backoff:
    """The waits of many things, each by a key, on the event loop's clock."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}

    def ended(self, key: Hashable, mark: Hashable) -> float:
        """Seconds until what has ended may be started again. ``mark`` names this end (a container's
        attempt), so that asking twice about the same one counts once."""
        now = _now()
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(0.0, now, mark)
            return 0.0
        if entry.mark != mark:
            if now - entry.due > FORGIVEN_SECONDS:
                entry.delay = 0.0
            else:
                entry.delay = _longer(entry.delay)
            entry.due, entry.mark = now + entry.delay, mark
        return max(0.0, entry.due - now)

    def failed(self, key: Hashable) -> float:
        """Note that it could not be started now; returns the seconds to wait."""
        now = _now()
        entry = self._entries.setdefault(key, _Entry(0.0, now))
        entry.delay = _longer(entry.delay)
        entry.due = now + entry.delay
        return entry.delay

    def hold(self, key: Hashable, seconds: float) -> None:
        """Have it wait for so long from now, however often that happens."""
        self._entries[key] = _Entry(seconds, _now() + seconds)

    def remaining(self, key: Hashable) -> float:
        """Seconds until it may be tried again, 0 for now."""
        entry = self._entries.get(key)
        return max(0.0, entry.due - _now()) if entry else 0.0

    def delay(self, key: Hashable) -> float:
        """The whole wait that is in force, for messages."""
        entry = self._entries.get(key)
        return entry.delay if entry else 0.0

    def forget(self, *keys: Hashable) -> None:
        """All is well with these, or they are gone."""
        for key in keys:
            self._entries.pop(key, None)


def duration(seconds: float) -> str:
    """``10s``, ``1m20s``, ``5m0s``: as Go prints it, which is what people search for."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _longer(delay: float) -> float:
    return min(delay * 2, LAST_SECONDS) if delay else FIRST_SECONDS


def _now() -> float:
    return asyncio.get_running_loop().time()
