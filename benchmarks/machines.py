"""Virtual machines through the API against define and start over libvirt with the same XML."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
import uuid
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import libvirt

from benchmarks.daemon import Served
from benchmarks.figures import Row, in_turn, latency_row
from benchmarks.pods import watched

_RUNS = 7


def machine(name: str, image: str) -> dict[str, Any]:
    """A small machine on a containerDisk."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "domain": {
                "memory": {"guest": "128Mi"},
                "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
            },
            "volumes": [{"name": "root", "containerDisk": {"image": image}}],
        },
    }


def twin(xml: str, folder: Path) -> str:
    """``xml`` under a name, an identity and files of its own."""
    domain = ElementTree.fromstring(xml)
    name = f"bare-{uuid.uuid4().hex[:12]}"
    identity = str(uuid.uuid4())
    for path, text in (
        ("name", name),
        ("uuid", identity),
        ("sysinfo/system/entry[@name='uuid']", identity),
    ):
        for element in domain.iterfind(path):
            element.text = text
    for address in domain.iterfind("devices/interface/mac"):
        address.set(
            "address", "52:54:00:" + ":".join(uuid.uuid4().hex[i : i + 2] for i in (0, 2, 4))
        )
    for log in domain.iterfind("devices//log"):
        log.set("file", str(folder / f"{name}.log"))
    for disk in domain.iterfind("devices/disk"):
        source, base = disk.find("source[@file]"), disk.find("backingStore/source[@file]")
        if source is None or base is None:
            continue
        kept = folder / "base.qcow2"
        if not kept.exists():
            shutil.copyfile(base.get("file", ""), kept)
        overlay = folder / f"{name}.qcow2"
        backing = ("-b", str(kept), "-F", "qcow2")
        create = ("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(overlay))
        subprocess.run(create, check=True)
        overlay.chmod(0o666)
        base.set("file", str(kept))
        source.set("file", str(overlay))
    for source in domain.iterfind("devices/channel/source[@path]"):
        source.attrib.pop("path")
    return ElementTree.tostring(domain, encoding="unicode")


async def rows(served: Served, uri: str, image: str) -> list[Row]:
    """One at a time."""
    folder = served.folder / "bare"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    connection = libvirt.open(uri)
    template: list[str] = []

    async with watched(served, "virtualmachineinstances") as phases:

        async def ours(number: int) -> float:
            name = f"machine-{number}"
            began = time.monotonic()
            await served.api.create("virtualmachineinstances", machine(name, image))
            await phases.until("Running", name)
            taken = (time.monotonic() - began) * 1000
            if not template:
                domain = connection.lookupByName(f"default_{name}")
                template.append(twin(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), folder))
            await served.api.delete("virtualmachineinstances", name)
            await phases.until("", name)
            return taken

        async def reference(_number: int) -> float:
            xml = twin(template[0], folder)
            began = time.monotonic()
            domain = await asyncio.to_thread(_define_and_start, connection, xml)
            taken = (time.monotonic() - began) * 1000
            await asyncio.to_thread(_destroy, domain)
            return taken

        try:
            pair = await in_turn(_RUNS, ours, reference)
        finally:
            connection.close()
    return [
        latency_row(
            "VM: create to Running seen by a watcher (bare define and start)",
            pair,
            "at most 15 ms over",
        )
    ]


def _define_and_start(connection: libvirt.virConnect, xml: str) -> libvirt.virDomain:
    domain = connection.defineXML(xml)
    domain.create()
    return domain


def _destroy(domain: libvirt.virDomain) -> None:
    domain.destroy()
    domain.undefine()
