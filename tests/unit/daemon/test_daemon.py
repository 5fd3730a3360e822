"""The parts put together: what starts, in which order it ends, and what a start that fails leaves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tandem.client import AsyncClient, load
from tandem.client.request import Request
from tandem.config import Settings
from tandem.daemon import Daemon
from tandem.errors import Conflict, InvalidSpec, TandemError, Unavailable
from tandem.instance import running_pid
from tandem.runtimes.memory.adapter import MemoryAdapter


def settings(folder: Path, **more: Any) -> Settings:
    places: dict[str, Any] = {
        "data_dir": folder / "data",
        "run_dir": folder / "run",
        "log_dir": folder / "log",
        "config_dir": folder / "etc",
        "kubeconfig": folder / "etc" / "kubeconfig",
        "listen_port": 0,
        "container_runtime": "memory",
        "vm_runtime": "memory",
    }
    return Settings(**places | more)


async def test_whoever_reads_the_kubeconfig_is_served(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with Daemon(chosen) as daemon, AsyncClient(load(chosen.kubeconfig)) as client:
        assert stat.S_IMODE(chosen.kubeconfig.stat().st_mode) == 0o600
        assert client.access.server == daemon.url
        report = await client.send(Request("GET", "/statusz"))
        assert report["pid"] == os.getpid() == running_pid(chosen.lock_file)
        assert [runtime["name"] for runtime in report["runtimes"]] == ["memory", "memory"]
        assert all(runtime["healthy"] for runtime in report["runtimes"])
        assert report["objects"]["namespaces"]["Active"] >= 1
        assert report["objects"]["pods"] == {}
    assert running_pid(chosen.lock_file) == 0


async def test_what_was_stored_is_there_after_a_restart_and_so_is_the_identity(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        chosen = settings(tmp_path, listen_port=free.getsockname()[1])
    async with Daemon(chosen), AsyncClient(load(chosen.kubeconfig)) as client:
        made = await client.create("cm", {"metadata": {"name": "a"}, "data": {"x": "1"}})
    before = chosen.kubeconfig.stat()
    async with Daemon(chosen), AsyncClient(load(chosen.kubeconfig)) as client:
        assert (await client.get("cm", "a"))["metadata"]["uid"] == made["metadata"]["uid"]
    assert chosen.kubeconfig.stat().st_ino == before.st_ino, "it was written again"


async def test_a_second_daemon_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with Daemon(settings(tmp_path)):
        with pytest.raises(Conflict, match="another daemon"):
            await Daemon(settings(tmp_path)).__aenter__()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"container_runtime": "docker"}, InvalidSpec, "known types: .*memory"),
        ({"listen_address": "192.0.2.1"}, Unavailable, "cannot listen on 192.0.2.1 port 0: Cannot"),
        ({"kubeconfig": Path("/proc/none/kubeconfig")}, Unavailable, "cannot write /proc/none"),
        ({"data_dir": Path("/proc/none")}, Unavailable, "cannot use /proc/none"),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing_behind(
    tmp_path: Path, wrong: dict[str, Any], error: type[TandemError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await Daemon(settings(tmp_path, **wrong)).__aenter__()
    async with Daemon(settings(tmp_path)):
        pass


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        chosen = settings(tmp_path, listen_port=taken.getsockname()[1])
        with pytest.raises(Unavailable, match="Address already in use") as caught:
            await Daemon(chosen).__aenter__()
    assert caught.value.hint == "choose another with --listen-port, or stop what has it"


async def test_a_runtime_that_is_absent_does_not_keep_it_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = {"container": MemoryAdapter(), "vm": MemoryAdapter()}
    adapters["container"].runtime.available = False
    monkeypatch.setattr("tandem.adapters.build", lambda _: adapters)
    chosen = settings(tmp_path)
    async with Daemon(chosen), AsyncClient(load(chosen.kubeconfig)) as client:
        absent, present = (await client.send(Request("GET", "/statusz")))["runtimes"]
        assert (absent["healthy"], present["healthy"]) == (False, True)
        assert absent["problem"]
        with pytest.raises(TandemError, match="runtime-container failed"):
            await client.send(Request("GET", "/readyz"))


async def test_a_runtime_that_is_slow_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = {"container": MemoryAdapter(), "vm": MemoryAdapter()}
    hold = adapters["vm"].faults.hold("list")
    monkeypatch.setattr("tandem.adapters.build", lambda _: adapters)
    chosen = settings(tmp_path)
    async with Daemon(chosen), AsyncClient(load(chosen.kubeconfig)) as client:
        assert await client.get("namespaces", "default")
        await hold.reached.wait()


async def test_control_that_cannot_start_ends_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("control is broken")

    monkeypatch.setattr("tandem.control.Manager.start", broken)
    async with Daemon(settings(tmp_path)) as daemon:
        with pytest.raises(RuntimeError, match="control is broken"):
            await daemon.until(asyncio.Event())


async def test_a_part_that_does_not_stop_cleanly_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(MemoryAdapter, "close", broken)
    chosen = settings(tmp_path)
    async with Daemon(chosen):
        pass
    assert "did not stop cleanly" in caplog.text
    assert running_pid(chosen.lock_file) == 0


async def test_the_kubeconfig_is_json_that_names_its_context(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with Daemon(chosen):
        document = json.loads(chosen.kubeconfig.read_bytes())
    assert document["current-context"] == "tandem"
