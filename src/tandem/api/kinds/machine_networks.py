"""KubeVirt's admission rules for an instance's networks and interfaces."""

from __future__ import annotations

import re

from tandem.api.kind import Doc
from tandem.api.kinds.checks import port_name_causes
from tandem.api.kinds.machine_causes import duplicate, invalid, not_supported, required
from tandem.api.kinds.support import unsupported
from tandem.api.meta import get
from tandem.errors import Cause

_MODELS = ("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio")
_BINDINGS = (
    "bridge",
    "masquerade",
    "slirp",
    "sriov",
    "macvtap",
    "passt",
    "passtBinding",
    "binding",
)
_NOT_HERE = ("slirp", "macvtap", "passt", "passtBinding", "binding")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_RESERVED_MAC = "02:00:00:00:00:00"
_NAME = re.compile(r"[A-Za-z0-9_-]+")


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
            found.append(required(f"{at}.name", f"{at}.name is a required field"))
        if name in by_name:
            message = (
                f'Network with name "{name}" already exists, every network must have a unique name'
            )
            found.append(duplicate(f"{at}.name", message))
        by_name[name] = network
        types = [field for field, value in network.items() if field != "name" and value is not None]
        if not types:
            found.append(required(at, "should have a network type"))
        elif len(types) > 1:
            found.append(required(at, "should have only one network type"))
        elif types == ["multus"] and not network["multus"].get("networkName"):
            found.append(required(at, "CNI delegating plugin must have a networkName"))
        elif types == ["multus"]:
            message = f"this host has no network '{network['multus']['networkName']}'"
            found.append(not_supported(f"{at}.multus.networkName", message))
    if sum(1 for network in networks if network.get("pod") is not None) > 1:
        message = f"more than one interface is connected to a pod network in {interface_base}"
        found.append(duplicate(interface_base, message))
    used: set[str] = set()
    for index, interface in enumerate(interfaces):
        at = f"{interface_base}[{index}]"
        name = interface.get("name") or ""
        if name not in by_name:
            found.append(invalid(f"{at}.name", f"{at}.name '{name}' not found."))
        elif name in used:
            message = "Only one interface can be connected to one specific network"
            found.append(duplicate(f"{at}.name", message))
        used.add(name)
        found += _interface_causes(interface, by_name.get(name, {}), at)
    return found + [
        required(f"{net_base}[{index}].name", f"{net_base}[{index}].name '{name}' not found.")
        for index, network in enumerate(networks)
        if (name := network.get("name")) and name not in used
    ]


def _interface_causes(interface: Doc, network: Doc, path: str) -> list[Cause]:
    found = []
    name = interface.get("name") or ""
    if not _NAME.fullmatch(name):
        message = (
            "Network interface name can only contain alphabetical characters, numbers, dashes (-) or "
            "underscores (_)"
        )
        found.append(invalid(f"{path}.name", message))
    bindings = [binding for binding in _BINDINGS if interface.get(binding) is not None]
    if len(bindings) != 1:
        message = f"logical {name} interface must have exactly one binding method or binding plugin"
        found.append(invalid(path, message))
    found += [
        unsupported(f"{path}.{binding}")
        for binding in _NOT_HERE
        if interface.get(binding) is not None
    ]
    if interface.get("sriov") is not None:
        message = f"this host offers no SR-IOV device for the network '{name}'"
        found.append(not_supported(f"{path}.sriov", message))
    if interface.get("masquerade") is not None:
        if network and network.get("pod") is None:
            message = "Masquerade interface only implemented with pod network"
            found.append(invalid(f"{path}.name", message))
        if (interface.get("macAddress") or "").replace("-", ":") == _RESERVED_MAC:
            message = (
                "The requested MAC address is reserved for the in-pod bridge. Please choose another "
                "one."
            )
            found.append(invalid(f"{path}.macAddress", message))
    if (model := interface.get("model")) and model not in _MODELS:
        message = f"interface {path}.name uses model {model} that is not supported."
        found.append(not_supported(f"{path}.model", message))
    if (mac := interface.get("macAddress")) and not _MAC.fullmatch(mac):
        message = f"interface {path}.name has malformed MAC address ({mac})."
        found.append(invalid(f"{path}.macAddress", message))
    if interface.get("state") not in (None, "", "up", "down", "absent"):
        message = f"logical {name} interface state value is unsupported: {interface['state']}"
        found.append(not_supported(f"{path}.state", message))
    return found + _port_causes(interface, f"{path}.ports")


def _port_causes(interface: Doc, path: str) -> list[Cause]:
    found = []
    names: set[str] = set()
    for index, port in enumerate(interface.get("ports") or ()):
        at = f"{path}[{index}]"
        number = port.get("port")
        if not number:
            found.append(required(f"{at}.port", "Port field is mandatory."))
        elif not 0 < number < 65536:
            found.append(invalid(f"{at}.port", "Port field must be in range 0 < x < 65536."))
        if port.get("protocol") not in (None, "", "TCP", "UDP"):
            message = "Unknown protocol, only TCP or UDP allowed"
            found.append(invalid(f"{at}.protocol", message))
        if name := port.get("name"):
            if name in names:
                message = f"Duplicate name of the port: {name}"
                found.append(duplicate(f"{at}.name", message))
            elif port_name_causes(name, ""):
                found.append(invalid(f"{at}.name", f"Invalid name of the port: {name}"))
            names.add(name)
    return found
