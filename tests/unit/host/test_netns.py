"""Which attachments of CNI are nobody's any more, by what lies in its folders."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from tandem.host.netns import detach, old_attachments

CONFIG: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "tandem",
    "plugins": [{"type": "first"}, {"type": "second", "capabilities": {"portMappings": True}}],
}
OURS, THEIRS = "a" * 64, "b" * 64


def remember(state: Path, id: str, *, network: str = "tandem", at: float = 100) -> Path:
    """As CNI does once a network is made."""
    document = {
        "containerId": id,
        "networkName": network,
        "ifName": "eth0",
        "config": base64.b64encode(json.dumps(CONFIG).encode()).decode(),
        "capabilityArgs": {"portMappings": []},
        "result": {"interfaces": [{"name": "br"}, {"name": "eth0", "sandbox": "/run/netns/x"}]},
    }
    path = state / "results" / f"{network}-{id}-eth0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    os.utime(path, (at, at))
    return path


def reserve(state: Path, address: str, text: str, *, at: float = 100) -> None:
    """As the host-local plugin does, a moment earlier."""
    path = state / "networks" / "tandem" / address
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))


def test_what_is_older_than_containerd_and_of_no_pod_is_old(tmp_path: Path) -> None:
    cached = remember(tmp_path, OURS)
    reserve(tmp_path, "10.0.0.2", f"{OURS}\r\neth0")
    reserve(tmp_path, "10.0.0.3", f"{THEIRS}\r\neth0")
    reserve(tmp_path, "10.0.0.4", "a-machine\neth0")
    reserve(tmp_path, "lock", "")
    found = old_attachments(CONFIG, {THEIRS}, 200, state=tmp_path)
    assert [(item.id, item.namespace, item.file) for item in found] == [
        (OURS, "/run/netns/x", cached)
    ]
    half = old_attachments(CONFIG, {OURS}, 200, state=tmp_path)
    assert [(item.id, item.interface, item.namespace) for item in half] == [(THEIRS, "eth0", "")]


def test_what_is_just_being_made_or_anothers_is_not(tmp_path: Path) -> None:
    remember(tmp_path, OURS, at=300)
    remember(tmp_path, THEIRS, network="podman")
    (tmp_path / "results" / "junk").write_text("{")
    reserve(tmp_path, "10.0.0.5", f"{'c' * 64}\neth0", at=300)
    assert old_attachments(CONFIG, (), 200, state=tmp_path) == []
    assert old_attachments(CONFIG, (), 200, state=tmp_path / "absent") == []


async def test_a_network_is_undone_by_its_plugins_the_last_first(tmp_path: Path) -> None:
    file = remember(tmp_path, OURS)
    (item,) = old_attachments(CONFIG, (), 200, state=tmp_path)
    for name in ("first", "second"):
        plugin = tmp_path / name
        plugin.write_text(
            f'#!/bin/sh\necho "{name} $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME" '
            f">>{tmp_path}/said; cat >{tmp_path}/{name}.json\n"
        )
        plugin.chmod(0o755)
    await detach(item, tmp_path)
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [f"{name} DEL {OURS} /run/netns/x eth0" for name in ("second", "first")]
    request = json.loads((tmp_path / "second.json").read_text())
    assert (request["name"], request["cniVersion"]) == ("tandem", "0.4.0")
    assert request["runtimeConfig"] == {"portMappings": []}
    assert not file.exists()
