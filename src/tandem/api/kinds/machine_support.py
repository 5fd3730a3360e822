"""What of a VirtualMachineInstance's spec (and so of a VirtualMachine's template) is acted upon."""

from __future__ import annotations

from tandem.api.kinds.support import YES, Tree, ignored

_ONE_NODE = ignored("there is one node")
_FIXED = ignored("the machine is given what it asks for when it starts")

_DISK_TARGET: Tree = {"bus": YES, "readonly": YES, "tray": YES}

_DEVICES: Tree = {
    "disks": {
        "name": YES,
        "bootOrder": YES,
        "serial": YES,
        "cache": YES,
        "disk": _DISK_TARGET,
        "cdrom": _DISK_TARGET,
    },
    "interfaces": {
        "name": YES,
        "masquerade": YES,
        "bridge": YES,
        "model": YES,
        "macAddress": YES,
        "ports": YES,
        "sriov": YES,  # refused by the rules, which name what is missing
    },
    "rng": YES,
    # Refused by the rules, which name what is missing.
    "gpus": YES,
    "hostDevices": YES,
    "autoattachSerialConsole": YES,
    "autoattachGraphicsDevice": YES,
    "autoattachMemBalloon": YES,
    "autoattachPodInterface": YES,
    "logSerialConsole": YES,
}

VMI_SPEC: Tree = {
    "architecture": YES,
    "domain": {
        "resources": {"requests": YES, "limits": YES},
        "memory": {"guest": YES, "maxGuest": _FIXED},
        "cpu": {
            "cores": YES,
            "sockets": YES,
            "threads": YES,
            "model": YES,
            "maxSockets": _FIXED,
        },
        "machine": {"type": YES},
        "firmware": {"uuid": YES, "serial": YES, "kernelBoot": YES, "bootloader": {"bios": YES}},
        "features": {"acpi": YES},
        "devices": _DEVICES,
    },
    "networks": {
        "name": YES,
        "pod": YES,
        "multus": YES,  # refused by the rules, which name what is missing
    },
    "volumes": {
        "name": YES,
        "containerDisk": {"image": YES, "imagePullPolicy": YES, "path": YES},
        "cloudInitNoCloud": {
            "userData": YES,
            "userDataBase64": YES,
            "secretRef": YES,
            "networkData": YES,
            "networkDataBase64": YES,
            "networkDataSecretRef": YES,
        },
        "emptyDisk": {"capacity": YES},
    },
    # Refused by the rules, which name what is missing.
    "resourceClaims": YES,
    "terminationGracePeriodSeconds": YES,
    "hostname": YES,
    "subdomain": ignored("there is no cluster DNS"),
    "schedulerName": YES,
    "tolerations": YES,
    "priorityClassName": YES,
    "topologySpreadConstraints": YES,
    "evictionStrategy": YES,
    "nodeSelector": _ONE_NODE,
    "affinity": _ONE_NODE,
}

VM_SPEC: Tree = {
    "running": YES,
    "runStrategy": YES,
    "template": {"metadata": YES, "spec": VMI_SPEC},
}
