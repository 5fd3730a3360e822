"""A store in memory, and one in a file that can be opened again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tandem.store import Key, Store


def key(name: str, namespace: str = "default", resource: str = "configmaps") -> Key:
    return Key(resource, namespace, name)


def doc(name: str, value: str = "", **labels: str) -> dict[str, Any]:
    return {
        "kind": "ConfigMap",
        "metadata": {"name": name, "uid": f"uid-of-{name}", "labels": labels},
        "data": {"value": value},
    }


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await Store.open(None) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"
