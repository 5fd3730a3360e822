"""What of a VirtualMachineInstance's spec (and so of a VirtualMachine's template) is acted upon."""

from __future__ import annotations

from tandem.api.kinds.support import YES, Leaf, Tree, ignored, only

_ONE_NODE = ignored("there is one node")
_FIXED = ignored("the machine is given what it asks for when it starts")
_NO_OVERHEAD = ignored("no memory is reserved beside the guest's")

_DISK_TARGET: Tree = {"bus": YES, "readonly": YES, "tray": YES, "pciAddress": only("")}

_DEVICES: Tree = {
    "disks": {
        "name": YES,
        "bootOrder": YES,
        "serial": YES,
        "cache": YES,
        "io": YES,
        "errorPolicy": YES,
        "shareable": YES,
        "dedicatedIOThread": YES,
        "blockSize": {
            "custom": {"logical": YES, "physical": YES, "discardGranularity": YES},
            "matchVolume": ignored("disks are files, whose blocks are whatever the guest sees"),
        },
        "tag": YES,
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
        "bootOrder": YES,
        "acpiIndex": YES,
        "tag": YES,
        "sriov": YES,  # refused by the rules, which name what is missing
    },
    "inputs": YES,
    "rng": YES,
    "watchdog": YES,
    "sound": YES,
    "tpm": {"enabled": YES, "persistent": YES},
    "video": YES,
    "panicDevices": YES,
    "filesystems": {"name": YES, "virtiofs": YES},
    # Refused by the rules, which name what is missing.
    "gpus": YES,
    "hostDevices": YES,
    "autoattachSerialConsole": YES,
    "autoattachGraphicsDevice": YES,
    "autoattachInputDevice": YES,
    "autoattachMemBalloon": YES,
    "autoattachPodInterface": YES,
    "logSerialConsole": YES,
    "blockMultiQueue": YES,
    "networkInterfaceMultiqueue": YES,
    "disableHotplug": YES,
    "useVirtioTransitional": YES,
}

_CLOUD_INIT: Tree = {
    "userData": YES,
    "userDataBase64": YES,
    "secretRef": YES,
    "networkData": YES,
    "networkDataBase64": YES,
    "networkDataSecretRef": YES,
}
_CLAIM: Tree = {"claimName": YES, "readOnly": YES, "hotpluggable": YES}
_REFERENCE: Tree = {"name": YES}

_VOLUMES: Tree = {
    "name": YES,
    "containerDisk": {"image": YES, "imagePullPolicy": YES, "path": YES},
    "cloudInitNoCloud": _CLOUD_INIT,
    "cloudInitConfigDrive": _CLOUD_INIT,
    "emptyDisk": {"capacity": YES},
    "ephemeral": {"persistentVolumeClaim": {"claimName": YES, "readOnly": YES}},
    "hostDisk": {"path": YES, "type": YES, "capacity": YES, "shared": YES},
    "persistentVolumeClaim": _CLAIM,
    "dataVolume": {"name": YES, "hotpluggable": YES},
    "configMap": {"name": YES, "optional": YES, "volumeLabel": YES},
    "secret": {"secretName": YES, "optional": YES, "volumeLabel": YES},
    "downwardAPI": {"fields": YES, "volumeLabel": YES},
    "serviceAccount": {"serviceAccountName": YES},
    "sysprep": {"configMap": _REFERENCE, "secret": _REFERENCE},
}

_HYPERV_PLAIN = (
    *("relaxed", "vapic", "vpindex", "runtime", "synic", "reset", "frequencies"),
    *("reenlightenment", "ipi", "evmcs", "vendorid", "spinlocks"),
)
_FEATURES: Tree = {
    "acpi": YES,
    "apic": YES,
    "smm": YES,
    "kvm": YES,
    "pvspinlock": YES,
    "hypervPassthrough": YES,
    "hyperv": {
        **dict[str, Leaf](dict.fromkeys(_HYPERV_PLAIN, YES)),
        "synictimer": YES,
        # libvirt before 11 cannot say these two.
        "tlbflush": {"enabled": YES, "direct": {}, "extended": {}},
    },
}

VMI_SPEC: Tree = {
    "architecture": YES,
    "domain": {
        "resources": {"requests": YES, "limits": YES, "overcommitGuestOverhead": YES},
        "memory": {
            "guest": YES,
            "maxGuest": _FIXED,
            "hugepages": {"pageSize": YES},
            "reservedOverhead": {"addedOverhead": _NO_OVERHEAD},
        },
        "cpu": {
            "cores": YES,
            "sockets": YES,
            "threads": YES,
            "model": YES,
            "maxSockets": _FIXED,
            "features": YES,
            "dedicatedCpuPlacement": YES,
            "isolateEmulatorThread": YES,
        },
        "machine": {"type": YES},
        "chassis": YES,
        "clock": YES,
        "features": _FEATURES,
        "firmware": {
            "uuid": YES,
            "serial": YES,
            "kernelBoot": {
                "kernelArgs": YES,
                "container": {
                    "image": YES,
                    "imagePullPolicy": YES,
                    "kernelPath": YES,
                    "initrdPath": YES,
                },
            },
            "bootloader": {
                "bios": {"useSerial": YES},
                "efi": {"secureBoot": YES, "persistent": YES},
            },
        },
        "devices": _DEVICES,
        "ioThreadsPolicy": YES,
        "ioThreads": {"supplementalPoolThreadCount": YES},
        "rebootPolicy": only("Reboot"),
    },
    "networks": {
        "name": YES,
        "pod": YES,
        "multus": YES,  # refused by the rules, which name what is missing
    },
    "volumes": _VOLUMES,
    "accessCredentials": {
        "sshPublicKey": {
            "source": YES,
            "propagationMethod": {"noCloud": YES, "configDrive": YES},
        },
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
