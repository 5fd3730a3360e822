"""Processors and memory: how many, of what kind, and where on the host."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from tandem.api.quantity import to_bytes, to_millis
from tandem.runtimes.libvirt.parts.element import Doc, add, part, refused
from tandem.runtimes.libvirt.parts.host import Given

_THE_HOSTS = ("host-model", "host-passthrough")


def memory_bytes(domain: Doc) -> int:
    """How much memory the guest is to have."""
    asked = (
        part(domain, "memory").get("guest")
        or part(domain, "resources", "requests").get("memory")
        or part(domain, "resources", "limits").get("memory")
        or part(domain, "memory", "hugepages").get("pageSize")
    )
    if asked is None:
        raise refused("spec.domain.memory.guest", "Required value")
    return to_bytes(asked)


def topology(domain: Doc) -> tuple[int, int, int]:
    """Sockets, cores, threads; a processor request stands for so many sockets."""
    cpu = part(domain, "cpu")
    if not any(cpu.get(name) for name in ("sockets", "cores", "threads")):
        asked = part(domain, "resources", "limits").get("cpu")
        asked = asked or part(domain, "resources", "requests").get("cpu")
        return (max(1, -(-to_millis(asked) // 1000)) if asked else 1), 1, 1
    return cpu.get("sockets") or 1, cpu.get("cores") or 1, cpu.get("threads") or 1


def vcpus(domain: Doc) -> int:
    """How many processors the guest sees."""
    sockets, cores, threads = topology(domain)
    return sockets * cores * threads


def add_memory(root: Element, domain: Doc, *, shared: bool) -> None:
    """``shared``: with servers of file systems on the host."""
    add(root, "memory", str(memory_bytes(domain)), unit="b")
    page = part(domain, "memory", "hugepages").get("pageSize")
    if not page and not shared:
        return
    backing = add(root, "memoryBacking")
    if page:
        add(add(backing, "hugepages"), "page", size=str(to_bytes(page)), unit="b")
    # Anonymous memory: huge pages need no file system that somebody would have to mount.
    add(backing, "source", type="memfd")
    if shared:
        add(backing, "access", mode="shared")


def add_processor(root: Element, domain: Doc, given: Given) -> None:
    """The processors of the guest, and those of the host that they run on."""
    count = add(root, "vcpu", str(vcpus(domain)), placement="static")
    if given.cpus:
        count.set("cpuset", _list((*given.cpus, *given.emulator_cpus)))
        tune = add(root, "cputune")
        for number, pin in enumerate(given.cpus):
            add(tune, "vcpupin", vcpu=str(number), cpuset=str(pin))
        add(tune, "emulatorpin", cpuset=_list(given.emulator_cpus or given.cpus))
    elif given.shared_cpus:
        count.set("cpuset", _list(given.shared_cpus))
    wanted = part(domain, "cpu")
    model = str(wanted.get("model") or "host-model")
    if model in _THE_HOSTS:
        cpu = add(root, "cpu", mode=model)
    else:
        cpu = add(root, "cpu", mode="custom", match="exact")
        add(cpu, "model", model)
    sockets, cores, threads = topology(domain)
    add(cpu, "topology", sockets=str(sockets), dies="1", cores=str(cores), threads=str(threads))
    features = {str(entry["name"]): entry.get("policy") for entry in wanted.get("features") or ()}
    if model not in _THE_HOSTS:
        # Old models have it, and no processor does any more, nor QEMU.
        features.setdefault("mpx", "disable")
    for name, policy in features.items():
        add(cpu, "feature", policy=str(policy or "require"), name=name)


def _list(cpus: Iterable[int]) -> str:
    return ",".join(map(str, sorted(cpus)))
