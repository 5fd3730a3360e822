"""The services of the host, started for real."""

from __future__ import annotations

import subprocess

import pytest

from tests import world

pytestmark = [pytest.mark.containerd, pytest.mark.libvirt]


def test_images_of_the_registry_run_in_the_container_runtime(containerd: str) -> None:
    crictl = ["ctr", "--address", containerd, "--namespace", "k8s.io"]
    subprocess.run([*crictl, "images", "pull", "--hosts-dir", "/run/tandem/certs.d", world.BUSYBOX], check=True)
    done = subprocess.run([*crictl, "run", "--rm", world.BUSYBOX, "one", "echo", "hello"], check=True, capture_output=True)
    assert done.stdout == b"hello\n"
def test_virsh(libvirt_uri: str) -> None:
    subprocess.run(["virsh", "-c", libvirt_uri, "list"], check=True)
