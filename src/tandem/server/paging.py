"""Lists read page by page, each page of the same moment.

Pages are cut from the list as it was when the first was asked for. It is kept for a while: its objects
are shared with the store, so only what has changed since costs memory. A client that comes later is
told 410 and starts again, as Kubernetes' clients do.
"""

from __future__ import annotations

import base64
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from time import monotonic

import msgspec

from tandem.errors import BadRequest, Expired
from tandem.store import RawListing


class _Token(msgspec.Struct):
    """What ``continue`` says, in base64 of JSON: which snapshot, and how far into it."""

    snapshot: str
    start: int


@dataclass(frozen=True, slots=True)
class Page:
    """A place in a list: where it was asked for, the whole of it, and how far its reader is."""

    path: str
    listing: RawListing
    start: int = 0
    snapshot: str = ""


class Pages:
    """Lists that are being read page by page: the newest few, for a few minutes each."""

    def __init__(self, *, capacity: int = 32, lifetime: float = 300.0) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._kept: OrderedDict[str, tuple[float, Page]] = OrderedDict()

    def resume(self, token: str, path: str) -> Page:
        """The page that ``token`` stands for. Raises ``Expired``, and ``BadRequest`` when it is not
        one of ours or belongs to another list."""
        read = _read_token(token)
        self._drop_expired()
        _, page = self._kept.get(read.snapshot, (0.0, None))
        if page is None:
            raise Expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            )
        if page.path != path or not 0 <= read.start <= len(page.listing.items):
            raise BadRequest("continue key is not valid for this list")
        return replace(page, start=read.start)

    def token(self, page: Page, start: int) -> str:
        """What to send for the page of the same list that begins at ``start``."""
        name = page.snapshot
        if not name:
            name = secrets.token_urlsafe(12)
            self._kept[name] = monotonic() + self._lifetime, replace(page, snapshot=name)
            self._drop_expired()
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return _write_token(_Token(name, start))

    def _drop_expired(self) -> None:
        now = monotonic()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)


def _read_token(text: str) -> _Token:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(data, type=_Token)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error


def _write_token(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")
