"""The library's public surface: what a script that says ``import tandem`` can rely on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar

import pytest

import tandem
from tandem import (
    EventKind,
    Fingerprint,
    Phase,
    RuntimeAdapter,
    RuntimeAdapterFactory,
    RuntimeEvent,
    RuntimeHandle,
    RuntimeSpec,
    RuntimeStatus,
)


class Plugin(RuntimeAdapter):
    """An adapter as somebody else would write it; ``create`` waits until it is cancelled."""

    name: ClassVar[str] = "plugin"

    def __init__(self, **options: object) -> None:
        self.options = options
        self.creating = threading.Event()
        self.undone = self.closed = self.events_ended = False

    async def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name, "1", True)

    async def create(self, spec: RuntimeSpec) -> RuntimeStatus:
        self.creating.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # undoing takes a turn of the loop
            self.undone = True
            raise
        raise AssertionError

    async def delete(self, id: str, *, grace_seconds: float | None = None) -> None:
        raise tandem.TandemError(f"cannot delete {id}")

    async def get_status(self, id: str) -> RuntimeStatus:
        return RuntimeStatus(Phase.RUNNING, id)

    async def list(self, *, strangers: bool = False) -> Sequence[RuntimeStatus]:
        return [RuntimeStatus(Phase.RUNNING, "stranger" if strangers else "mine")]

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        try:
            yield RuntimeEvent(EventKind.RESYNC)
            yield RuntimeEvent(EventKind.STARTED, "mine")
            await asyncio.Event().wait()
        finally:
            self.events_ended = True

    async def recover(self, handle: RuntimeHandle) -> RuntimeStatus:
        return RuntimeStatus(Phase.RUNNING, handle.data["id"])

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", f"{__name__}:Plugin", "tandem.runtimes")
    wrong = EntryPoint("wrong", f"{__name__}:pytest", "tandem.runtimes")
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda *, group: EntryPoints([entry, wrong])
    )


def adapter_of(runtime: tandem.SyncRuntimeAdapter) -> Plugin:
    assert isinstance(runtime.adapter, Plugin)
    return runtime.adapter


@pytest.fixture
def runtime(plugin: None) -> Iterator[tandem.SyncRuntimeAdapter]:
    with tandem.sync("mine") as runtime:
        yield runtime


def test_every_public_name_is_there() -> None:
    assert {name for name in tandem.__all__ if not hasattr(tandem, name)} == set()


def test_importing_it_brings_no_runtimes_library_nor_the_server() -> None:
    heavy = (
        "grpc google.protobuf libvirt aiohttp asyncio msgspec yaml cryptography importlib.metadata"
    )
    code = f"import sys, tandem; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_type_is_a_value_error_that_lists_the_known_ones(plugin: None) -> None:
    with pytest.raises(ValueError, match=r"'docker'.*container, memory, mine, virtualmachine, vm"):
        RuntimeAdapterFactory.get_adapter("docker")


def test_a_plugin_is_found_by_its_entry_point_and_given_its_options(plugin: None) -> None:
    adapter = RuntimeAdapterFactory.get_adapter("mine", endpoint="there")
    assert isinstance(adapter, RuntimeAdapter)
    assert adapter_of(tandem.SyncRuntimeAdapter(adapter)).options == {"endpoint": "there"}


def test_a_plugin_that_is_no_adapter_is_refused(plugin: None) -> None:
    with pytest.raises(ValueError, match="not a RuntimeAdapter"):
        RuntimeAdapterFactory.get_adapter("wrong")


def test_the_synchronous_face_has_every_verb_of_the_contract() -> None:
    verbs = set(RuntimeAdapter.__abstractmethods__) | {"close"}
    assert {
        verb for verb in verbs if not callable(getattr(tandem.SyncRuntimeAdapter, verb, None))
    } == set()


def test_a_script_calls_the_verbs_plainly(runtime: tandem.SyncRuntimeAdapter) -> None:
    assert runtime.fingerprint().name == "plugin"
    assert runtime.get_status("a").phase is Phase.RUNNING
    assert [status.id for status in runtime.list(strangers=True)] == ["stranger"]
    assert runtime.recover(RuntimeHandle("plugin", 1, {"id": "b"})).id == "b"


def test_an_error_reaches_the_script_as_it_is(runtime: tandem.SyncRuntimeAdapter) -> None:
    with pytest.raises(tandem.TandemError, match="cannot delete x"):
        runtime.delete("x", grace_seconds=0)


def test_events_are_an_iterator_that_can_be_left(runtime: tandem.SyncRuntimeAdapter) -> None:
    events = runtime.events()
    assert next(events).kind is EventKind.RESYNC
    assert next(events).id == "mine"
    events.close()  # type: ignore[attr-defined]
    assert adapter_of(runtime).events_ended


def test_closing_closes_the_adapter_and_ends_the_thread(plugin: None) -> None:
    runtime = tandem.sync("mine")
    runtime.fingerprint()
    runtime.close()
    runtime.close()
    assert adapter_of(runtime).closed
    assert not [t for t in threading.enumerate() if t.name == "tandem-sync"]
    with pytest.raises(RuntimeError, match="closed"):
        runtime.fingerprint()


# In a process of its own: whoever runs the tests may have the main thread, which signals go to.
_INTERRUPTED = """
import os, signal, threading
from tandem import RuntimeSpec, SyncRuntimeAdapter
from tests.unit.test_library import Plugin

# A run of the tests in the background hands SIGINT down ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
adapter = Plugin()

def interrupt():
    adapter.creating.wait()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
with SyncRuntimeAdapter(adapter) as runtime:
    try:
        runtime.create(RuntimeSpec("x", container_spec={"image": "i"}))
    except KeyboardInterrupt:
        print("undone" if adapter.undone else "left half done")
"""


def test_ctrl_c_cancels_the_call_and_waits_until_it_is_undone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("undone\n", "")


def test_ctrl_c_before_the_script_knows_its_call_undoes_it_all_the_same(
    runtime: tandem.SyncRuntimeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = asyncio.run_coroutine_threadsafe

    def interrupted(*arguments: Any) -> None:
        monkeypatch.undo()
        submit(*arguments)
        raise KeyboardInterrupt

    runtime.fingerprint()
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runtime.create(RuntimeSpec("x", container_spec={"image": "i"}))
    assert adapter_of(runtime).creating.is_set()
    assert adapter_of(runtime).undone
