"""The Pods' network on a host that has none configured: one bridge, addresses from a private range.

Written only where no other CNI configuration exists, and then left alone: its range must not change
under addresses that are in use.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tandem.errors import Unavailable

BRIDGE = "tandem0"
CONF_NAME = "10-tandem.conflist"
BIN_DIRS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))  # Debian's place, upstream's place

_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
_RANGE_BITS = 20  # 4,093 addresses: more than one host runs, and little of the private space

Network = ipaddress.IPv4Network


def find_bin_dir(candidates: Iterable[Path] = BIN_DIRS) -> Path:
    """The folder with the CNI plugins. Raises ``Unavailable``."""
    for folder in candidates:
        if all((folder / plugin).exists() for plugin in _PLUGINS):
            return folder
    raise Unavailable(
        "the CNI plugins are not installed",
        hint="apt-get install --no-install-recommends containernetworking-plugins",
    )


def is_configured(conf_dir: Path) -> bool:
    """Whether ``conf_dir`` holds a network configuration that containerd would take."""
    suffixes = {".conf", ".conflist", ".json"}
    return conf_dir.is_dir() and any(path.suffix in suffixes for path in conf_dir.iterdir())


def networks_in_use(route_table: str, resolv_conf: str) -> list[Network]:
    """The IPv4 networks that this host already reaches by a route of their own, and its name
    servers (which may lie behind the default route). Takes the texts of ``/proc/net/route`` and
    ``/etc/resolv.conf``."""
    found = [network for _, network in _routes(route_table)]
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and ":" not in words[1]:
            found.append(Network(words[1]))
    return found


def network_of_bridge(route_table: str) -> Network | None:
    """The network of our bridge, when it is already there: a bridge outlives the configuration that
    made it, and the plugin refuses one whose address is of another network."""
    return next((network for name, network in _routes(route_table) if name == BRIDGE), None)


def _routes(route_table: str) -> Iterator[tuple[str, Network]]:
    """Interface and network of each route but the default ones."""
    for line in route_table.splitlines()[1:]:
        fields = line.split()
        destination, mask = (
            socket.inet_ntoa(struct.pack("=I", int(fields[index], 16))) for index in (1, 7)
        )
        if mask != "0.0.0.0":
            yield fields[0], Network(f"{destination}/{mask}", strict=False)


def choose_range(in_use: Iterable[Network]) -> Network:
    """A private range that overlaps none of ``in_use``. Raises ``Unavailable``.

    Taken from the upper middle of 10.0.0.0/8, which home routers, Docker, Podman, libvirt and the
    usual Kubernetes defaults leave free.
    """
    taken = list(in_use)
    for second in range(201, 251):
        candidate = Network(f"10.{second}.0.0/{_RANGE_BITS}")
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise Unavailable(
        "no free private address range for the Pods' network",
        hint=f"write a CNI configuration of your own to /etc/cni/net.d (see {CONF_NAME})",
    )


def conflist(address_range: Network, *, bridge: str = BRIDGE, masquerade: bool = True) -> str:
    """The network configuration, as CNI 0.4.0 has it (the newest that Debian 12's plugins and
    containerd 1.6 agree on). ``masquerade`` needs a working ``iptables``."""
    document = {
        "cniVersion": "0.4.0",
        "name": "tandem",
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isGateway": True,
                "ipMasq": masquerade,
                "hairpinMode": True,  # a Pod may reach itself through a port of the host
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(address_range)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": masquerade},
        ],
    }
    return json.dumps(document, indent=2) + "\n"
