"""The Pods' network: which range is free, and what is written."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tandem.errors import Unavailable
from tandem.host import cni

HEADER = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def test_networks_in_use_are_the_routes_and_the_name_servers_but_not_the_default_route() -> None:
    routes = (
        HEADER + "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    resolv = "search example.org\nnameserver 10.201.3.53\nnameserver fd00::53\noptions ndots:1\n"
    assert cni.networks_in_use(routes, resolv) == [
        IPv4Network("192.0.2.0/24"),
        IPv4Network("10.201.3.53/32"),
    ]


def test_an_empty_host_uses_no_networks() -> None:
    assert cni.networks_in_use("", "") == []


@pytest.mark.parametrize(
    ("in_use", "expected"),
    [
        pytest.param([], "10.201.0.0/20", id="first choice"),
        pytest.param(["10.201.3.0/24"], "10.202.0.0/20", id="inside"),
        pytest.param(["10.200.0.0/14"], "10.204.0.0/20", id="around"),
        pytest.param(["10.201.128.0/24"], "10.201.0.0/20", id="beside"),
    ],
)
def test_the_range_overlaps_nothing_that_is_in_use(in_use: list[str], expected: str) -> None:
    assert cni.choose_range(map(IPv4Network, in_use)) == IPv4Network(expected)


def test_no_free_range_is_said_with_what_to_do() -> None:
    with pytest.raises(Unavailable, match="no free private address range") as caught:
        cni.choose_range([IPv4Network("10.0.0.0/8")])
    assert "/etc/cni/net.d" in str(caught.value.hint)


def test_the_configuration_has_the_bridge_the_range_and_ports() -> None:
    document = json.loads(cni.conflist(IPv4Network("10.201.0.0/20"), bridge="br7"))
    bridge, portmap = document["plugins"]
    assert (bridge["bridge"], bridge["ipMasq"]) == ("br7", True)
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.201.0.0/20"}]]
    assert portmap["capabilities"] == {"portMappings": True}


def test_without_iptables_nothing_masquerades() -> None:
    document = json.loads(cni.conflist(IPv4Network("10.201.0.0/20"), masquerade=False))
    assert [plugin.get("ipMasq", plugin.get("snat")) for plugin in document["plugins"]] == [
        False,
        False,
    ]


def test_a_folder_counts_as_configured_when_it_holds_a_configuration(tmp_path: Path) -> None:
    assert not cni.is_configured(tmp_path / "absent")
    (tmp_path / "README").touch()
    assert not cni.is_configured(tmp_path)
    (tmp_path / "10-x.conflist").touch()
    assert cni.is_configured(tmp_path)


def test_the_plugins_are_found_where_all_of_them_are(tmp_path: Path) -> None:
    partial, whole = tmp_path / "partial", tmp_path / "whole"
    for folder, names in (
        (partial, ["bridge"]),
        (whole, ["bridge", "host-local", "loopback", "portmap"]),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    assert cni.find_bin_dir([partial, whole]) == whole
    with pytest.raises(Unavailable) as caught:
        cni.find_bin_dir([partial])
    assert "containernetworking-plugins" in str(caught.value.hint)


def test_a_bridge_that_is_left_from_before_keeps_its_network() -> None:
    routes = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
        "tandem0\t0000C90A\t00000000\t0001\t0\t0\t0\t00F0FFFF\n"
    )
    assert cni.network_of_bridge(routes) == IPv4Network("10.201.0.0/20")
    assert cni.network_of_bridge(routes.replace("tandem0", "docker0")) is None
