"""Machines with every kind of volume, and with EFI and a TPM, on real libvirt and QEMU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import world
from tests.daemon import Daemon
from tests.e2e.test_machines import apply, serial, virsh, wait_ready

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

OBJECTS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: "from a map"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: "from a secret"}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 64Mi}}
"""

# The disks are told apart by their serial numbers, the CDs by what is on them.
SCRIPT = """\
              #!/bin/sh
              mkdir -p /mnt
              for block in /sys/block/vd? /sys/block/sd? /sys/block/sr?; do
                device=/dev/${block##*/}
                [ -e "$device" ] || continue
                name=$(cat "$block/serial" 2>/dev/null)
                echo "disk ${name:--} $(($(cat "$block/size") / 2048)) MiB"
                [ "$name" != DATA ] || { echo "before: $(head -c 7 "$device" | tr -d '\\0')"
                  printf written | dd of="$device" conv=fsync 2>/dev/null; }
                mount -t iso9660 -o ro "$device" /mnt 2>/dev/null || continue
                for file in /mnt/*; do
                  [ -f "$file" ] && echo "file ${file##*/}: $(head -c 40 "$file" | head -n 1)"
                done
                umount /mnt
              done
              echo "processors: $(grep -c ^processor /proc/cpuinfo)"
              echo the script has run
"""

VOLUMES = f"""\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {{name: guest}}
spec:
  runStrategy: Always
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 0
      domain:
        memory: {{guest: 128Mi}}
        cpu: {{cores: 2, model: Nehalem, features: [{{name: aes}}]}}
        ioThreadsPolicy: auto
        clock: {{timezone: Europe/Berlin, timer: {{hpet: {{present: false}}}}}}
        features: {{hyperv: {{relaxed: {{}}, synic: {{}}}}}}
        devices:
          blockMultiQueue: true
          rng: {{}}
          inputs: [{{name: tablet, type: tablet, bus: usb}}]
          watchdog: {{name: dog, i6300esb: {{action: reset}}}}
          sound: {{name: music}}
          disks:
            - {{name: system, bootOrder: 1, disk: {{bus: virtio}}}}
            - {{name: seed, cdrom: {{bus: sata}}}}
            - {{name: data, serial: DATA, dedicatedIOThread: true, disk: {{bus: virtio}}}}
            - {{name: scratch, serial: SCRATCH, disk: {{bus: virtio}}}}
            - {{name: host, serial: HOST, disk: {{bus: virtio}}}}
            - {{name: settings, cdrom: {{bus: scsi}}}}
            - {{name: password, disk: {{bus: virtio}}}}
            - {{name: about, disk: {{bus: virtio}}}}
            - {{name: account, disk: {{bus: virtio}}}}
      volumes:
        - {{name: system, containerDisk: {{image: "{world.MACHINE}"}}}}
        - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
        - {{name: scratch, emptyDisk: {{capacity: 7Mi}}}}
        - {{name: host, hostDisk: {{path: HOSTDISK, type: DiskOrCreate, capacity: 9Mi}}}}
        - {{name: settings, configMap: {{name: settings}}}}
        - {{name: password, secret: {{secretName: password}}}}
        - {{name: about, downwardAPI: {{fields: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}
        - {{name: account, serviceAccount: {{serviceAccountName: default}}}}
        - name: seed
          cloudInitNoCloud:
            userData: |
{SCRIPT}
"""

EFI = f"""\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {{name: guest}}
spec:
  runStrategy: Always
  template:
    spec:
      terminationGracePeriodSeconds: 0
      domain:
        memory: {{guest: 256Mi}}
        firmware:
          bootloader: {{efi: {{secureBoot: false, persistent: true}}}}
          kernelBoot:
            kernelArgs: console=ttyS0
            container: {{image: "{world.MACHINE_KERNEL}", kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd}}
        devices: {{tpm: {{persistent: true}}}}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: secure}}
spec:
  terminationGracePeriodSeconds: 0
  domain:
    memory: {{guest: 128Mi}}
    features: {{smm: {{}}, hyperv: {{relaxed: {{}}, vapic: {{}}, spinlocks: {{}}}}}}
    firmware: {{bootloader: {{efi: {{}}}}}}
    devices: {{tpm: {{}}}}
"""

SWTPM = Path("/var/lib/libvirt/swtpm")


def test_every_kind_of_volume_reaches_the_guest_and_what_should_last_does(
    daemon: Daemon, namespace: str
) -> None:
    host_disk = daemon.folder / namespace / "disk.img"
    # The machine comes first, and waits for what its volumes are made of.
    apply(daemon, namespace, VOLUMES.replace("HOSTDISK", str(host_disk)))
    daemon.eventually(
        lambda: "not found" in daemon.kubectl("get", "events", "-n", namespace).stdout
    )
    apply(daemon, namespace, OBJECTS)
    wait_ready(daemon, namespace, "guest")
    for before in ("", "written"):
        daemon.eventually(lambda: "the script has run" in serial(daemon, namespace), seconds=120)
        said = serial(daemon, namespace).replace("\r", "").splitlines()
        expected = {
            "disk DATA 64 MiB", "disk SCRATCH 7 MiB", "disk HOST 9 MiB", "processors: 2",
            "file greeting: from a map", "file word: from a secret", 'file labels: app="db"',
            f"file namespace: {namespace}", f"before: {before}".rstrip(),
        }  # fmt: skip
        assert expected <= {line.rstrip() for line in said}, said
        assert any(re.match(r"file token: ey", line) for line in said), said
        if not before:
            # Always: the machine is started again, on the same disks where those last.
            daemon.kubectl("delete", "vmi", "guest", "-n", namespace)
            daemon.eventually(lambda: "the script has run" not in serial(daemon, namespace))
    assert host_disk.stat().st_size == 9 << 20
    # The claim is in use: it goes when the machine has gone, and its directory with it.
    daemon.kubectl("delete", "pvc", "data", "-n", namespace, "--wait=false")
    assert daemon.get("pvc", "data", "-n", namespace)["metadata"]["deletionTimestamp"]
    daemon.kubectl("delete", "vm", "guest", "-n", namespace)
    daemon.eventually(lambda: not daemon.get("pvc", "-n", namespace)["items"])


def test_efi_and_a_tpm_that_outlive_the_instance_and_go_with_the_machine(
    daemon: Daemon, namespace: str
) -> None:
    apply(daemon, namespace, EFI)
    wait_ready(daemon, namespace, "guest")
    daemon.kubectl("wait", "--for=condition=Ready", "vmi/secure", "-n", namespace)
    secure = ElementTree.fromstring(virsh("dumpxml", f"{namespace}_secure"))
    loader = secure.find("os/loader")
    assert loader is not None
    assert loader.get("secure") == "yes"
    daemon.eventually(lambda: "efi: EFI v2" in serial(daemon, namespace), seconds=120)
    uuid = virsh("domuuid", f"{namespace}_guest").strip()
    ours = ElementTree.fromstring(virsh("dumpxml", f"{namespace}_guest"))
    variables = Path(ours.findtext("os/nvram", ""))
    daemon.kubectl("delete", "vmi", "secure", "guest", "-n", namespace)
    wait_ready(daemon, namespace, "guest")
    assert [path.name for path in SWTPM.iterdir()] == [uuid]
    assert variables.exists()
    daemon.kubectl("delete", "vm", "guest", "-n", namespace)
    daemon.eventually(lambda: not any(SWTPM.iterdir()) and not variables.exists())
    running = subprocess.run(["pgrep", "-x", "swtpm"], capture_output=True, check=False)
    assert running.returncode == 1
