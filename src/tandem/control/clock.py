"""The time of day, as the loops compare what objects say with it."""

from __future__ import annotations

from datetime import UTC, datetime

from tandem.api.meta import parse_time


def since(timestamp: str) -> float:
    """Seconds since an RFC 3339 time, which is written in whole seconds: up to one too many."""
    return (datetime.now(UTC) - parse_time(timestamp)).total_seconds()
