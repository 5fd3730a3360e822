"""The file of the demo, applied and deleted as its own comments say, by each kubectl."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.containerd, pytest.mark.libvirt, pytest.mark.slow]

EXAMPLE = str(world.ROOT / "examples" / "both.yaml")


def test_one_file_brings_up_a_container_and_a_virtual_machine(
    daemon: Daemon, namespace: str, kubectl: Path
) -> None:
    def run(*words: str) -> str:
        return daemon.kubectl("--namespace", namespace, *words, binary=kubectl).stdout

    applied = run("apply", "-f", EXAMPLE)
    assert applied.splitlines() == [
        "pod/hello created",
        "virtualmachine.kubevirt.io/hello-vm created",
    ]
    run("wait", "--for=condition=Ready", "--timeout=90s", "pod/hello", "vm/hello-vm")
    listed = run("get", "pods,vms,vmis", "--no-headers")
    assert [line.split()[0] for line in listed.splitlines() if line] == [
        "pod/hello",
        "virtualmachine.kubevirt.io/hello-vm",
        "virtualmachineinstance.kubevirt.io/hello-vm",
    ]
    daemon.eventually(lambda: "Hello from a container, on hello." in run("logs", "hello"))
    daemon.eventually(
        lambda: (
            "Hello from a virtual machine, on hello-vm."
            in daemon.tandem("logs", "vm/hello-vm", "--namespace", namespace).stdout
        )
    )

    again = run("apply", "-f", EXAMPLE)
    assert again.splitlines() == [
        "pod/hello unchanged",
        "virtualmachine.kubevirt.io/hello-vm unchanged",
    ]

    run("delete", "-f", EXAMPLE)
    assert run("get", "pods,vms,vmis") == ""
