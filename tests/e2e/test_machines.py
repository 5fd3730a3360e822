"""Virtual machines through the API, by the manifests that users have."""

from __future__ import annotations

import subprocess

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

BARE = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: test-vm
spec:
  running: true
  template:
    spec:
      domain:
        resources:
          requests:
            memory: "2Gi"
            cpu: "2"
"""

GUEST = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {{name: guest}}
spec:
  runStrategy: {strategy}
  template:
    spec:
      terminationGracePeriodSeconds: 30
      domain:
        memory: {{guest: 128Mi}}
        devices: {{{devices}}}
{more}
"""

DISK = f"""\
      volumes:
        - {{name: system, containerDisk: {{image: "{world.MACHINE}"}}}}
        - name: seed
          cloudInitNoCloud:
            userData: |
              #!/bin/sh
              echo "user data ran on $(hostname)"
"""

KERNEL = f"""\
        firmware:
          kernelBoot:
            kernelArgs: console=ttyS0 quiet
            container: {{image: "{world.MACHINE_KERNEL}", kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd}}
"""


def wait_ready(daemon: Daemon, namespace: str, name: str) -> None:
    words = ("wait", "--for=condition=Ready", "--timeout=90s", f"vm/{name}", "-n", namespace)
    daemon.kubectl(*words)


def virsh(*words: str) -> str:
    command = ["virsh", "--connect", "qemu:///system", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def serial(daemon: Daemon, namespace: str) -> str:
    return daemon.tandem("logs", "vm/guest", "--namespace", namespace, check=False).stdout


def apply(daemon: Daemon, namespace: str, manifest: str) -> None:
    daemon.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)


def test_a_machine_with_no_devices_and_no_disk_runs_with_what_it_asks_for(
    daemon: Daemon, namespace: str
) -> None:
    apply(daemon, namespace, BARE)
    wait_ready(daemon, namespace, "test-vm")
    (domain,) = virsh("list", "--name").split()
    facts = dict(
        line.split(":", 1) for line in virsh("dominfo", domain).splitlines() if ":" in line
    )
    assert facts["State"].strip() == "running"
    assert facts["CPU(s)"].strip() == "2"
    assert facts["Max memory"].strip() == f"{2 * 1024 * 1024} KiB"
    assert daemon.get("vmi", "test-vm", "-n", namespace)["status"]["phase"] == "Running"


@pytest.mark.parametrize(
    ("devices", "more"),
    [
        pytest.param("", DISK, id="disks without a bus"),
        pytest.param(
            "disks: [{name: system, disk: {bus: virtio}}, {name: seed, disk: {bus: virtio}}]",
            DISK,
            id="virtio disks",
        ),
        pytest.param(
            "disks: [{name: system, disk: {bus: virtio}}, {name: seed, cdrom: {bus: sata}}]",
            DISK,
            id="seed on a cdrom",
        ),
    ],
)
def test_a_machine_boots_its_container_disk_and_runs_its_user_data(
    daemon: Daemon, namespace: str, devices: str, more: str
) -> None:
    apply(daemon, namespace, GUEST.format(strategy="Always", devices=devices, more=more))
    wait_ready(daemon, namespace, "guest")
    daemon.eventually(lambda: "user data ran on guest" in serial(daemon, namespace))


def test_a_machine_boots_a_kernel_from_an_image(daemon: Daemon, namespace: str) -> None:
    apply(daemon, namespace, GUEST.format(strategy="Always", devices="", more=KERNEL))
    wait_ready(daemon, namespace, "guest")
    daemon.eventually(lambda: "login:" in serial(daemon, namespace))


def test_stop_shuts_the_guest_down_and_start_boots_it_again(daemon: Daemon, namespace: str) -> None:
    apply(daemon, namespace, GUEST.format(strategy="Always", devices="", more=DISK))
    wait_ready(daemon, namespace, "guest")
    daemon.eventually(lambda: "login:" in serial(daemon, namespace))
    first = daemon.get("vmi", "guest", "-n", namespace)["metadata"]["uid"]

    daemon.tandem("stop", "guest", "--namespace", namespace)
    daemon.eventually(lambda: not daemon.get("vmi", "-n", namespace)["items"])
    assert virsh("list", "--all", "--name").split() == []
    status = daemon.get("vm", "guest", "-n", namespace)["status"]
    assert status["printableStatus"] == "Stopped"

    daemon.tandem("start", "guest", "--namespace", namespace)
    wait_ready(daemon, namespace, "guest")
    assert daemon.get("vmi", "guest", "-n", namespace)["metadata"]["uid"] != first


def test_a_machine_that_is_halted_does_not_run(daemon: Daemon, namespace: str) -> None:
    apply(daemon, namespace, GUEST.format(strategy="Halted", devices="", more=DISK))
    daemon.eventually(
        lambda: (
            daemon.get("vm", "guest", "-n", namespace).get("status", {}).get("printableStatus")
            == "Stopped"
        )
    )
    assert not daemon.get("vmi", "-n", namespace)["items"]
