"""The configuration of a containerd that Tandem starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tandem.host.containerd import ContainerdConfig, hosts_toml, snapshotter_for, write_mirrors


def render(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "socket": Path("/run/c/c.sock"),
        "root": Path("/var/lib/c"),
        "state": Path("/run/c"),
        "sandbox_image": "localhost/pause:1",
        "cni_conf_dir": Path("/etc/tandem/cni"),
        "cni_bin_dir": Path("/usr/lib/cni"),
        "certs_dirs": (Path("/run/t/certs.d"), Path("/etc/containerd/certs.d")),
        "snapshotter": "overlayfs",
        "restrict_oom_score_adj": True,
        "override": Path("/etc/tandem/containerd.d/*.toml"),
    }
    return tomllib.loads(ContainerdConfig(**(values | changes)).render())


def test_what_it_is_told_is_in_the_file() -> None:
    document = render()
    cri = document["plugins"]["io.containerd.grpc.v1.cri"]
    assert document["version"] == 2
    assert (document["root"], document["state"]) == ("/var/lib/c", "/run/c")
    assert document["grpc"]["address"] == "/run/c/c.sock"
    assert document["imports"] == ["/etc/tandem/containerd.d/*.toml"]
    assert cri["sandbox_image"] == "localhost/pause:1"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["cni"] == {"bin_dir": "/usr/lib/cni", "conf_dir": "/etc/tandem/cni"}
    assert cri["registry"]["config_path"] == "/run/t/certs.d:/etc/containerd/certs.d"


def test_byte_streams_are_served_on_loopback_only() -> None:
    assert render()["plugins"]["io.containerd.grpc.v1.cri"]["stream_server_address"] == "127.0.0.1"


def test_further_handlers_are_programs_of_the_host() -> None:
    runtimes = render(handlers={"crun": "/usr/bin/crun"})["plugins"]["io.containerd.grpc.v1.cri"][
        "containerd"
    ]["runtimes"]
    assert set(runtimes) == {"runc", "crun"}
    assert runtimes["crun"]["options"] == {"BinaryName": "/usr/bin/crun", "SystemdCgroup": False}
    assert runtimes["crun"]["runtime_type"] == "io.containerd.runc.v2"


def test_a_strange_path_stays_one_string() -> None:
    assert render(root=Path('/var/"lib"\n\\x'))["root"] == '/var/"lib"\n\\x'


MOUNTS = """\
22 1 0:20 / / rw - {root} x rw
23 22 0:21 / /var/lib rw shared:1 - {lib} x rw
24 22 0:22 / /var/library rw - overlay x rw
"""


@pytest.mark.parametrize(
    ("root", "lib", "expected"),
    [
        pytest.param("overlay", "ext4", "overlayfs", id="nearest mount decides"),
        pytest.param("ext4", "overlay", "native", id="overlay cannot carry another"),
        pytest.param("ext4", "tmpfs", "overlayfs", id="memory can"),
    ],
)
def test_the_snapshotter_suits_the_filesystem(root: str, lib: str, expected: str) -> None:
    mounts = MOUNTS.format(root=root, lib=lib)
    assert snapshotter_for(Path("/var/lib/containerd"), mounts) == expected


def test_mirrors_are_written_and_those_no_longer_wanted_are_removed(tmp_path: Path) -> None:
    write_mirrors(tmp_path, {"docker.io": "http://127.0.0.1:5000", "quay.io": "https://mirror"})
    write_mirrors(tmp_path, {"docker.io": "http://127.0.0.1:6000"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["docker.io"]
    document = tomllib.loads((tmp_path / "docker.io" / "hosts.toml").read_text())
    assert document["host"] == {"http://127.0.0.1:6000": {"capabilities": ["pull", "resolve"]}}


def test_no_mirrors_need_no_folder(tmp_path: Path) -> None:
    write_mirrors(tmp_path / "certs.d", {})
    assert not (tmp_path / "certs.d").exists()


def test_what_a_mirror_lacks_is_asked_of_the_registry_itself() -> None:
    assert tomllib.loads(hosts_toml("quay.io", "http://m"))["server"] == "https://quay.io"
