"""Domain XML on its way in: read safely, marked as ours, and fitted to what this host can do.

The XML may come from anyone, so it is parsed without entities (a DOCTYPE is refused). What Tandem
changes in it is little and listed here:

- our metadata is added, and a UUID where there is none;
- where KVM was asked for (or nothing) and does not work, the domain's type becomes ``qemu``, and a
  processor that is the host's (``host-passthrough``, ``host-model``) becomes ``maximum``, all that
  emulation can do; what only KVM has goes (Hyper-V's enlightenments, hiding KVM, paravirtual locks
  and clocks), and pinned processors become a set that the whole machine runs on, as emulated ones
  are no threads that libvirt could pin;
- the first serial port that is a pty and has no ``<log>`` gets one;
- a machine with neither ``<serial>`` nor ``<console>`` gets a serial port with a log, since every PC
  has one and a guest that fails to boot says so there. ``<serial type='null'/>`` opts out.

All else is the caller's, and libvirt's own words say what is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from tandem.errors import Cause, InvalidSpec
from tandem.runtimes.adapter import RuntimeSpec

MACHINE_NS = "https://tandem.dev/xmlns/machine/1"
"""Namespace of the element that says whose a domain is; written once, at its definition."""

LIFE_NS = "https://tandem.dev/xmlns/life/1"
"""Namespace of the element that keeps when a domain was started and how it ended, which libvirt
forgets when it is restarted."""

SERIAL_LOG = "serial.log"

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MAX_XML = 1 << 20  # libvirt's own limit is 10 MiB; a domain with every device is below 100 KiB

_PINS = ("vcpupin", "emulatorpin", "iothreadpin")
_OF_KVM = ("hyperv", "kvm", "pvspinlock")
_TIMERS_OF_KVM = ("kvmclock", "hypervclock")

# Prefixes as libvirt's documentation has them, so that `virsh dumpxml` reads as one expects.
ElementTree.register_namespace("tandem", MACHINE_NS)
ElementTree.register_namespace("tandem-life", LIFE_NS)
ElementTree.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")


@dataclass(frozen=True, slots=True)
class End:
    """How a machine ended, as it was seen; ``phase`` and ``reason`` are a Condition's."""

    at: datetime
    phase: str
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What a domain's XML says about it. ``spec_id`` is empty for a stranger's.

    ``boot`` identifies the host's boot in which it was started.
    """

    uuid: str
    name: str
    domain_type: str
    log_path: Path | None = None
    spec_id: str = ""
    owner: str = ""
    spec_hash: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    started_at: datetime | None = None
    boot: str = ""
    end: End | None = None


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _invalid("vm_xml", "must not have a DOCTYPE")


def _invalid(where: str, message: str) -> InvalidSpec:
    return InvalidSpec(f"{where}: {message}", causes=[Cause(where, message)])


def parse(xml: str) -> ElementTree.Element:
    """The tree of a document from anyone. Raises ``InvalidSpec``."""
    if len(xml) > _MAX_XML:
        raise _invalid("vm_xml", f"must not be longer than {_MAX_XML} characters")
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        parser.feed(xml)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError) as error:
        raise _invalid("vm_xml", f"must be XML: {error}") from error
    return root


class Definition:
    """A domain about to be defined for one :class:`RuntimeSpec`.

    Checks the spec and raises ``InvalidSpec`` that names each fault. Pure.
    """

    def __init__(self, spec: RuntimeSpec, owner: str) -> None:
        self._root = _checked(spec)
        self._spec = spec
        self._owner = owner
        self.spec_hash = spec_hash(spec)
        given = (self._root.findtext("uuid") or "").strip()
        try:
            self.uuid = str(uuid.UUID(given) if given else uuid.uuid4())
        except ValueError as error:
            raise _invalid("vm_xml.uuid", f'Invalid value: "{given}": must be a UUID') from error
        self.uuid_given = bool(given)

    @property
    def wants_kvm(self) -> bool:
        """Whether KVM is asked for, or nothing in particular."""
        return self._root.get("type", "kvm") == "kvm"

    def build(self, *, domain_type: str | None, log_dir: Path, now: datetime) -> tuple[str, Record]:
        """The XML to define and the record of it. ``domain_type`` replaces the document's own when
        given; ``log_dir`` is where machines' directories are made."""
        root = self._root
        if domain_type:
            root.set("type", domain_type)
        if domain_type == "qemu":
            _fit_emulation(root)
        element = root.find("uuid")
        if element is None:
            element = ElementTree.Element("uuid")
            root.insert(1, element)
        element.text = self.uuid
        metadata = root.find("metadata")
        if metadata is None:
            metadata = ElementTree.SubElement(root, "metadata")
        for namespace in (MACHINE_NS, LIFE_NS):
            for stale in metadata.findall(f"{{{namespace}}}*"):
                metadata.remove(stale)
        metadata.append(self._mark(now))
        _log_serial(root, log_dir / self.uuid / SERIAL_LOG)
        return ElementTree.tostring(root, encoding="unicode"), read(root)

    def _mark(self, now: datetime) -> ElementTree.Element:
        mark = ElementTree.Element(
            _tag("machine"),
            {
                "id": self._spec.id,
                "owner": self._owner,
                "spec-hash": self.spec_hash,
                "created": now.isoformat(),
            },
        )
        for key, value in sorted(self._spec.labels.items()):
            ElementTree.SubElement(mark, _tag("label"), {"key": key, "value": value})
        return mark


