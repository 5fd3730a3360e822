"""containerd and libvirt, found or started, for real and in places of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.errors import TandemError, Unavailable
from tandem.host import services as module
from tandem.host.services import HostServices
from tests import world


class Host(HostServices):
    """A second instance beside the world's own, with every path elsewhere."""

    @classmethod
    def below(cls, folder: Path) -> Host:
        return cls(
            run_dir=folder / "run",
            log_dir=folder / "log",
            config_dir=folder / "etc",
            container_endpoint=str(folder / "run" / "containerd" / "containerd.sock"),
            containerd_root=folder / "lib",
            libvirt_run_dir=folder / "libvirt",
            cni_conf_dir=folder / "net.d",
            certs_dir=folder / "certs.d",
        )

    def pid(self, name: str) -> int:
        (pid,) = (status.keeper_pid for status in self.status() if status.name == name)
        return pid


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    world.require()
    host = Host.below(tmp_path)
    yield host
    host.stop_all()
    assert not any(status.running or status.ours for status in host.status())


@pytest.mark.containerd
def test_two_callers_at_once_start_one_containerd(host: Host) -> None:
    failed: list[TandemError] = []

    def up() -> None:
        try:
            Host.below(host.run_dir.parent).ensure_containerd()
        except TandemError as error:
            failed.append(error)

    threads = [threading.Thread(target=up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    log = (host.log_dir / "keeper.log").read_text()
    assert log.count("containerd: started") == 1
    assert host.pid("containerd") in _pids_of("containerd")


@pytest.mark.containerd
def test_containerd_has_the_sandbox_image_and_a_network(host: Host) -> None:
    status = host.ensure_containerd()
    assert status.running
    assert status.ours
    listed = subprocess.run(
        ["ctr", "--address", status.socket, "--namespace", "k8s.io", "images", "list", "--quiet"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "localhost/tandem/pause:1" in listed.stdout
    assert (host.config_dir / "cni" / "10-tandem.conflist").exists()


@pytest.mark.containerd
def test_the_network_of_the_host_is_used_where_there_is_one(host: Host) -> None:
    host.cni_conf_dir.mkdir()
    (host.cni_conf_dir / "87-mine.conflist").write_text("{}")
    host.ensure_containerd()
    assert f'conf_dir = "{host.cni_conf_dir}"' in (host.run_dir / "containerd.toml").read_text()
    assert not (host.config_dir / "cni").exists()


@pytest.mark.containerd
def test_a_killed_containerd_comes_back(host: Host) -> None:
    host.ensure_containerd()
    first = host.pid("containerd")
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not (pid := host.pid("containerd")) or pid == first:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.containerd
def test_a_containerd_that_cannot_start_is_told_with_its_own_words(host: Host) -> None:
    override = host.config_dir / "containerd.d" / "mine.toml"
    override.parent.mkdir(parents=True)
    override.write_text('version = 2\nroot = "relative"\n[grpc]\n  address = 7\n')
    with pytest.raises(Unavailable, match="containerd does not start") as caught:
        host.ensure_containerd()
    assert "containerd.log" in str(caught.value.hint)
    assert "ended with status" in caught.value.message


@pytest.mark.containerd
@pytest.mark.libvirt
def test_runtimes_that_answer_are_used_as_they_are(
    containerd: str, libvirt_uri: str, tmp_path: Path
) -> None:
    stranger = HostServices(
        run_dir=tmp_path / "run", log_dir=tmp_path / "log", config_dir=tmp_path / "etc"
    )
    assert stranger.ensure_containerd().running
    assert stranger.ensure_libvirt().running
    assert not any(status.ours for status in stranger.status())
    assert not (tmp_path / "etc").exists()
    assert not list(tmp_path.glob("run/keeper/*.service"))


@pytest.mark.libvirt
def test_kvm_is_open_to_the_user_that_runs_machines(libvirt_uri: str) -> None:
    if not Path("/dev/kvm").exists():  # nothing to open, and libvirt came up all the same
        return
    assert Path("/dev/kvm").stat().st_mode & 0o777 == 0o660
    assert Path("/dev/kvm").group() == "kvm"


def test_what_is_not_installed_is_told_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(module, "_has_systemd", lambda: False)
    with pytest.raises(Unavailable, match="containerd is not installed") as caught:
        Host.below(tmp_path).ensure_containerd()
    assert "apt-get install" in str(caught.value.hint)


def test_with_systemd_its_units_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host.below(tmp_path)
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "_has_systemd", lambda: True)
    monkeypatch.setattr(module, "_run", lambda *command, **_: calls.append(command))
    monkeypatch.setattr(Host, "_await_socket", lambda *_: None)
    monkeypatch.setattr(module, "_iptables_work", lambda: True)
    host.ensure_containerd()
    host.ensure_libvirt()
    assert calls == [
        ("systemctl", "start", "containerd.service"),
        ("systemctl", "start", "virtlogd.socket"),
        ("systemctl", "start", "libvirtd.service"),
    ]
    assert (host.cni_conf_dir / "10-tandem.conflist").exists()
    assert not list(host.run_dir.glob("keeper/*.service"))


@pytest.mark.parametrize(
    ("endpoint", "uri", "words"),
    [
        pytest.param("/run/crio/crio.sock", None, "CRI-O does not answer", id="cri-o"),
        pytest.param(None, "qemu+ssh://host/system", "libvirt does not answer", id="another host"),
        pytest.param(None, "xen:///system", "libvirt does not answer", id="another driver"),
    ],
)
def test_what_is_not_ours_to_start_is_only_reported(
    tmp_path: Path, endpoint: str | None, uri: str | None, words: str
) -> None:
    host = HostServices(
        run_dir=tmp_path / "run",
        log_dir=tmp_path / "log",
        container_endpoint=endpoint or "/nowhere/containerd.sock",
        libvirt_run_dir=tmp_path,
        libvirt_uri=uri or "qemu:///system",
    )
    with pytest.raises(Unavailable, match=words):
        host.ensure_containerd() if endpoint else host.ensure_libvirt()


def _pids_of(name: str) -> list[int]:
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/comm")
        if path.read_text().strip() == name
    ]
