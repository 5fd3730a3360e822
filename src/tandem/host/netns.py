"""Network namespaces and addresses of Pods that were never finished.

containerd makes a Pod's network before it keeps a record of the Pod. When it is killed in between,
nobody knows of the namespace or the address any more. Both are told from those of a Pod that is just
being made by their age: whoever would finish it is gone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.errors import TandemError
from tandem.host import volumes
from tandem.host.run import run

NAMESPACES = Path("/run/netns")
CNI_STATE = Path("/var/lib/cni")

_ID = re.compile(
    r"[0-9a-f]{64}"
)  # containerd's own; what others keep in the same place looks different


@dataclass(frozen=True, slots=True)
class Attachment:
    """A network that a Pod ``id`` was given, as CNI remembers it. ``config`` is the whole
    configuration of the network; ``namespace`` and ``arguments`` (for its plugins) may be unknown."""

    id: str
    interface: str
    config: dict[str, Any]
    namespace: str = ""
    arguments: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    file: Path | None = None


def old_attachments(
    config: dict[str, Any], known: Collection[str], before: float, *, state: Path = CNI_STATE
) -> list[Attachment]:
    """Those of Pods that are not ``known``, made ``before`` that time, in the network ``config`` (a
    CNI configuration list). Blocking."""
    network = str(config.get("name", ""))
    found = {}
    for path in _entries(state / "results"):
        if item := _remembered(path, network):
            found[item.id] = (item, path)
    for path in _entries(state / "networks" / network):
        words = _read(path).split()
        if len(words) == 2 and _ID.fullmatch(words[0]) and words[0] not in found:
            found[words[0]] = (Attachment(words[0], words[1], config), path)
    return [item for item, path in found.values() if item.id not in known and _made(path) < before]


async def detach(attachment: Attachment, plugins: Path) -> None:
    """Give back what the network gave: CNI's DEL, of each of its plugins, the last first. What a
    plugin cannot undo stays, and is told by raising, once the others have done theirs."""
    config = attachment.config
    failure: TandemError | None = None
    for plugin in reversed(config.get("plugins", [])):
        request = {
            **plugin,
            "name": config["name"],
            "cniVersion": config["cniVersion"],
            **({"prevResult": attachment.result} if attachment.result else {}),
            **({"runtimeConfig": attachment.arguments} if attachment.arguments else {}),
        }
        environment = {
            "CNI_COMMAND": "DEL",
            "CNI_CONTAINERID": attachment.id,
            "CNI_NETNS": attachment.namespace,
            "CNI_IFNAME": attachment.interface,
            "CNI_PATH": os.fspath(plugins),
        }
        words = [f"{name}={value}" for name, value in environment.items()]
        try:
            program = plugins / str(plugin["type"])
            await run("env", *words, program, input=json.dumps(request).encode())
        except TandemError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    if attachment.file is not None:
        attachment.file.unlink(missing_ok=True)


def old_namespaces(before: float, *, folder: Path = NAMESPACES) -> list[Path]:
    """Those of containerd in which nothing runs, made ``before`` that time. Blocking."""
    found = [path for path in _entries(folder) if path.name.startswith("cni-")]
    old = [path for path in found if _made(path) < before]
    if not old:
        return []
    used = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                used.add((entry / "ns" / "net").stat().st_ino)
    return [path for path in old if path.stat().st_ino not in used]


def remove_namespace(path: Path) -> None:
    """Let go of a namespace, and with it of its interfaces. Blocking."""
    volumes.unmount_below(path)
    path.unlink(missing_ok=True)


def _remembered(path: Path, network: str) -> Attachment | None:
    """What CNI keeps in ``path``; None when it is of another network, or not to be read."""
    try:
        document = json.loads(_read(path))
        if document["networkName"] != network or not _ID.fullmatch(document["containerId"]):
            return None
        namespaces = [item.get("sandbox", "") for item in document["result"]["interfaces"]]
        return Attachment(
            document["containerId"],
            document["ifName"],
            json.loads(base64.b64decode(document["config"])),
            next(filter(None, namespaces), ""),
            document.get("capabilityArgs"),
            document["result"],
            path,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _made(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone since it was listed
        return float("inf")
