"""Domain XML on its way in: safe to read, marked, and otherwise the caller's."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tandem.errors import InvalidSpec
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.libvirt import definition as module
from tandem.runtimes.libvirt.definition import Definition, End, Record, life_xml, parse, read

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
UUID = "5d307ca9-b3ef-428c-8861-06e72d69f223"
LOGS = Path("/logs")


def _build(
    xml: str, *, domain_type: str | None = None, **labels: str
) -> tuple[ElementTree.Element, Record]:
    spec = RuntimeSpec("vm-1", vm_xml=xml, labels=labels)
    text, record = Definition(spec, "tandem").build(
        domain_type=domain_type, log_dir=LOGS, now=MOMENT
    )
    root = ElementTree.fromstring(text)
    assert read(root) == record
    return root, record


def test_whose_it_is_is_written_into_it() -> None:
    _, record = _build("<domain><name>a</name></domain>", app='<&"', **{"x.org/y": "ünï"})
    assert (record.spec_id, record.owner, record.created_at) == ("vm-1", "tandem", MOMENT)
    assert record.labels == {"app": '<&"', "x.org/y": "ünï"}
    assert record.name == "a"
    assert (record.started_at, record.end) == (None, None)


def test_a_mark_that_is_there_already_does_not_count() -> None:
    forged = _build("<domain><name>a</name></domain>")[0]
    mark = forged.find(f"metadata/{{{module.MACHINE_NS}}}machine")
    assert mark is not None
    mark.set("owner", "somebody")
    _, record = _build(ElementTree.tostring(forged, encoding="unicode"))
    assert record.owner == "tandem"


def test_other_metadata_and_namespaces_survive() -> None:
    xml = """<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>a</name>
    <metadata><my:tag xmlns:my='urn:mine'>x</my:tag></metadata>
    <qemu:commandline><qemu:arg value='-s'/></qemu:commandline></domain>"""
    root, _ = _build(xml)
    assert root.findtext("metadata/{urn:mine}tag") == "x"
    space = "{http://libvirt.org/schemas/domain/qemu/1.0}"
    assert root.find(f"{space}commandline/{space}arg") is not None


def test_a_uuid_is_kept_and_else_made_up() -> None:
    _, record = _build(f"<domain><name>a</name><uuid>{UUID.upper()}</uuid></domain>")
    assert record.uuid == UUID
    first, second = (_build("<domain><name>a</name></domain>")[1].uuid for _ in range(2))
    assert first != second


@pytest.mark.parametrize(("type", "wants"), [("", True), ("kvm", True), ("qemu", False)])
def test_kvm_is_wanted_unless_something_else_is(type: str, wants: bool) -> None:
    attribute = f" type='{type}'" if type else ""
    spec = RuntimeSpec("x", vm_xml=f"<domain{attribute}><name>a</name></domain>")
    assert Definition(spec, "tandem").wants_kvm is wants


@pytest.mark.parametrize("mode", ["host-passthrough", "host-model"])
def test_without_kvm_the_hosts_processor_becomes_what_emulation_can_do(mode: str) -> None:
    xml = f"<domain type='kvm'><name>a</name><cpu mode='{mode}' check='none'><topology/></cpu></domain>"
    root, record = _build(xml, domain_type="qemu")
    cpu = root.find("cpu")
    assert cpu is not None
    assert cpu.attrib == {"mode": "maximum"}
    assert cpu.find("topology") is not None
    assert record.domain_type == "qemu"
    kept, _ = _build(xml, domain_type="kvm")
    assert kept.find(f"cpu[@mode='{mode}']") is not None


@pytest.mark.parametrize(
    "devices",
    ["", "<devices/>", "<devices><serial type='pty'/></devices>"],
    ids=["none", "no serial", "a pty"],
)
def test_a_serial_console_is_logged(devices: str) -> None:
    root, record = _build(f"<domain><name>a</name><uuid>{UUID}</uuid>{devices}</domain>")
    assert record.log_path == LOGS / UUID / "serial.log"
    assert len(root.findall("devices/serial")) == 1


@pytest.mark.parametrize(
    "device",
    [
        "<serial type='null'/>",
        "<serial type='tcp'><source mode='bind' host='::1' service='1'/></serial>",
        "<console type='pty'><target type='virtio'/></console>",
        "<serial type='pty'><log file='/my/own'/></serial>",
    ],
)
def test_a_console_of_the_callers_own_is_left_alone(device: str) -> None:
    root, _ = _build(f"<domain><name>a</name><devices>{device}</devices></domain>")
    devices = root.find("devices")
    assert devices is not None
    (only,) = devices
    assert ElementTree.tostring(only) == ElementTree.tostring(ElementTree.fromstring(device))


def test_only_the_first_pty_is_logged() -> None:
    ports = "<serial type='null'/><serial type='pty'/><serial type='pty'/>"
    root, _ = _build(f"<domain><name>a</name><devices>{ports}</devices></domain>")
    assert [port.find("log") is not None for port in root.findall("devices/serial")] == [
        False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("xml", "field"),
    [
        ("", "vm_xml"),
        ("<domain>", "vm_xml"),
        ("<domain><name>a\0</name></domain>", "vm_xml"),
        ("<pool><name>a</name></pool>", "vm_xml"),
        ("<domain/>", "vm_xml.name"),
        ("<domain><name> </name></domain>", "vm_xml.name"),
        ("<domain><name>a</name><uuid>12</uuid></domain>", "vm_xml.uuid"),
        ("<!DOCTYPE domain><domain><name>a</name></domain>", "vm_xml"),
        ("<domain><name>" + "a" * (1 << 20) + "</name></domain>", "vm_xml"),
    ],
)
def test_what_is_wrong_is_named(xml: str, field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        _build(xml)
    assert [cause.field for cause in caught.value.causes] == [field]


def test_no_entity_is_ever_expanded() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE d [<!ENTITY l0 "ha">{laughs}]><domain><name>&l11;</name></domain>'
    outside = (
        '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]><domain><name>&e;</name></domain>'
    )
    for xml in (bomb, outside):
        with pytest.raises(InvalidSpec, match="DOCTYPE"):
            parse(xml)


def test_every_fault_of_a_spec_is_named_at_once() -> None:
    spec = RuntimeSpec("-x", container_spec={}, labels={"a": "\n"})
    with pytest.raises(InvalidSpec) as caught:
        Definition(spec, "tandem")
    fields = [cause.field for cause in caught.value.causes]
    assert fields == ["id", "container_spec", "vm_xml", "labels[a]"]


def test_the_hash_tells_specs_apart() -> None:
    def hashed(xml: str, **labels: str) -> str:
        return module.spec_hash(RuntimeSpec("x", vm_xml=xml, labels=labels))

    assert hashed("<a/>", a="1", b="2") == hashed("<a/>", b="2", a="1")
    assert len({hashed("<a/>"), hashed("<b/>"), hashed("<a/>", a="1"), hashed("<a/>", a="2")}) == 4


def test_a_life_is_kept_and_read_back() -> None:
    end = End(MOMENT, "Failed", "Crashed", 'it "crashed" <badly>')
    root, _ = _build("<domain><name>a</name></domain>")
    metadata = root.find("metadata")
    assert metadata is not None
    life = ElementTree.fromstring(life_xml(MOMENT, "boot-1", end))
    life.tag = f"{{{module.LIFE_NS}}}life"  # as virDomainSetMetadata does
    metadata.append(life)
    record = read(root)
    assert (record.started_at, record.boot, record.end) == (MOMENT, "boot-1", end)


def test_what_somebody_broke_by_hand_is_not_known() -> None:
    root, _ = _build("<domain><name>a</name></domain>")
    mark = root.find(f"metadata/{{{module.MACHINE_NS}}}machine")
    assert mark is not None
    mark.set("created", "yesterday")
    assert read(root).created_at is None
