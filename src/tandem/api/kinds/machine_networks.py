"""KubeVirt's admission rules for an instance's networks and interfaces."""

from __future__ import annotations

import re
from collections import Counter

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.errors import Cause

_MODELS = ("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio")
_BINDINGS = ("bridge", "masquerade", "slirp", "sriov", "macvtap", "passt", "binding")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def network_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with ``networks`` and ``domain.devices.interfaces``, and between them."""
    networks = spec.get("networks") or []
    interfaces = get(spec, "domain.devices.interfaces", [])
    net_base, interface_base = f"{path}.networks", f"{path}.domain.devices.interfaces"
    found = []
    by_name: dict[str, Doc] = {}
    for index, network in enumerate(networks):
        at = f"{net_base}[{index}]"
        name = network.get("name") or ""
        if not name:
            found.append(causes.required(f"{at}.name"))
        if name in by_name:
            message = (
                f'Network with name "{name}" already exists, every network must have a unique name'
            )
            found.append(Cause(f"{at}.name", message, "FieldValueDuplicate"))
        by_name[name] = network
        types = [field for field, value in network.items() if field != "name" and value is not None]
        if not types:
            found.append(causes.required(at, "should have a network type"))
        elif len(types) > 1:
            found.append(causes.invalid(at, types, "should have only one network type"))
    if sum(1 for network in networks if network.get("pod") is not None) > 1:
        message = f"more than one interface is connected to a pod network in {interface_base}"
        found.append(causes.invalid(interface_base, len(networks), message))
    used = Counter(interface.get("name") for interface in interfaces)
    for index, interface in enumerate(interfaces):
        at = f"{interface_base}[{index}]"
        name = interface.get("name") or ""
        if name not in by_name:
            message = f"{at}.name '{name}' not found."
            found.append(causes.invalid(f"{at}.name", name, message))
        elif used[name] > 1:
            message = "Only one interface can be connected to one specific network"
            found.append(Cause(f"{at}.name", message, "FieldValueDuplicate"))
        found += _interface_causes(interface, by_name.get(name, {}), at)
    found += [
        causes.invalid(
            f"{net_base}[{index}].name", name, f"{net_base}[{index}].name '{name}' not found."
        )
        for index, network in enumerate(networks)
        if (name := network.get("name")) and name not in used
    ]
    return found


def _interface_causes(interface: Doc, network: Doc, path: str) -> list[Cause]:
    found = []
    bindings = [binding for binding in _BINDINGS if interface.get(binding) is not None]
    if len(bindings) != 1:
        message = (
            f"logical {interface.get('name')} interface must have exactly one binding method or "
            "binding plugin"
        )
        found.append(causes.invalid(path, bindings, message))
    if interface.get("masquerade") is not None and network and network.get("pod") is None:
        message = "Masquerade interface only implemented with pod network"
        found.append(causes.invalid(f"{path}.name", interface.get("name"), message))
    if (model := interface.get("model")) and model not in _MODELS:
        message = f"interface {path}.name uses model {model} that is not supported."
        found.append(causes.not_supported(f"{path}.model", model, _MODELS))
        found[-1] = Cause(f"{path}.model", f"{found[-1].message}: {message}", found[-1].reason)
    if (mac := interface.get("macAddress")) and not _MAC.fullmatch(mac):
        message = f"interface {path}.name has malformed MAC address ({mac})."
        found.append(causes.invalid(f"{path}.macAddress", mac, message))
    for index, port in enumerate(interface.get("ports") or ()):
        at = f"{path}.ports[{index}]"
        number = port.get("port")
        if number is None:
            found.append(causes.required(f"{at}.port", "Port field is mandatory."))
        elif not 0 < number < 65536:
            message = "Port field must be in range 0 < x < 65536."
            found.append(causes.invalid(f"{at}.port", number, message))
        if port.get("protocol") not in (None, "", "TCP", "UDP"):
            message = "Unknown protocol, only TCP or UDP allowed"
            found.append(causes.invalid(f"{at}.protocol", port["protocol"], message))
    return found
