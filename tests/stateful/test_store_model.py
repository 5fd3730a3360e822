"""The store against a model: a dictionary, a counter and a list of changes.

Whatever sequence of writes, failures of the disk and restarts is tried, reads, conflicts, revisions
and what watches tell must be the model's.
"""

from __future__ import annotations

import asyncio
import tempfile
import unittest.mock
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tandem.errors import AlreadyExists, Conflict, Expired, NotFound, Unavailable
from tandem.store import Key, Store, Watch
from tandem.store.database import Database

keys = st.builds(
    Key, st.sampled_from(["pods", "secrets"]), st.sampled_from(["a", "b"]), st.sampled_from("xyz")
)
values = st.integers(0, 3)


class StoreMachine(RuleBasedStateMachine):
    """One store, one model, and a watch of everything that must replay the model's changes."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.objects: dict[Key, tuple[int, int]] = {}  # value and revision
        self.changes: list[tuple[str, Key, int]] = []
        self.opened_at = 0

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        self.store: Store = self.run(Store.open(Path(self.directory.name) / "store.db"))
        self.opened_at = self.store.revision
        self.watch: Watch = self.store.watch(None)

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.open()

    @rule(key=keys, value=values)
    def create(self, key: Key, value: int) -> None:
        try:
            doc = self.run(self.store.create(key, {"metadata": {}, "value": value}))
        except AlreadyExists:
            assert key in self.objects
        else:
            assert key not in self.objects
            self._changed("ADDED", key, value, doc)

    @rule(key=keys, value=values, stale=st.booleans())
    def update(self, key: Key, value: int, stale: bool) -> None:
        current = self.objects.get(key)
        revision = (current[1] if current else 0) - stale
        doc = {"metadata": {"resourceVersion": str(revision)}, "value": value}
        try:
            written = self.run(self.store.update(key, doc))
        except NotFound:
            assert current is None
        except Conflict:
            assert current is not None
            assert stale
        else:
            assert current is not None
            assert not stale
            if value != current[0]:
                self._changed("MODIFIED", key, value, written)
            else:
                assert written["metadata"]["resourceVersion"] == str(current[1])

    @rule(key=keys)
    def delete(self, key: Key) -> None:
        try:
            doc = self.run(self.store.delete(key))
        except NotFound:
            assert key not in self.objects
        else:
            value, _ = self.objects[key]
            self._changed("DELETED", key, value, doc)
            del self.objects[key]

    @rule(key=keys, count=st.integers(2, 4))
    def mutate_at_once(self, key: Key, count: int) -> None:
        def one_more(doc: dict[str, Any]) -> dict[str, Any]:
            return {**doc, "value": doc["value"] + 1}

        async def all_at_once() -> list[Any]:
            tasks = [self.store.mutate(key, one_more) for _ in range(count)]
            return await asyncio.gather(*tasks, return_exceptions=True)

        for result in self.run(all_at_once()):
            if isinstance(result, NotFound):
                assert key not in self.objects
            else:
                self._changed("MODIFIED", key, self.objects[key][0] + 1, result)

    @rule(key=keys, value=values)
    def disk_fails(self, key: Key, value: int) -> None:
        def fail(*_: Any) -> None:
            raise Unavailable("the disk is gone")

        async def write() -> list[Any]:
            writes = [
                self.store.create(key, {"metadata": {}, "value": value}),
                self.store.mutate(key, lambda doc: {**doc, "value": doc["value"] + 10}),
                self.store.delete(key),
            ]
            return await asyncio.gather(*writes, return_exceptions=True)

        with unittest.mock.patch.object(Database, "commit", fail):
            results = self.run(write())
        first = AlreadyExists if key in self.objects else Unavailable
        assert [type(result) for result in results] == [first, Unavailable, Unavailable]

    @precondition(lambda self: self.changes)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        since = data.draw(st.integers(0, self.store.revision))
        try:
            watch = self.store.watch("pods", "a", since)
        except Expired:
            assert since < self.opened_at
            return
        with watch:
            expected = [
                change
                for change in self.changes
                if change[2] > since and change[1][:2] == ("pods", "a")
            ]
            seen = self.run(watch.batch()) if expected else []
            assert [(event.type, event.key, event.revision) for event in seen] == expected

    def _changed(self, type_: str, key: Key, value: int, doc: dict[str, Any]) -> None:
        revision = int(doc["metadata"]["resourceVersion"])
        assert doc["value"] == value
        assert revision > (self.changes[-1][2] if self.changes else 0)
        self.objects[key] = (value, revision)
        self.changes.append((type_, key, revision))
        event = self.run(anext(self.watch))
        assert (event.type, event.key, event.revision) == self.changes[-1]
        assert msgspec.json.decode(event.data) == doc

    @invariant()
    def reads_are_the_model_s(self) -> None:
        if not hasattr(self, "store"):
            return
        for resource in ("pods", "secrets"):
            found = [
                (item["value"], int(item["metadata"]["resourceVersion"]))
                for item in self.store.list(resource).items
            ]
            assert found == [
                self.objects[key] for key in sorted(self.objects) if key[0] == resource
            ]
        assert self.store.revision == (self.changes[-1][2] if self.changes else 0)
        assert self.watch.caught_up

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
        self.loop.close()
        self.directory.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestStore = StoreMachine.TestCase
