"""Whatever a user writes stays what he wrote: it never becomes XML, JSON or a command."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.api.kinds import VIRTUAL_MACHINE_INSTANCE
from tandem.api.rest import prepare_create
from tandem.errors import BadRequest, InvalidSpec
from tandem.host import cloudinit
from tandem.host.machinefiles import DiskFile, MachineFiles
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.libvirt.definition import Definition
from tandem.runtimes.libvirt.translate import domain_xml

WORDS = st.text(max_size=40) | st.sampled_from(
    [
        "</cmdline><evil/>", "]]>", "&amp;", "<!--", "a,b=c", "$(id)", "`id`", "; rm -rf /", "\"'",
        "../../etc/shadow", "-drive file=/etc/shadow", "\x00", "\ud800", "%s{}", "\n<x/>", "--help",
    ]
)  # fmt: skip

FILES = MachineFiles({"root": DiskFile(Path("/d/root"), "raw")}, kernel=Path("/d/kernel"))


def spec() -> dict[str, Any]:
    """A text wherever there may be one."""
    return {
        "hostname": "vm",
        "domain": {
            "memory": {"guest": "64Mi"},
            "cpu": {"model": "Nehalem", "features": [{"name": "aes", "policy": "require"}]},
            "chassis": {
                "manufacturer": "a",
                "version": "1",
                "serial": "2",
                "asset": "3",
                "sku": "4",
            },
            "clock": {
                "timezone": "UTC",
                "timer": {"rtc": {"tickPolicy": "delay", "track": "wall"}},
            },
            "machine": {"type": "q35"},
            "features": {"hyperv": {"vendorid": {"vendorid": "a"}}},
            "firmware": {
                "serial": "a",
                "uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223",
                "kernelBoot": {
                    "kernelArgs": "quiet",
                    "container": {"image": "a", "kernelPath": "/k", "initrdPath": "/i"},
                },
            },
            "devices": {
                "disks": [
                    {"name": "root", "serial": "a", "cache": "none", "disk": {"bus": "scsi"}}
                ],
                "inputs": [{"name": "pen", "type": "tablet", "bus": "usb"}],
                "watchdog": {"name": "dog", "i6300esb": {"action": "reset"}},
                "sound": {"name": "music", "model": "ich9"},
                "interfaces": [
                    {
                        "name": "net",
                        "bridge": {},
                        "macAddress": "02:00:00:00:00:01",
                        "model": "e1000",
                    }
                ],
            },
        },
        "networks": [{"name": "net", "pod": {}}],
        "volumes": [{"name": "root", "emptyDisk": {"capacity": "1Mi"}}],
    }


def texts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the texts are."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in texts(item, (*path, key))]
    if isinstance(value, list):
        return [found for key, item in enumerate(value) for found in texts(item, (*path, key))]
    return [path] if isinstance(value, str) else []


def xml(content: dict[str, Any]) -> str:
    doc = {"metadata": {"name": "vm"}, "spec": content}
    vmi = prepare_create(VIRTUAL_MACHINE_INSTANCE, doc, namespace="default").doc
    return domain_xml(vmi, FILES)


SHAPE = [element.tag for element in ElementTree.fromstring(xml(spec())).iter()]


@pytest.mark.parametrize("where", texts(spec()), ids=lambda where: ".".join(map(str, where)))
@settings(max_examples=40)
@given(word=WORDS)
def test_a_word_is_refused_or_is_only_content(where: tuple[Any, ...], word: str) -> None:
    odd = spec()
    part: Any = odd
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = word
    try:
        made = xml(odd)
    except (BadRequest, InvalidSpec):
        return
    if word:  # an empty text asks for nothing
        assert [element.tag for element in ElementTree.fromstring(made).iter()] == SHAPE
    Definition(RuntimeSpec("x", vm_xml=made), "tandem")


@given(name=st.text(max_size=80), key=st.text(max_size=80), data=st.binary(min_size=1, max_size=80))
def test_first_boot_data_is_json_around_the_users_own_bytes(
    name: str, key: str, data: bytes
) -> None:
    source = {"userDataBase64": base64.b64encode(data).decode()}
    about: dict[str, Any] = {"field": "f", "instance_id": name, "hostname": name, "secrets": {}}
    files = cloudinit.no_cloud_files(source, keys=[key], **about)
    assert json.loads(files["meta-data"]) == {
        "instance-id": name,
        "local-hostname": name,
        "public-keys": {"0": key},
    }
    assert files["user-data"] == data
    drive = cloudinit.config_drive_files(source, keys=[key], **about)
    assert json.loads(drive["openstack/latest/meta_data.json"])["public_keys"] == {"0": key}
    assert drive["openstack/latest/user_data"] == data