def _tag(name: str) -> str:
    return f"{{{MACHINE_NS}}}{name}"


def spec_hash(spec: RuntimeSpec) -> str:
    """Tells the same spec from another one."""
    content = json.dumps([spec.vm_xml, sorted(spec.labels.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _checked(spec: RuntimeSpec) -> ElementTree.Element:
    causes = []
    if not _ID.fullmatch(spec.id):
        causes.append(Cause("id", f'Invalid value: "{spec.id}": must match {_ID.pattern}'))
    if spec.container_spec is not None:
        message = "must not be given: this adapter runs virtual machines"
        causes.append(Cause("container_spec", message, "FieldValueForbidden"))
    if spec.vm_xml is None:
        causes.append(Cause("vm_xml", "Required value: domain XML", "FieldValueRequired"))
    causes += [
        Cause(f"labels[{key}]", "must be text without control characters")
        for key, value in spec.labels.items()
        if not (_is_xml_text(key) and _is_xml_text(value))
    ]
    if causes or spec.vm_xml is None:
        what = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
        raise InvalidSpec(f"spec {spec.id!r} is invalid: {what}", causes=causes)
    root = parse(spec.vm_xml)
    if root.tag != "domain":
        raise _invalid("vm_xml", f"must be a <domain>, not a <{root.tag}>")
    if not (root.findtext("name") or "").strip():
        raise _invalid("vm_xml.name", "Required value")
    return root


def _is_xml_text(text: str) -> bool:
    """Whether XML can carry ``text`` in an attribute and give it back unchanged."""
    return all(
        char >= " " and not "\ud800" <= char <= "\udfff" and char < "\ufffe" for char in text
    )


def _fit_emulation(root: ElementTree.Element) -> None:
    cpu = root.find("cpu")
    if cpu is not None and cpu.get("mode", "").startswith("host-"):
        cpu.attrib = {"mode": "maximum"}
    tune = root.find("cputune")
    if tune is not None:
        for pin in _PINS:
            for element in tune.findall(pin):
                tune.remove(element)
        if len(tune) == 0:
            root.remove(tune)
    for parent, names in (("features", _OF_KVM), ("clock", ("timer",))):
        if (group := root.find(parent)) is not None:
            for child in [*group]:
                if child.tag in names and child.get("name") in (None, *_TIMERS_OF_KVM):
                    group.remove(child)


def _log_serial(root: ElementTree.Element, path: Path) -> None:
    devices = root.find("devices")
    if devices is None:
        devices = ElementTree.SubElement(root, "devices")
    ports = devices.findall("serial")
    if not ports and devices.find("console") is None:
        ports = [ElementTree.SubElement(devices, "serial", {"type": "pty"})]
    for port in ports:
        if port.get("type") == "pty":
            if port.find("log") is None:
                ElementTree.SubElement(port, "log", {"file": str(path), "append": "on"})
            return


def read(root: ElementTree.Element) -> Record:
    """What the XML of a domain, from libvirt, says about it."""
    mark = root.find(f"metadata/{_tag('machine')}")
    life = root.find(f"metadata/{{{LIFE_NS}}}life")
    log = root.find("devices/serial/log")
    base = Record(
        uuid=root.findtext("uuid", ""),
        name=root.findtext("name", ""),
        domain_type=root.get("type", ""),
        log_path=Path(log.get("file", "")) if log is not None else None,
    )
    if mark is None:
        return base
    started, boot, end = _read_life(life)
    return replace(
        base,
        spec_id=mark.get("id", ""),
        owner=mark.get("owner", ""),
        spec_hash=mark.get("spec-hash", ""),
        labels={
            label.get("key", ""): label.get("value", "") for label in mark.findall(_tag("label"))
        },
        created_at=_moment(mark.get("created")),
        started_at=started,
        boot=boot,
        end=end,
    )


def life_xml(started_at: datetime, boot: str, end: End | None = None) -> str:
    """The element, for ``virDomainSetMetadata``, that keeps when a domain was started and its end."""
    attributes = {"started": started_at.isoformat(), "boot": boot}
    if end:
        attributes |= {"ended": end.at.isoformat(), "phase": end.phase}
        attributes |= {"reason": end.reason, "message": end.message}
    return ElementTree.tostring(ElementTree.Element("life", attributes), encoding="unicode")


def _read_life(life: ElementTree.Element | None) -> tuple[datetime | None, str, End | None]:
    if life is None:
        return None, "", None
    ended = _moment(life.get("ended"))
    end = None
    if ended:
        words = (life.get(key, "") for key in ("phase", "reason", "message"))
        end = End(ended, *words)
    return _moment(life.get("started")), life.get("boot", ""), end


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:  # somebody edited it
        return None
